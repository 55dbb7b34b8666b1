"""What the checks of attacks share: where images may be, and a value that remembers what it was asked for."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course_lib.attacks import Ball, sizes
from course_lib.checks import Mistake, expect_shape
from course_lib.checks.judgments.calling import call

SLACK = 1e-4  # of the radius
RETURNED = "you returned images"


def attacked(attempt: Callable, value: Callable, start: Tensor, ball: Ball, *others: Any) -> Tensor:
    """The images that an attack returns, on copies of its inputs.

    Raises:
        Mistake: if they are no images, or outside the ball or [0, 1].
    """
    images = call(attempt, value, start, ball, *others)
    expect_shape(images, tuple(start.shape), "return the images, all of them")
    if images.requires_grad:
        raise Mistake("the graph of every step still hangs on the result, and fills the memory; return images.detach()")
    if images.isnan().any():
        raise Mistake("the images contain NaN; look for 0 / 0")
    expect_inside(images, start, ball)
    return images


def expect_inside(images: Tensor, start: Tensor, ball: Ball, whose: str = RETURNED) -> None:
    """Raise :class:`Mistake` unless all images are in the ball and in [0, 1]."""
    far = sizes(images.double() - start.double(), ball.norm).max().item()
    if far > ball.eps * (1 + SLACK):
        if whose == RETURNED and sizes(images.double(), ball.norm).max() <= ball.eps * (1 + SLACK):
            raise Mistake("you returned the change; return the changed images")
        raise Mistake(f"{whose} {far:.3g} away from the start, eps is {ball.eps:.3g}: ball.project(images, start)")
    if images.min() < -1e-6 or images.max() > 1 + 1e-6:
        raise Mistake(f"{whose} with pixels from {images.min():.2f} to {images.max():.2f}; they stay in [0, 1]")


class Watched:
    """A value that remembers the images it was asked about; the same images again, at once, count once.

    Args:
        function: images -> (n,).
        start: what the images have to look like; None takes any number of them.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], start: Tensor | None = None):
        self.function, self.start = function, start
        self.seen: list[Tensor] = []

    def __call__(self, images: Tensor) -> Tensor:
        """Values (n,)."""
        if self.start is not None:
            expect_shape(images, tuple(self.start.shape), "you gave this to value(images): it takes all at once")
        if not self.seen or not torch.equal(self.seen[-1], images.detach()):
            self.seen.append(images.detach().clone())
        return self.function(images)
