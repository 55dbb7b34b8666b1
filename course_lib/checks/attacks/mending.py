"""Exercise 9.7: an attack without the three faults."""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.attacks import Ball
from course_lib.checks import Mistake, exercise
from course_lib.checks.attacks.calling import Watched, attacked

STEPS = 30
LEVELS = 12


class _Plane:
    """The value rises at the same slope everywhere, so that the best change in the ball is known: it gains 1."""

    def __init__(self, shape: tuple[int, ...], ball: Ball, random: torch.Generator):
        self.slope = torch.randn(shape, generator=random)
        self.slope /= ball.eps * (self.slope.norm() if ball.norm == "l2" else self.slope.abs().sum())
        self.random = random

    def __call__(self, images: Tensor) -> Tensor:
        return ((images - 0.5) * self.slope).sum((1, 2, 3))

    def rounded(self, images: Tensor) -> Tensor:
        return self((LEVELS * images).round() / LEVELS)

    def lacking(self, needs: Tensor) -> Tensor:
        """Images near grey whose value is -needs."""
        noise = 0.01 * torch.randn(len(needs), *self.slope.shape, generator=self.random)
        missing = (needs + self(0.5 + noise))[:, None, None, None]
        return 0.5 + noise - missing * self.slope / self.slope.square().sum()


@exercise("9.7")
def mended(attempt: Callable, random: torch.Generator) -> None:
    """An attack that reaches the border, leaves only solved examples alone, and copes without gradients."""
    shape = (3, *torch.randint(5, 7, (2,), generator=random).tolist())

    def run(value: Callable, start: Tensor, ball: Ball, steps: int = STEPS) -> Tensor:
        watched = Watched(value)
        images = attacked(attempt, watched, start, ball, steps, torch.Generator().manual_seed(1))
        if not watched.seen:
            raise Mistake("you never asked for a value: value(images) gives one number per image")
        return images

    for ball, steps in ((Ball("l2", 2.0), 10), (Ball("l2", 0.05), 10), (Ball("linf", 0.1), 10)):
        plane = _Plane(shape, ball, random)
        start = plane.lacking(torch.full((5,), 0.85))
        gained = plane(run(plane, start, ball, steps)) - plane(start)
        if (gained < 0.85).any():
            raise Mistake(
                f"{ball.norm}, eps = {ball.eps}, {steps} steps: you gain {gained.min():.2f} of what the ball holds, "
                "and 0.85 is needed; let the step size follow from eps and steps, as 2.5 * ball.eps / steps does"
            )
    ball = Ball("l2", 1.0)
    plane = _Plane(shape, ball, random)
    start = plane.lacking(torch.tensor([0.02, 0.05, 0.05, 0.85, 0.8, 0.1]))
    standing = int((plane(run(plane, start, ball)) <= 0).sum())
    if standing:
        raise Mistake(
            f"{standing} of 6 stand, those that need most; each goes on until it is fooled *itself*: no end for all by "
            "the mean, or by the first success"
        )

    def bump(images: Tensor) -> Tensor:
        return 0.06 - (plane(images) - 0.1).abs()

    if not (bump(run(bump, start, ball)) > 0).all():
        raise Mistake("an example was fooled and went on, too far; leave it where it is once its value is above 0")
    start = plane.lacking(torch.full((3,), 0.4))
    lift = 0.4 + plane.rounded(start).min()  # so that the last of them lacks 0.4
    _expect_fooled(lambda images: plane.rounded(images) - lift, run, start, ball, "all images")

    def partly(images: Tensor) -> Tensor:
        fine = plane(images)
        return torch.where(fine > -0.3, fine, plane.rounded(images).clamp_max(-0.2))

    start = plane.lacking(torch.tensor([0.05, 0.6, 0.1, 0.55]))
    _expect_fooled(partly, run, start, ball, "two of four images")


def _expect_fooled(value: Callable, run: Callable, start: Tensor, ball: Ball, whose: str) -> None:
    standing = int((value(run(value, start, ball)) <= 0).sum())
    if standing:
        raise Mistake(
            f"where rounding makes the gradient 0 for {whose}, {standing} of {len(start)} stand; for such images, "
            "estimate it from differences of values along random changes"
        )
