"""Exercise 8.4: an interval whose photographs are resampled."""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.checks import Mistake, exercise
from course_lib.checks.judgments.calling import call, several

Sample = tuple[Tensor, Tensor]  # values, and how likely each is
RESAMPLES = 2000


@exercise("8.4")
def photograph_interval(attempt: Callable, random: torch.Generator) -> None:
    """95 % interval of a mean over triplets, from data sets whose photographs are drawn with replacement."""
    labels = [2, 3, 5, 8, 9, 12, 14]
    sizes = [10, 60, 20, 40, 12, 50, 30]
    levels = [0.95, 0.6, 0.75, 0.35, 0.9, 0.5, 0.8]
    photo = torch.tensor([label for label, size in zip(labels, sizes, strict=True) for _ in range(size)])
    agreement = torch.tensor([q for q, size in zip(levels, sizes, strict=True) for _ in range(size)])
    agreement = ((agreement + 0.3 * torch.randn(len(photo), generator=random)) * 5).round().clamp(0, 5) / 5
    shuffled = torch.randperm(len(photo), generator=random)
    photo, agreement = photo[shuffled], agreement[shuffled]
    sums = torch.tensor([float(agreement[photo == label].double().sum()) for label in labels], dtype=torch.float64)
    counts = torch.tensor(sizes, dtype=torch.float64)

    seed = torch.Generator().manual_seed(int(torch.randint(2**31, (), generator=random)))
    found = several(call(attempt, agreement, photo, RESAMPLES, seed), "low, high")
    low, high = (float(end) for end in found)
    if math.isnan(low) or math.isnan(high):
        raise Mistake(
            "NaN: a data set without triplets? Photographs are not numbered 0, 1, 2, …; draw from photo.unique()"
        )
    if low > high:
        raise Mistake("low is larger than high; return them in this order: low, high")
    if high - low < 1e-6:
        raise Mistake("the interval has no width: draw *with* replacement (randint, not randperm), anew every time")

    drawn, likely = _draws(len(labels))
    right = (drawn @ sums / (drawn @ counts), likely)
    if _fits(low, high, right):
        again = (call(attempt, agreement, photo, 20, torch.Generator().manual_seed(0)) for _ in range(2))
        if len({tuple(float(end) for end in ends) for ends in again}) > 1:
            raise Mistake("right, but not repeatable; draw with `generator`: torch.randint(…, generator=generator)")
        return
    n, k, many = len(photo), len(labels), 4000
    crowds = torch.stack([torch.randint(k, (n,), generator=random).bincount(minlength=k) for _ in range(many)]).double()
    wide_cut = "a 95 % interval leaves out 2.5 % on either side; that is"
    mistakes: dict[str, tuple[Sample, float]] = {
        "you resampled triplets, but those of one photograph are alike; draw whole photographs": (
            _even(agreement[torch.randint(n, (many, n), generator=random)].mean(1)),
            0.025,
        ),
        "a photograph that is drawn twice counts twice; with isin or a set it counts once": (
            (drawn.clamp(max=1) @ sums / (drawn.clamp(max=1) @ counts), likely),
            0.025,
        ),
        "you averaged the photographs' means; put the triplets of all drawn photographs together, then take the mean": (
            (drawn @ (sums / counts) / k, likely),
            0.025,
        ),
        "you drew as many photographs as there are triplets; draw as many as there are photographs": (
            _even(crowds @ sums / (crowds @ counts)),
            0.025,
        ),
        "you drew one triplet per photograph; a drawn photograph brings *all* its triplets along": (
            _even(agreement[torch.randint(n, (many, k), generator=random)].mean(1)),
            0.025,
        ),
        f"{wide_cut} a 99 % interval, or all of the scores": (right, 0.005),
        f"{wide_cut} a 90 % interval": (right, 0.05),
        f"{wide_cut} a 50 % interval": (right, 0.25),
    }
    fitting = {what: sample for what, sample in mistakes.items() if _fits(low, high, *sample)}
    if fitting:
        raise Mistake(min(fitting, key=lambda what: _miss(low, high, *fitting[what])))
    ends = _ends(right)
    if high - low < 0.2 * (ends[1] - ends[0]):
        raise Mistake(
            "far too narrow: did you divide the spread by the root of `resamples`? Return quantiles of the scores"
        )
    width = (high - low) / (ends[1] - ends[0])
    kind = "narrow" if width < 0.9 else "wide" if width > 1.1 else "far to one side"
    raise Mistake(f"the interval is too {kind}: {low:.3f} to {high:.3f}, expected about {ends[0]:.3f} to {ends[1]:.3f}")


def _draws(k: int) -> Sample:
    """Every way to draw k of k things with replacement: how often each was drawn, and how likely that is."""
    draws = torch.tensor(
        [[draw.count(i) for i in range(k)] for draw in itertools.combinations_with_replacement(range(k), k)]
    ).double()
    ways = math.lgamma(k + 1) - torch.lgamma(draws + 1).sum(1) - k * math.log(k)
    return draws, ways.exp()


def _even(values: Tensor) -> Sample:
    return values.double(), torch.full((len(values),), 1 / len(values), dtype=torch.float64)


def _quantile(sample: Sample, q: float) -> Tensor:
    values, order = sample[0].sort()
    reached = sample[1][order].cumsum(0)
    return values[(reached < q).sum().clamp(max=len(values) - 1)]


def _ends(sample: Sample, cut: float = 0.025, inwards: float = 0.0) -> tuple[float, float]:
    """The quantiles at `cut` and 1 - `cut`, or a little further inwards (outwards: negative)."""
    q = min(max(cut + inwards, 0.0), 1.0)
    return float(_quantile(sample, q)), float(_quantile(sample, 1 - q))


def _fits(low: float, high: float, sample: Sample, cut: float = 0.025) -> bool:
    """Whether `low` and `high` are the sample's quantiles at `cut` and 1 - `cut`, as far as resampling can tell."""
    slack = max(0.003, 4 * math.sqrt(cut * (1 - cut) / RESAMPLES))  # four standard errors
    widest, narrowest = _ends(sample, cut, -slack), _ends(sample, cut, slack)
    return widest[0] - 1e-6 <= low <= narrowest[0] + 1e-6 and narrowest[1] - 1e-6 <= high <= widest[1] + 1e-6


def _miss(low: float, high: float, sample: Sample, cut: float) -> float:
    ends = _ends(sample, cut)
    return abs(low - ends[0]) + abs(high - ends[1])
