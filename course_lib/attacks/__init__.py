"""Chapter 09: how far can a perceptual metric be fooled?"""

from course_lib.attacks.apgd import apgd, checkpoints
from course_lib.attacks.balls import NORMS, Ball, direction, lengths, sizes
from course_lib.attacks.gradient import fgm, pgd, reach
from course_lib.attacks.objectives import Objective, flip, misclassify, pull, push, retrieve
from course_lib.attacks.search import LOSSES, Attacked, Search

__all__ = [
    "LOSSES", "NORMS", "Attacked", "Ball", "Objective", "Search", "apgd", "checkpoints", "direction", "fgm", "flip",
    "lengths", "misclassify", "pgd", "pull", "push", "reach", "retrieve", "sizes",
]  # fmt: skip
