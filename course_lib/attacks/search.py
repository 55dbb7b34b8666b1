"""What the attacks share: one step's gradient, the best images found so far, and what an attack returns."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from course_lib.attacks.balls import per_example, sizes
from course_lib.attacks.objectives import Objective

LOSSES = ("margin", "ce")


@dataclass
class Attacked:
    """What an attack found.

    Attributes:
        images: like ``objective.start``: the images with the largest value inside the ball, or, for attacks that look
            for the smallest change, the nearest that succeed (the start where none was found).
        value: (n,) the objective there.
        success: (n,) whether it is above the threshold.
        forwards, backwards: (n,) how often the metric and its gradient were computed for each example.
    """

    images: Float[Tensor, "n *parts c h w"]
    value: Float[Tensor, "n"]
    success: Bool[Tensor, "n"]
    forwards: Int64[Tensor, "n"]
    backwards: Int64[Tensor, "n"]

    def sizes(self, objective: Objective, norm: str) -> Float[Tensor, "n"]:
        """Size of the change of every example, in float64; infinite where the attack failed."""
        found = sizes(self.images.double() - objective.start.double(), norm)
        return torch.where(self.success, found, torch.inf)


def check_attack(*, loss: str = "margin", **counts: int) -> None:
    """Raise ValueError for an unknown loss, or a count (steps, restarts, ...) that is not a whole number above 0."""
    if loss not in LOSSES:
        raise ValueError(f"unknown loss {loss!r}; choose {' or '.join(LOSSES)}")
    for name, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"{name} is {count}; it has to be a whole number, at least 1")


class Search:
    """Evaluates an objective for some of the examples, counts how often, and keeps the best images of each.

    The start counts as evaluated once: where it succeeds already, nothing is left to do.

    `better` says what best means: "value" keeps the largest value; "l2" or "linf" the smallest change that succeeds.
    """

    def __init__(self, objective: Objective, better: str = "value"):
        self.objective, self.better = objective, better
        self.images = objective.start.clone()
        with torch.no_grad():
            self.value = objective.value(objective.start).clone()
        self.success = objective.succeeded(self.value)
        self.size = torch.where(self.success, 0.0, torch.inf).double()
        self.forwards = torch.ones_like(self.success, dtype=torch.int64)
        self.backwards = torch.zeros_like(self.forwards)

    def standing(self) -> Int64[Tensor, "m"]:
        """Indices of the examples for which the attack has not succeeded yet."""
        return (~self.success).nonzero()[:, 0]

    @torch.no_grad()
    def evaluate(self, which: Int64[Tensor, "m"], images: Float[Tensor, "m *parts c h w"]) -> Float[Tensor, "m"]:
        """Values of images for the examples `which`; the best are kept."""
        value = self.objective.select(which).value(images)
        self.forwards[which] += 1
        self.keep(which, images, value)
        return value

    def ascend(
        self, which: Int64[Tensor, "m"], images: Float[Tensor, "m *parts c h w"], loss: str = "margin"
    ) -> tuple[Float[Tensor, "m"], Float[Tensor, "m *parts c h w"]]:
        """Values, and the gradient of `loss`, at images of the examples `which`; the best are kept.

        `loss` "margin" is the value itself; "ce" is log(1 + exp(value - threshold)), the cross-entropy of two classes
        whose logits differ by that much. It rises with the value, so its gradient is the margin's times a positive
        number, which becomes exactly 0 where the exponential underflows.

        Raises:
            ValueError: if there is no gradient, or it is not finite, as behind a square root at distance 0.
        """
        if not len(which):
            return self.value[which], images
        task = self.objective.select(which)
        images = images.detach().requires_grad_()
        with torch.enable_grad():
            value = task.value(images)
            if not value.requires_grad:
                raise ValueError("the objective has no gradient; attack it with queries only, as square does")
            aim = torch.where(task.threshold.isfinite(), task.threshold, 0)
            total = (torch.nn.functional.softplus(value - aim) if loss == "ce" else value).sum()
            (gradient,) = torch.autograd.grad(total, images)
        if not gradient.isfinite().all():
            raise ValueError(
                "the gradient of the objective is NaN or infinite, as that of a square root at distance 0 is; "
                "begin at a random point, or use a metric that adds a small number under the root"
            )
        self.forwards[which] += 1
        self.backwards[which] += 1
        value = value.detach()
        self.keep(which, images.detach(), value)
        return value, gradient

    def keep(
        self, which: Int64[Tensor, "m"], images: Float[Tensor, "m *parts c h w"], value: Float[Tensor, "m"]
    ) -> None:
        """Keep images with known values where they are better than the best so far."""
        success = value > self.objective.threshold[which]
        if self.better == "value":
            better = value > self.value[which]
        else:
            size = sizes(images.double() - self.objective.start[which].double(), self.better)
            better = success & (size < self.size[which])
            self.size[which] = torch.where(better, size, self.size[which])
        self.images[which] = torch.where(per_example(better, images), images, self.images[which])
        self.value[which] = torch.where(better, value, self.value[which])
        self.success[which] |= success

    def result(self) -> Attacked:
        """What was found."""
        return Attacked(self.images, self.value, self.success, self.forwards, self.backwards)
