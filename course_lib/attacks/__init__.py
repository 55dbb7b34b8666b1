"""Chapter 09: how far can a perceptual metric be fooled?"""

from course_lib.attacks.apgd import apgd, checkpoints
from course_lib.attacks.balls import NORMS, Ball, direction, lengths, sizes
from course_lib.attacks.evaluation import PushedDistances, RobustAccuracy, attack_2afc, attack_distance
from course_lib.attacks.fab import fab
from course_lib.attacks.gradient import fgm, pgd, reach
from course_lib.attacks.hardening import harden
from course_lib.attacks.minimum_norm import carlini_wagner, ddn, deepfool
from course_lib.attacks.names import NAMES, NamedAttack, named
from course_lib.attacks.objectives import Objective, flip, misclassify, pull, push, retrieve
from course_lib.attacks.search import LOSSES, Attacked, Search
from course_lib.attacks.square import square
from course_lib.attacks.worst_case import MEMBERS, WorstCase, worst_case

__all__ = [
    "LOSSES", "MEMBERS", "NAMES", "NORMS", "Attacked", "Ball", "NamedAttack", "Objective", "PushedDistances",
    "RobustAccuracy", "Search", "WorstCase", "apgd", "attack_2afc", "attack_distance", "carlini_wagner",
    "checkpoints", "ddn", "deepfool", "direction", "fab", "fgm", "flip", "harden", "lengths", "misclassify", "named",
    "pgd", "pull", "push", "reach", "retrieve", "sizes", "square", "worst_case",
]  # fmt: skip
