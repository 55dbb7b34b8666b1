"""Chapter 12: certified perceptual metrics."""

from course_lib.certification.evaluation import EPS, Certified, SoundnessError, certify, check_against_attack
from course_lib.certification.metric import FORMULAS, Assessment, CertifiedMetric, pixel_l2
from course_lib.certification.radii import (
    Counterexample,
    append_one,
    cosine_2afc_radius,
    distance_interval,
    euclidean_2afc_radius,
    published_2afc_radius,
    published_counterexample,
    three_image_certified,
)

__all__ = [
    "EPS", "FORMULAS", "Assessment", "Certified", "CertifiedMetric", "Counterexample", "SoundnessError", "append_one",
    "certify", "check_against_attack", "cosine_2afc_radius", "distance_interval", "euclidean_2afc_radius", "pixel_l2",
    "published_2afc_radius", "published_counterexample", "three_image_certified",
]  # fmt: skip
