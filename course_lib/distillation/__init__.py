"""Chapter 11: teaching a 1-Lipschitz student to see."""

from course_lib.distillation.efficientnet import EfficientNetLite0
from course_lib.distillation.losses import LOSSES, cosine, distillation_loss, relational, rmse
from course_lib.distillation.reduced import Reduced, fitted_reduction
from course_lib.distillation.sketch import (
    CountSketch,
    DistanceError,
    Reduction,
    StreamedPCA,
    distance_errors,
    fit_reduction,
)
from course_lib.distillation.targets import ImageData, Targets, TargetsError, TensorImages, cached_targets
from course_lib.distillation.teachers import TEACHERS, Ensemble, Teacher, load_teacher, whole_teacher
from course_lib.distillation.views import Views, apply_views, draw_views

__all__ = [
    "LOSSES", "TEACHERS", "CountSketch", "DistanceError", "EfficientNetLite0", "Ensemble", "ImageData", "Reduced",
    "Reduction", "StreamedPCA", "Targets", "TargetsError", "Teacher", "TensorImages", "Views", "apply_views",
    "cached_targets", "cosine", "distance_errors", "distillation_loss", "draw_views", "fit_reduction",
    "fitted_reduction", "load_teacher", "relational", "rmse", "whole_teacher",
]  # fmt: skip
