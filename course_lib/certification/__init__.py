"""Chapter 12: certified perceptual metrics."""

from course_lib.certification.metric import FORMULAS, Assessment, CertifiedMetric
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
    "FORMULAS", "Assessment", "CertifiedMetric", "Counterexample", "append_one", "cosine_2afc_radius",
    "distance_interval", "euclidean_2afc_radius", "published_2afc_radius", "published_counterexample",
    "three_image_certified",
]  # fmt: skip
