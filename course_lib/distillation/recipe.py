"""Recipes: the numbers that decide how a student is distilled."""

import math
from dataclasses import dataclass

from course_lib.distillation.losses import LOSSES
from course_lib.distillation.views import KINDS
from course_lib.training import PRECISIONS

WARMUP_SHARE = 0.1  # of all steps; a short run would otherwise never reach its learning rate


@dataclass(frozen=True)
class Recipe:
    """How a student is distilled. The defaults are the published ones.

    Attributes:
        loss: "published", "cosine" or "relational"; see :mod:`course_lib.distillation.losses`.
        scale: the student's target is so many times the teacher's embedding. A larger one means longer distances and,
            in chapter 12, larger certified radii, until a 1-Lipschitz student can no longer follow.
        views: "published", "flip" or "plain"; see :func:`course_lib.distillation.draw_views`.
        mirrored_targets: embed mirrored images as well, as published, which takes the teacher twice the time. False:
            a mirrored image has the target of the other.
        learning_rate, betas: of Adam.
        warmup_steps: the rate rises linearly, in so many steps (but at most a tenth of all), then falls to 0 along a
            cosine.
        epochs: how often each image is seen.
        batch_size: images per step, of all processes together.
        clip: largest norm of a gradient; None: any.
        precision: "fp32", or "bf16" for forward and backward passes under autocast. The rescaling that makes layers
            1-Lipschitz stays in fp32, and so does every use of the student after training.
        seed: of weights, order and views.

    Raises:
        ValueError: for unknown names, or numbers that make no sense.

    Source: Ghazanfari et al., LipSim, ICLR 2024, section 4 and appendix.
    """

    loss: str = "published"
    scale: float = 1.0
    views: str = "published"
    mirrored_targets: bool = True
    learning_rate: float = 0.01
    betas: tuple[float, float] = (0.5, 0.9)
    warmup_steps: int = 2000
    epochs: int = 40
    batch_size: int = 512
    clip: float | None = None
    precision: str = "fp32"
    seed: int = 0

    def __post_init__(self):
        for name, value, known in (
            ("loss", self.loss, LOSSES), ("views", self.views, KINDS), ("precision", self.precision, PRECISIONS),
        ):  # fmt: skip
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}; choose {', '.join(known)}")
        positive = {"scale": self.scale, "learning_rate": self.learning_rate, "clip": self.clip or 1}
        positive |= {"epochs": self.epochs, "batch_size": self.batch_size}
        for name, value in positive.items():
            if not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; it has to be positive")
        if self.warmup_steps < 0 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"warmup_steps is {self.warmup_steps}, betas {self.betas}; use >= 0 and two of [0, 1)")

    def rate(self, step: int, steps: int) -> float:
        """Share of the learning rate in step `step` of `steps`, counted from 0."""
        warmup = min(self.warmup_steps, int(WARMUP_SHARE * steps))
        if step < warmup:
            return (step + 1) / warmup
        return (1 + math.cos(math.pi * min(1, (step - warmup) / max(1, steps - warmup)))) / 2


PUBLISHED = Recipe()
LAPTOP = Recipe(
    loss="relational", scale=1.0, views="plain", mirrored_targets=False, learning_rate=2e-3, betas=(0.9, 0.99),
    warmup_steps=20, epochs=4, batch_size=64, clip=1.0,
)  # fmt: skip
RECIPES = {"published": PUBLISHED, "laptop": LAPTOP}
