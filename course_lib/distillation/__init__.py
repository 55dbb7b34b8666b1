"""Chapter 11: teaching a 1-Lipschitz student to see."""

from course_lib.distillation.budget import Budget, arithmetic, measured_throughput
from course_lib.distillation.efficientnet import EfficientNetLite0
from course_lib.distillation.exam import Exam, pixels
from course_lib.distillation.images import DATASETS, ImageFiles, centre_crop, embedded, open_images
from course_lib.distillation.learning import Distilled, distill, load_student, new_student
from course_lib.distillation.losses import LOSSES, cosine, distillation_loss, relational, rmse
from course_lib.distillation.parallel import process_group
from course_lib.distillation.recipe import LAPTOP, PUBLISHED, RECIPES, Recipe
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
    "DATASETS", "LAPTOP", "LOSSES", "PUBLISHED", "RECIPES", "TEACHERS", "Budget", "CountSketch", "DistanceError",
    "Distilled", "EfficientNetLite0", "Ensemble", "Exam", "ImageData", "ImageFiles", "Recipe", "Reduced",
    "Reduction", "StreamedPCA", "Targets", "TargetsError", "Teacher", "TensorImages", "Views", "apply_views",
    "arithmetic", "cached_targets", "centre_crop", "cosine", "distance_errors", "distill", "distillation_loss",
    "draw_views", "embedded", "fit_reduction", "fitted_reduction", "load_student", "load_teacher",
    "measured_throughput", "new_student", "open_images", "pixels", "process_group", "relational", "rmse",
    "whole_teacher",
]  # fmt: skip
