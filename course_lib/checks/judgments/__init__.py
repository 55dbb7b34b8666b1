"""Checks of chapter 08's exercises: scores, ceilings, an interval, learning heads, an own metric."""

from course_lib.checks.judgments.interval import photograph_interval
from course_lib.checks.judgments.learning import channel_differences, ranking_loss, train_step
from course_lib.checks.judgments.own import my_metric
from course_lib.checks.judgments.scores import ceilings, jnd_map, two_afc_score

__all__ = [
    "ceilings",
    "channel_differences",
    "jnd_map",
    "my_metric",
    "photograph_interval",
    "ranking_loss",
    "train_step",
    "two_afc_score",
]
