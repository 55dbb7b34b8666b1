"""Checks of chapter 12's exercises: radii, intervals, certified accuracy, smoothing, a loss, one's own metric."""

from course_lib.checks.certification.angles import three_image_certified
from course_lib.checks.certification.intervals import interval
from course_lib.checks.certification.own import metric, scores
from course_lib.checks.certification.radii import cosine_radius, euclidean_radius
from course_lib.checks.certification.scoring import certified_accuracy
from course_lib.checks.certification.smoothing import smoothed
from course_lib.checks.certification.training import radius_hinge

__all__ = [
    "certified_accuracy",
    "cosine_radius",
    "euclidean_radius",
    "interval",
    "metric",
    "radius_hinge",
    "scores",
    "smoothed",
    "three_image_certified",
]
