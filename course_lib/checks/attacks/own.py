"""Exercise 9.9, open-ended: an attack with few queries on a metric whose gradient is masked."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.attacks import Ball, Objective, square
from course_lib.checks import Mistake, exercise
from course_lib.checks.attacks.calling import attacked
from course_lib.data import triplets

QUERIES = 50
AHEAD = 3
BALL = Ball("l2", 2.0)


class Decisions(NamedTuple):
    """Decisions of a metric that reads pixels in 32 levels, so that its gradient is 0.

    Attributes:
        value: images (n, 3, 32, 32) in place of `ref` -> (n,) d(right) - d(wrong), above 0 where the metric is fooled.
        ref: the references.
        right: the candidates that the metric prefers.
        wrong: the others.
    """

    value: Callable[[Tensor], Tensor]
    ref: Tensor
    right: Tensor
    wrong: Tensor


@functools.cache
def masked_decisions(split: str = "val") -> Decisions:
    """24 decisions about photographs, by the metric of exercise 8.8 (local means and local contrast), masked."""
    data = triplets.simulated(split)
    chosen = torch.linspace(0, len(data) - 1, 24).long()
    ref, p0, p1 = (F.avg_pool2d(images, 2) for images in data[chosen][:3])
    e, f0, f1 = map(_embedded, (ref, p0, p1))
    first = (_between(e, f0) < _between(e, f1))[:, None, None, None]
    right, wrong = torch.where(first, f0, f1), torch.where(first, f1, f0)

    def value(images: Tensor) -> Tensor:
        found = _embedded(images)
        return _between(found, right) - _between(found, wrong)

    return Decisions(value, ref, torch.where(first, p0, p1), torch.where(first, p1, p0))


def _embedded(images: Tensor) -> Tensor:
    images = (31 * images).round() / 31
    mean = F.avg_pool2d(images, 3, 1)
    variance = F.avg_pool2d(images.square(), 3, 1) - mean.square()
    return torch.cat((mean, (variance.clamp_min(0) + 1e-4).log() / 2), 1)


def _between(e: Tensor, f: Tensor) -> Tensor:
    return (e - f).abs().mean((1, 2, 3))


@functools.cache
def _by_square(split: str = "val") -> int:
    """How many decisions Square turns with the same number of queries."""
    task = masked_decisions(split)
    # Square leaves solved examples out of its batch, and the value knows its examples by their place: so solve none
    objective = Objective(task.ref, task.value, (), torch.full((len(task.ref),), torch.inf))
    return int((square(objective, BALL, queries=QUERIES).value > 0).sum())


@exercise("9.9")
def few_queries(attempt: Callable, random: torch.Generator) -> None:
    """Open-ended: turn more masked decisions with 50 queries each than Square does."""
    task = masked_decisions()
    runs = []
    for _ in range(2):
        counted = _Counted(task)
        images = attacked(
            attempt, counted, task.ref, BALL, task.right, task.wrong, QUERIES, torch.Generator().manual_seed(1)
        )
        runs.append(images)
    if not torch.equal(*runs):
        raise Mistake("two runs with the same generator, two answers; all chance has to come from `generator`")
    if torch.equal(runs[0], task.ref):
        raise Mistake("nothing has changed; a metric that is never asked about anything stays right")
    yours, theirs = int((task.value(runs[0]) > 0).sum()), _by_square()
    if yours < theirs + AHEAD:
        raise Mistake(
            f"{yours} of {len(task.ref)} decisions turned, Square turns {theirs}; turn {AHEAD} more than Square does"
        )


class _Counted:
    """The value, which refuses the query after the last."""

    def __init__(self, task: Decisions):
        self.task, self.asked = task, 0

    def __call__(self, images: Tensor) -> Tensor:
        if images.shape != self.task.ref.shape:
            raise Mistake(
                f"you gave {tuple(images.shape)} to value(images); it takes {tuple(self.task.ref.shape)}, all at once, "
                "and counts that as one query for each"
            )
        if self.asked == QUERIES:
            raise Mistake(f"you asked for more than {QUERIES} values")
        self.asked += 1
        return self.task.value(images)
