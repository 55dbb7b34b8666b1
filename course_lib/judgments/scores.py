"""Scores of a metric against judgments, and how far they can be trusted.

All take distances (n,) and judgments (n,) and give one number. A 2AFC score is a share of agreement, a JND score an
average precision, and neither is a correlation; correlations are here as well, so that they can be compared.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Votes = Float[Tensor, "n"]
Distances = Float[Tensor, "n"]


def two_afc_agreement(d0: Distances, d1: Distances, judge: Votes) -> Votes:
    """Share of the votes of each triplet that the metric agrees with; ½ where d0 = d1.

    Args:
        d0: distances of p0 to the reference.
        d1: distances of p1 to the reference.
        judge: fraction of votes for p1 being the closer one, in [0, 1].

    Raises:
        ValueError: for no triplets, different lengths, a distance that is NaN, or a vote outside [0, 1].
    """
    _check(judge, "judge", d0=d0, d1=d1)
    return torch.where(d0 < d1, 1 - judge, torch.where(d1 < d0, judge, 0.5))


def two_afc_score(d0: Distances, d1: Distances, judge: Votes) -> float:
    """2AFC score: the mean of (d0 < d1) (1 - judge) + (d1 < d0) judge, and ½ for ties; in [0, 1], chance is ½.

    It is the probability that the metric agrees with one randomly drawn vote. Raises as :func:`two_afc_agreement`.

    Source: Zhang, Isola, Efros, Shechtman, Wang, CVPR 2018, section 4 (credit for each vote that agrees).
    """
    return two_afc_agreement(d0, d1, judge).double().mean().item()


def human_ceiling(judge: Votes) -> float:
    """Expected 2AFC score of one random person: the mean of p² + (1 - p)², p = `judge`.

    Not a maximum: a metric that always sides with the majority scores :func:`majority_ceiling`, which is more. With
    few votes per triplet p² + (1 - p)² counts the voter as agreeing with his own vote, and so lies above the
    agreement of two different people; with v votes the unbiased value is (v c - 1) / (v - 1), c this ceiling.

    Raises:
        ValueError: for no votes, or one outside [0, 1].

    Source: Zhang et al., CVPR 2018, section 4 ("Human" in their figure 4) and appendix A.
    """
    _check(judge, "judge")
    return (judge.double().square() + (1 - judge.double()).square()).mean().item()


def majority_ceiling(judge: Votes) -> float:
    """The largest 2AFC score there is on these votes: the mean of max(p, 1 - p). Raises as :func:`human_ceiling`."""
    _check(judge, "judge")
    return torch.maximum(judge.double(), 1 - judge.double()).mean().item()


def jnd_map(distance: Distances, same: Votes) -> float:
    """JND score: average precision of "these look the same" when pairs are ranked by ascending distance; in [0, 1].

    A pair that a fraction s of people called the same adds s to the true and 1 - s to the false positives. The score
    is the area under the precision-recall curve after precision was made to fall monotonically (PASCAL VOC 2010 on).
    Pairs of one distance enter together, so the order of the files does not matter. Chance is about the mean of
    `same`, not ½.

    Raises:
        ValueError: for no pairs, different lengths, a distance that is NaN, a fraction outside [0, 1], or when
            nobody called any pair the same.

    Source: Zhang et al., CVPR 2018, section 4.1 and their code; the test itself is in section 2.2.
    """
    _check(same, "same", distance=distance)
    if same.sum() == 0:
        raise ValueError("nobody called any pair the same, so there is no recall to speak of; add pairs that some did")
    order = distance.argsort()
    ranked, true = distance[order], same[order].double().cumsum(0)
    last_of_ties = torch.cat([ranked[1:] != ranked[:-1], torch.ones(1, dtype=torch.bool, device=ranked.device)])
    called = torch.arange(1, len(same) + 1, device=ranked.device, dtype=torch.float64)[last_of_ties]
    true = true[last_of_ties]
    recall, precision = true / true[-1], true / called
    envelope = precision.flip(0).cummax(0).values.flip(0)
    steps = torch.diff(recall, prepend=recall.new_zeros(1))
    return (steps * envelope).sum().item()


def pearson(x: Float[Tensor, "n"], y: Float[Tensor, "n"]) -> float:
    """Pearson's linear correlation, in [-1, 1]; NaN where one of the two does not vary.

    Raises:
        ValueError: for vectors of different lengths, or a value that is NaN.
    """
    if not _vary(x, y):
        return float("nan")
    x, y = (v.double() - v.double().mean() for v in (x, y))
    return ((x * y).sum() / (x.norm() * y.norm())).item()


def ranks(x: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Rank of every value, from 1; equal values share the mean of their ranks."""
    _, which, counts = torch.unique(x, return_inverse=True, return_counts=True)
    last = counts.cumsum(0)
    return ((last - counts + 1 + last).double() / 2)[which]


def spearman(x: Float[Tensor, "n"], y: Float[Tensor, "n"]) -> float:
    """Spearman's rank correlation, in [-1, 1]: Pearson's of the :func:`ranks`. NaN and raises as :func:`pearson`."""
    _vary(x, y)
    return pearson(ranks(x), ranks(y))


