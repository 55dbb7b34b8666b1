"""Chapter 11: teaching a 1-Lipschitz student to see."""

from course_lib.distillation.efficientnet import EfficientNetLite0
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

__all__ = [
    "TEACHERS", "CountSketch", "DistanceError", "EfficientNetLite0", "Ensemble", "ImageData", "Reduced", "Reduction",
    "StreamedPCA", "Targets", "TargetsError", "Teacher", "TensorImages", "cached_targets", "distance_errors",
    "fit_reduction", "fitted_reduction", "load_teacher", "whole_teacher",
]  # fmt: skip
