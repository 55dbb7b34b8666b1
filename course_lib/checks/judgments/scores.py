"""Exercises 8.1 to 8.3: scores and ceilings."""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.checks import Mistake, exercise, expect_close
from course_lib.checks.judgments.calling import call, random_votes, several


@exercise("8.1")
def two_afc_score(attempt: Callable, random: torch.Generator) -> None:
    """Share of the votes that a metric agrees with, from the two distances of every triplet; a tie counts half."""
    n = int(torch.randint(30, 40, (), generator=random))
    d0, d1 = torch.rand(2, n, generator=random) + 0.1
    d1[:6] = d0[:6]
    d1[6:10] = d0[6:10] * 1.000002  # no tie, however small the difference
    judge = random_votes(n, 5, random)
    judge[:10] = torch.tensor([0, 0.2, 0, 0.4, 0.2, 0, 0, 0.2, 0, 0])
    rows = list(zip(d0.tolist(), d1.tolist(), judge.tolist(), strict=True))
    expected = sum(1 - p if a < b else p if b < a else 0.5 for a, b, p in rows) / n
    to_p0, to_p1 = torch.where(d1 < d0, judge, 1 - judge), torch.where(d1 <= d0, judge, 1 - judge)
    each = torch.where(d0 == d1, 0.5, to_p0)
    majority = torch.where(judge > 0.5, 1.0, 0.0)
    expect_close(
        call(attempt, d0, d1, judge),
        expected,
        {
            "reversed: judge is the share of votes for p1, and d1 < d0 means that the metric prefers p1": 1 - expected,
            "ties went to p0; a metric that cannot decide scores ½": to_p0.mean(),
            "ties went to p1; a metric that cannot decide scores ½": to_p1.mean(),
            "ties scored 0, because neither < is true there; a metric that cannot decide scores ½": (
                torch.where(d0 == d1, 0.0, to_p0).mean()
            ),
            "ties scored 1, because both <= are true there; compare with <, and give ties ½": (
                torch.where(d0 == d1, 1.0, to_p0).mean()
            ),
            "ties were left out; each scores ½": to_p0[d0 != d1].mean(),
            "distances that are merely close were taken for ties; a tie is d0 == d1": (
                torch.where(torch.isclose(d0, d1), 0.5, to_p0).mean()
            ),
            "reversed, and ties went to one side: d1 < d0 means that the metric prefers p1, and ties score ½": [
                1 - to_p0.mean(),
                1 - to_p1.mean(),
            ],
            "reversed, and ties scored 0 or 1: d1 < d0 means that the metric prefers p1, and ties score ½": [
                torch.where(d0 == d1, tie, 1 - to_p0).mean() for tie in (0.0, 1.0)
            ],
            "that is agreement with the majority; average the share of votes that agree": [
                torch.where(d0 == d1, tie, ((d1 < d0) == (majority > 0)).float()).mean() for tie in (0.0, 0.5, 1.0)
            ]
            + [(decision == (judge > 0.5)).float().mean() for decision in (d1 < d0, d1 <= d0)],
            "one score per triplet; return their mean": [each, to_p0, to_p1],
            "that is the sum over the triplets; return the mean": expected * n,
            "that is a correlation; 2AFC counts agreeing votes": torch.corrcoef(torch.stack([d0 - d1, judge]))[0, 1],
        },
    )


@exercise("8.2")
def ceilings(attempt: Callable, random: torch.Generator) -> None:
    """Score of one random voter, largest possible score, and how often two different voters agree."""
    n, voters = int(torch.randint(20, 30, (), generator=random)), 7
    ones = torch.randint(voters + 1, (n,), generator=random)
    ones[:8] = 1  # lopsided, so that the mean over all triplets is not near one half
    p = ones / voters
    ballots = [[1] * k + [0] * (voters - k) for k in ones.tolist()]
    human = sum(a == b for votes in ballots for a in votes for b in votes) / (n * voters**2)
    best = sum(max(votes.count(0), votes.count(1)) for votes in ballots) / (n * voters)
    pairs = [a == b for votes in ballots for a, b in itertools.combinations(votes, 2)]
    different = sum(pairs) / len(pairs)

    found = several(call(attempt, p, voters), "human, majority, unbiased")
    right = (human, best, different)
    for order in itertools.permutations(range(3)):
        if order != (0, 1, 2) and all(abs(float(found[i]) - right[k]) < 1e-5 for i, k in enumerate(order)):
            raise Mistake("the three numbers are right, in another order; return human, majority, unbiased")
    expect_close(
        found[0],
        human,
        {
            "human: you took the mean of the votes first; p² + (1 - p)² of every triplet, then the mean": (
                p.mean() ** 2 + (1 - p.mean()) ** 2
            ),
            "human: that is p² only; two voters also agree when both choose p0: add (1 - p)²": p.square().mean(),
            "human: p + (1 - p) is always 1; square each on its own": 1.0,
            "human: two voters disagree in two ways, p (1 - p) and (1 - p) p": (1 - p * (1 - p)).mean(),
            "human: that is how often two voters *disagree*": 1 - human,
            "human: that is the sum over the triplets; take the mean": human * n,
        },
    )
    expect_close(
        found[1],
        best,
        {
            "majority: you took the mean of the votes first; the larger of p and 1 - p in every triplet": (
                torch.maximum(p.mean(), 1 - p.mean())
            ),
            "majority: that is the share of triplets where most chose p1": (p > 0.5).float().mean(),
            "majority: that counts unanimous triplets only": ((p == 0) | (p == 1)).float().mean(),
            "majority: a metric that sides with the few; take the larger of p and 1 - p": 1 - best,
            "majority: the best metric agrees with most of the voters, not with all of them": 1.0,
            "majority: that is the sum over the triplets; take the mean": best * n,
        },
    )
    c, v = human, voters
    expect_close(
        found[2],
        different,
        {
            "unbiased: you changed nothing; take out the pairs of a voter with himself": c,
            "unbiased: brackets! (v * c - 1) / (v - 1)": [
                v * c - 1 / (v - 1),
                (v * c - 1) / v - 1,
                v * c / (v - 1) - 1,
                v * c - 1 / v - 1,
            ],
            "unbiased: a voter has v - 1 others; divide by v - 1": (v * c - 1) / v,
            "unbiased: subtract the 1 by which every voter agrees with himself": v * c / (v - 1),
            "unbiased: there are not always five voters; calculate with `voters`": (5 * c - 1) / 4,
            "unbiased: v is the number of voters, not of triplets": (n * c - 1) / (n - 1),
            "unbiased: start from the human ceiling, not from that of the majority": (v * best - 1) / (v - 1),
        },
    )