def kendall(x: Float[Tensor, "n"], y: Float[Tensor, "n"]) -> float:
    """Kendall's tau-b, in [-1, 1]: pairs ordered alike minus pairs ordered unlike, corrected for ties.

    NaN and raises as :func:`pearson`. Compares all pairs, one row at a time: a second for 10,000 values.
    """
    if not _vary(x, y):
        return float("nan")
    alike = ordered_x = ordered_y = 0.0
    for i in range(len(x)):
        sx, sy = (x[i] - x[:i]).sign(), (y[i] - y[:i]).sign()
        alike += (sx * sy).sum().item()
        ordered_x += sx.abs().sum().item()
        ordered_y += sy.abs().sum().item()
    return alike / (ordered_x * ordered_y) ** 0.5


def pearson_after_logistic(distance: Distances, opinion: Float[Tensor, "n"]) -> float:
    """Pearson's correlation of opinions with the logistic curve of `distance` that fits them best (least squares).

    The curve, a + b / (1 + exp(-(d - c) / s)), takes out that a metric's scale is arbitrary. As the sign of b is free,
    the result is not negative. NaN as :func:`pearson`.

    Raises:
        ValueError: as :func:`pearson`, for fewer than 5 values, or if no curve could be fitted.

    Source: Sheikh, Sabir, Bovik, A statistical evaluation of recent full reference image quality assessment
    algorithms, IEEE Transactions on Image Processing 15, 2006 (there with a linear term).
    """
    from scipy.optimize import least_squares
    from scipy.special import expit

    if not _vary(distance, opinion):
        return float("nan")
    if len(distance) < 5:
        raise ValueError(f"{len(distance)} values say nothing about a curve with 4 parameters; give at least 5")
    d, y = ((v.double() - v.double().mean()) / v.double().std() for v in (distance.cpu(), opinion.cpu()))
    span = (y.max() - y.min()).item()
    slope = 1.0 if (d * y).sum() >= 0 else -1.0

    def curve(parameters):
        low, height, center, scale = parameters
        return low + height * expit((d.numpy() - center) / scale)

    start = (-slope * span / 2, slope * span, d.median().item(), 1.0)
    fit = least_squares(lambda parameters: curve(parameters) - y.numpy(), start, method="lm", max_nfev=20_000)
    if not fit.success:
        raise ValueError(f"no logistic curve fits these {len(d)} values; report another correlation")
    return pearson(torch.from_numpy(curve(fit.x)), y)


def bootstrap_interval(
    score: Callable[[Int64[Tensor, "m"]], float],
    n: int,
    groups: Int64[Tensor, "n"] | None = None,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Interval that holds `level` of the scores of resampled data sets (percentile bootstrap).

    Args:
        score: the score of the triplets that these indices name (with repetitions), for example
            ``lambda i: two_afc_score(d0[i], d1[i], judge[i])``.
        n: number of triplets.
        groups: group of each triplet, for example the photograph it was cut from. Whole groups are then drawn, because
            triplets of one photograph are alike; without groups single triplets are drawn. With fewer than about ten
            groups the interval is too narrow, and the more so the fewer they are.
        resamples: how many data sets are drawn. Those whose score is NaN, because it is not defined, do not count.
        level: the share of their scores that the interval holds.
        seed: of the random numbers.

    Raises:
        ValueError: for nothing to draw from, `groups` of another length, a level outside (0, 1), or when every score
            is NaN.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    if n < 1 or resamples < 1 or not 0 < level < 1:
        raise ValueError(f"n={n}, resamples={resamples}, level={level}; n and resamples start at 1, level is in (0, 1)")
    if groups is not None and len(groups) != n:
        raise ValueError(f"{len(groups)} groups for {n} triplets; give one for each")
    generator = torch.Generator().manual_seed(seed)
    members = None if groups is None else [(groups == g).nonzero().flatten() for g in groups.unique()]
    scores = []
    for _ in range(resamples):
        if members is None:
            chosen = torch.randint(n, (n,), generator=generator)
        else:
            drawn = torch.randint(len(members), (len(members),), generator=generator)
            chosen = torch.cat([members[i] for i in drawn.tolist()])
        scores.append(score(chosen))
    defined = torch.tensor(scores, dtype=torch.float64)
    defined = defined[~defined.isnan()]
    if not len(defined):
        raise ValueError(
            f"the score of all {resamples} resampled data sets is NaN; look at the score of the data itself"
        )
    low, high = defined.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64))
    return low.item(), high.item()


def _vary(x: Tensor, y: Tensor) -> bool:
    """Whether a correlation is defined: both take at least two values."""
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"shapes {tuple(x.shape)} and {tuple(y.shape)}; give two vectors of one length")
    if x.isnan().any() or y.isnan().any():
        raise ValueError("there is NaN among the values to correlate; find out where it comes from, or leave it out")
    return len(x) > 1 and bool(x.min() < x.max()) and bool(y.min() < y.max())


def _check(votes: Tensor, name: str, **distances: Tensor) -> None:
    if votes.ndim != 1 or len(votes) == 0:
        raise ValueError(f"{name} has shape {tuple(votes.shape)}; give a vector of at least one value")
    wrong = ~((votes >= 0) & (votes <= 1))
    if wrong.any():
        at = int(wrong.nonzero()[0])
        raise ValueError(f"{name}[{at}] is {votes[at]:.3g}; it is a fraction of votes, from 0 to 1")
    for key, values in distances.items():
        if values.shape != votes.shape:
            raise ValueError(f"{key} has shape {tuple(values.shape)}, {name} {tuple(votes.shape)}; give one per vote")
        if values.isnan().any():
            raise ValueError(f"{key}[{int(values.isnan().nonzero()[0])}] is NaN; find out which images made it")
