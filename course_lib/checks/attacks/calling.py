"""What the checks of attacks share: where images may be, and a value that remembers what it was asked for."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course_lib.attacks import Ball, sizes
from course_lib.checks import Mistake, expect_shape

SLACK = 1e-4  # of the radius
RETURNED = "you returned images"


class Changed(Mistake):
    """An answer changed what it was given."""


def call(attempt: Callable, *given: Any) -> Any:
    """What `attempt` makes of copies of what is given.

    Raises:
        Changed: if `attempt` changes a tensor that it is given, or asks it for a gradient.
    """
    copies = [x.clone() if isinstance(x, Tensor) else x for x in given]
    found = attempt(*copies)
    for x, copy in zip(given, copies, strict=True):
        if isinstance(x, Tensor) and not torch.equal(x, copy):
            raise Changed("your function changes what it is given; work on a copy: x.clone()")
        if isinstance(x, Tensor) and copy.requires_grad:
            raise Changed("requires_grad_() on what you were given stays on it: x.clone().requires_grad_()")
    return found


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
    beyond = max(-images.min().item(), images.max().item() - 1)
    far = sizes(images.double() - start.double(), ball.norm).max().item()
    if far > ball.eps * (1 + SLACK):
        if whose == RETURNED and sizes(images.double(), ball.norm).max() <= ball.eps * (1 + SLACK):
            raise Mistake("you returned the change; return the changed images")
        too = ", and pixels leave [0, 1]" if beyond > SLACK else ""
        raise Mistake(
            f"{whose} {far:.3g} away from the start, eps is {ball.eps:.3g}{too}: ball.project(images, start), which is "
            "the ball around `start`"
        )
    if beyond > 1e-6:
        raise Mistake(f"{whose} whose pixels leave [0, 1] by {beyond:.2g}; end with .clamp(0, 1), after all rescaling")


class Watched:
    """A value that remembers the images it was asked about; the same images again, at once, count once.

    Attributes:
        seen: those images, one batch after the other.
        gradients: how many gradients were taken, of one image each.

    Args:
        function: images -> (n,).
        start: what the images have to look like; None takes any number of them.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], start: Tensor | None = None):
        self.function, self.start = function, start
        self.seen: list[Tensor] = []
        self.gradients = 0

    def __call__(self, images: Tensor) -> Tensor:
        """Values (n,)."""
        if self.start is not None and images.shape != self.start.shape:
            raise Mistake(
                f"you gave {tuple(images.shape)} to value(images); it takes {tuple(self.start.shape)}, all at once"
            )
        if not self.seen or not torch.equal(self.seen[-1], images.detach()):
            self.seen.append(images.detach().clone())
        values = self.function(images)
        if values.requires_grad:
            values.register_hook(self._count)
        return values

    def _count(self, slopes: Tensor) -> None:
        self.gradients += int((slopes != 0).sum())
