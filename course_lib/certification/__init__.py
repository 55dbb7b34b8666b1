"""Chapter 12: certified perceptual metrics."""

from course_lib.certification.evaluation import EPS, Certified, SoundnessError, certify, check_against_attack
from course_lib.certification.finetuning import Finetuned, Recipe, distance_hinge, finetune, radius_hinge
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
from course_lib.certification.shipped import load_shipped
from course_lib.certification.smoothing import (
    Smoothed,
    certify_smoothed,
    largest_smoothed_radius,
    lower_bound_of_share,
    smoothed_2afc,
)

__all__ = [
    "EPS", "FORMULAS", "Assessment", "Certified", "CertifiedMetric", "Counterexample", "Finetuned", "Recipe",
    "Smoothed", "SoundnessError", "append_one", "certify", "certify_smoothed", "check_against_attack",
    "cosine_2afc_radius", "distance_hinge", "distance_interval", "euclidean_2afc_radius", "finetune",
    "largest_smoothed_radius", "load_shipped", "lower_bound_of_share", "pixel_l2", "published_2afc_radius",
    "published_counterexample", "radius_hinge", "smoothed_2afc", "three_image_certified",
]  # fmt: skip
