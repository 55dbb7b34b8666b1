"""Exercise 9.7: an attack without the three faults."""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.attacks import Ball
from course_lib.checks import Mistake, exercise
from course_lib.checks.attacks.calling import Watched, attacked

STEPS = 30
LEVELS = 12
WAYS = (
    "let the step size follow from eps and steps, as 2.5 * ball.eps / steps does; or the direction is not that of "
    "ball.norm, or you estimate where there is a gradient"
)


class _Plane:
    """The value rises at the same slope everywhere, so that the best change in the ball is known: it gains 1."""

    def __init__(self, shape: tuple[int, ...], ball: Ball, random: torch.Generator, channels: int = 3):
        self.slope = torch.randn(shape, generator=random)
        if channels < 3:  # even, so that the best change stays in [0, 1] in a ball that is large for so few pixels
            self.slope.sign_()[channels:] = 0
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
    shape, large = (3, *torch.randint(5, 7, (2,), generator=random).tolist()), (3, 16, 16)

    def run(value: Callable, start: Tensor, ball: Ball, steps: int = STEPS, seed: int = 1) -> Tensor:
        watched = Watched(value)
        images = attacked(attempt, watched, start, ball, steps, torch.Generator().manual_seed(seed))
        if not watched.seen:
            raise Mistake("you never asked for a value: value(images) gives one number per image")
        if watched.gradients > steps * len(start):
            raise Mistake(
                f"you took {watched.gradients / len(start):.3g} gradients per image; `steps`, here {steps}, are enough"
            )
        return images

    for ball, size in ((Ball("l2", 2.0), shape), (Ball("l2", 0.05), shape), (Ball("linf", 0.1), shape),
                       (Ball("l2", 4.0), large)):  # fmt: skip
        _expect_gain(_Plane(size, ball, random), run, ball, WAYS)
    ball = Ball("l2", 7.0)
    one = "the value reads one channel only; decide for whole images, not for pixels, whether a gradient is 0"
    _expect_gain(_Plane(large, ball, random, channels=1), run, ball, one)

    ball = Ball("l2", 1.0)
    plane = _Plane(shape, ball, random)
    start = plane.lacking(torch.tensor([0.02, 0.05, 0.05, 0.85, 0.8, 0.1]))
    standing = int((plane(run(plane, start, ball)) <= 0).sum())
    if standing:
        raise Mistake(
            f"{standing} of 6 stand, those that need most; each goes on until it is fooled *itself*: no end for all by "
            "the mean, or by the first success"
        )

    def cliff(images: Tensor) -> Tensor:  # who is fooled and goes on falls down, and does not come back
        fine = plane(images)
        return torch.where(fine < 0.25, fine, fine - 2)

    if not (cliff(run(cliff, start, ball)) > 0).all():
        raise Mistake(
            "an example ended further from the start than it needs: it went on after it was fooled, or the steps are "
            "too long (about 2.5 · eps / steps)"
        )
    start = plane.lacking(torch.tensor([0.3, -0.1, 0.5, -0.2]))
    if not torch.equal(run(plane, start, ball)[1::2], start[1::2]):
        raise Mistake("an example whose value is above 0 from the beginning was changed; leave it at its start")

    start = plane.lacking(torch.full((3,), 0.4))
    lift = 0.4 + plane.rounded(start).min()  # so that the last of them lacks 0.4

    def rounded(images: Tensor) -> Tensor:
        return plane.rounded(images) - lift

    found = _expect_fooled(rounded, run, start, ball, "all images")
    if not torch.equal(found, run(rounded, start, ball)):
        raise Mistake("two runs with the same generator, two answers; all chance has to come from `generator`")
    if torch.equal(found, run(rounded, start, ball, seed=2)):
        raise Mistake("another generator, the same images: give yours to ball.random(start, generator)")

    def partly(images: Tensor) -> Tensor:
        fine = plane(images)
        return torch.where(fine > -0.3, fine, plane.rounded(images).clamp_max(-0.2))

    start = plane.lacking(torch.tensor([0.05, 0.6, 0.1, 0.55]))
    _expect_fooled(partly, run, start, ball, "two of four images")


def _expect_gain(plane: _Plane, run: Callable, ball: Ball, advice: str, steps: int = 10) -> None:
    """Raise :class:`Mistake` unless examples gain what the ball holds, in reach of success or not."""
    start = plane.lacking(torch.full((5,), 0.85))
    for missing in (0, 2):
        gained = plane(run(lambda images, missing=missing: plane(images) - missing, start, ball, steps)) - plane(start)
        if (gained < 0.85).any():
            raise Mistake(
                f"{ball.norm}, eps = {ball.eps}, {steps} steps: you gain {gained.min():.2f} of what the ball holds, "
                f"and 0.85 is needed; {advice}"
            )


def _expect_fooled(value: Callable, run: Callable, start: Tensor, ball: Ball, whose: str) -> Tensor:
    images = run(value, start, ball)
    standing = int((value(images) <= 0).sum())
    if standing:
        raise Mistake(
            f"where rounding makes the gradient 0 for {whose}, {standing} of {len(start)} stand; for such images, "
            "estimate it from differences of values along random changes"
        )
    return images