@exercise("8.3")
def jnd_map(attempt: Callable, random: torch.Generator) -> None:
    """Average precision of "same", from small to large distances, under the monotone precision envelope."""
    n = int(torch.randint(14, 20, (), generator=random))
    same = random_votes(n, 3, random)
    distance = 1.5 - same + 2 * torch.rand(n, generator=random)
    expected = _area_by_loops(distance.tolist(), same.tolist())
    s = same[distance.argsort()].double()
    true, called = s.cumsum(0), torch.arange(1, n + 1)
    recall, precision = true / true[-1], true / called
    steps = recall.diff(prepend=torch.zeros(1))
    envelope = precision.flip(0).cummax(0).values.flip(0)

    def area(s: Tensor, smooth: bool = True) -> Tensor:
        true = s.double().cumsum(0)
        precision = true / torch.arange(1, len(s) + 1)
        height = precision.flip(0).cummax(0).values.flip(0) if smooth else precision
        return (s.double() / true[-1] * height).sum()

    def under(precision: Tensor) -> list[Tensor]:
        """Areas that straight lines between the points lead to, from the first point on, and from recall 0 on."""
        start = (recall.new_zeros(1), recall), (precision[:1], precision)
        return [torch.trapezoid(precision, recall), torch.trapezoid(torch.cat(start[1]), torch.cat(start[0]))]

    def with_false(false: Tensor) -> list[Tensor]:
        precision = true / (true + false.double().cumsum(0))
        return [(steps * precision).sum(), (steps * precision.flip(0).cummax(0).values.flip(0)).sum()]

    def at(points: int) -> Tensor:
        levels = torch.linspace(0, 1, points, dtype=torch.float64) - 1e-6  # so that rounding decides nothing
        return torch.stack([envelope[recall >= level][0] for level in levels]).mean()

    expect_close(
        call(attempt, distance, same),
        expected,
        {
            "you ranked by descending distance; the pair with the smallest distance comes first": [
                area(s.flip(0)),
                area(s.flip(0), smooth=False),
            ],
            "the envelope is missing: precision at a recall is the largest one at that recall *or above*": area(
                s, False
            ),
            "your envelope runs the wrong way: take the largest precision from here to the *end* of the ranking": (
                (steps * precision.cummax(0).values).sum()
            ),
            "`same` was not sorted along with the distances; index it with the same order": [
                area(same),
                area(same, smooth=False),
            ],
            "the rise in recall is that of the *ranked* pairs: same[order] / same.sum(), not same / same.sum()": [
                (same / same.sum() * envelope).sum(),
                (same / same.sum() * precision).sum(),
            ],
            "the envelope is still turned round; after cummax, turn it back with .flip(0)": (
                (steps * envelope.flip(0)).sum()
            ),
            "not finite: a list of no pairs? The first list holds one pair, so divide by 1, 2, 3, …": (
                lambda area: not math.isfinite(float(torch.as_tensor(area).double().sum()))
            ),
            "votes were rounded to 0 or 1; a fraction s adds s to the true and 1 - s to the false positives": [
                area(rounded, smooth)
                for rounded in (s > 0.5, s > 0, s == 1)
                for smooth in (True, False)
                if rounded.any()
            ],
            "false positives: a fraction s adds 1 - s to them, not 1, and not only where nobody said same": [
                *with_false(torch.ones(n)),
                *with_false(s == 0),
                *with_false(s < 0.5),
            ],
            "the points were joined by straight lines; the area is that of steps: rise in recall times precision": [
                *under(envelope),
                *under(precision),
            ],
            "the first step is missing: recall starts at 0, so prepend a 0 before you take differences": [
                (recall.diff() * envelope[1:]).sum(),
                (recall.diff() * envelope[:-1]).sum(),
            ],
            "that is a mean over the ranks; weigh each precision with the rise in recall": [
                envelope.mean(),
                precision.mean(),
            ],
            "recall is the share of all *same* votes found so far; divide by their sum, not by the number of pairs": [
                expected * float(same.mean()),
                (steps * precision).sum() * same.mean().double(),
            ],
            "those are 11 or 101 points of the curve, as in PASCAL VOC before 2010; take the area under all of it": [
                at(11),
                at(101),
            ],
        },
    )


def _area_by_loops(distance: list[float], same: list[float]) -> float:
    """Every pair's share of all the votes "same" times the best precision of any list that contains it."""
    ranked = [s for _, s in sorted(zip(distance, same, strict=True))]
    lists = [sum(ranked[: k + 1]) / (k + 1) for k in range(len(ranked))]
    return sum(s / sum(ranked) * max(lists[k:]) for k, s in enumerate(ranked))
