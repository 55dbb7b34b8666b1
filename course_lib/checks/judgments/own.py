"""Exercise 8.8, open-ended: a metric of one's own."""

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from course_lib.checks import Mistake, exercise, expect_shape
from course_lib.checks.judgments.calling import call
from course_lib.data import triplets
from course_lib.data.triplets import Triplets

MARGIN = 0.03
JUDGED = 200


@functools.cache
def _judged() -> Triplets:
    return triplets.simulated("val").select(torch.arange(JUDGED))


@exercise("8.8")
@torch.no_grad()
def my_metric(attempt: Callable, random: torch.Generator) -> None:
    """Open-ended: a distance between images that agrees with more simulated votes than pixel L2 does."""
    data = _judged()
    ref, p0, p1, _ = data[:6]
    found = call(attempt, ref, p0)
    if isinstance(found, Tensor) and found.ndim == 0:
        raise Mistake("one number for the whole batch; keep the batch axis: .mean((1, 2, 3)) instead of .mean()")
    if isinstance(attempt(ref.clone(), p0.clone()), np.ndarray):
        raise Mistake("your function returns a NumPy array; return a torch.Tensor: torch.from_numpy(…)")
    expect_shape(found, (6,), "one distance for every pair")
    if not found.double().isfinite().all():
        raise Mistake("a distance is NaN or infinite; look for 0 / 0, or the root or log of 0 or less")
    others = torch.stack([found, call(attempt, ref, p1)]).double()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=random)))
        if not torch.allclose(attempt(ref.clone(), p0.clone()).double(), others[0], rtol=1e-3, atol=1e-6):
            raise Mistake(
                "two calls, two answers; make random weights once, outside, or from torch.Generator().manual_seed(0)"
            )
    middle = found.argsort()[3:4]
    alone = call(attempt, ref[middle], p0[middle])
    if not torch.allclose(alone.double(), others[0, middle], rtol=1e-3, atol=1e-6):
        raise Mistake("the distance of a pair depends on what else is in the batch; take no mean or maximum over dim 0")
    itself = call(attempt, ref, ref).double()
    if (itself > others + 1e-6).any():
        raise Mistake("an image is not closest to itself: is this a similarity? Return 1 - similarity")
    yours, pixels = _agreement(attempt, data), _agreement(_pixel_l2, data)
    if abs(yours - pixels) < 1e-6:
        raise Mistake(
            "this orders the triplets exactly as pixel L2 does; measure something else than pixel differences"
        )
    if yours < pixels + MARGIN:
        raise Mistake(
            f"{yours:.3f} of the simulated votes agree with it, {pixels:.3f} with pixel L2; get {MARGIN} above pixel L2"
        )


def _pixel_l2(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square().sum((1, 2, 3)).sqrt()


def _agreement(distance: Callable, data: Triplets) -> float:
    """2AFC score of a distance on judged triplets."""
    total = 0.0
    for ref, p0, p1, judge in data.batches(50):
        d0, d1 = distance(ref, p0), distance(ref, p1)
        total += float(((d0 < d1) * (1 - judge) + (d1 < d0) * judge + (d0 == d1) * 0.5).sum())
    return total / len(data)
