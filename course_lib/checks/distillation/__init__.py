"""Checks of chapter 11's exercises: what a student is told, by whom, about which images, and in which process."""

from course_lib.checks.distillation.losses import published_loss, relational_loss
from course_lib.checks.distillation.own import lesson, scores, student
from course_lib.checks.distillation.sharing import share
from course_lib.checks.distillation.steps import distil
from course_lib.checks.distillation.teaching import count_sketch, ensemble
from course_lib.checks.distillation.views import two_views

__all__ = [
    "count_sketch",
    "distil",
    "ensemble",
    "lesson",
    "published_loss",
    "relational_loss",
    "scores",
    "share",
    "student",
    "two_views",
]
