"""Checks of chapter 09's exercises: the parts of an attack, attacks that say "robust", and one of one's own."""

from course_lib.checks.attacks.audits import AUDITS, diagnose
from course_lib.checks.attacks.climbing import pgd
from course_lib.checks.attacks.geometry import project, steepest
from course_lib.checks.attacks.halving import to_halve
from course_lib.checks.attacks.margins import margin, smallest_flip
from course_lib.checks.attacks.mending import mended
from course_lib.checks.attacks.own import few_queries, masked_decisions

__all__ = [
    "AUDITS", "diagnose", "few_queries", "margin", "masked_decisions", "mended", "pgd", "project", "smallest_flip",
    "steepest", "to_halve",
]  # fmt: skip
