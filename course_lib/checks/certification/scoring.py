"""Exercise 12.5: certified accuracy."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course_lib.checks import Mistake, exercise
from course_lib.checks.autoencoders.calling import call
from course_lib.checks.lipschitz.calling import near, one_number


def _share(radius: list[float], judge: list[float], eps: float) -> float:
    """One triplet at a time."""
    right = [(r if j < 0.5 else -r) > eps for r, j in zip(radius, judge, strict=True) if j != 0.5]
    return sum(right) / len(right)


def _wrong(radius: Tensor, judge: Tensor, eps: float) -> dict[str, list[Any]]:
    """Message -> the numbers that this mistake leads to."""
    radius, judge = radius.double(), judge.double()
    label, decided, votes = judge > 0.5, judge != 0.5, judge.round()
    signed = torch.where(label, -radius, radius)
    right, stands = signed > 0, radius.abs() > eps
    certified = right & stands & decided
    n, of = len(radius), int(decided.sum())
    natural = right & decided
    for_p1 = (radius < 0) == (judge >= 0.5)  # one half taken for a majority
    grey = radius.abs() > eps / 255
    every = (radius.abs() * 255 > eps) & natural
    return {
        "wrong decisions count as certified: a large |radius| makes a wrong decision certain, not right": [
            (stands & decided).sum() / of, stands.sum() / n,
        ],
        "votes of exactly 0.5 have no right answer: leave them out of the count *and* out of what you divide by": [
            certified.sum() / n, (certified | (stands & (radius > 0) & ~decided)).sum() / n,
            (right & stands).sum() / n, (right & stands).sum() / of, (for_p1 & stands).sum() / n,
            (for_p1 & stands).sum() / of, (certified | (stands & ~decided)).sum() / n,
            (certified | ~decided).sum() / n, (certified.sum() + 0.5 * (~decided).sum()) / n,
        ],
        "the sign is turned round: judge is the share of votes for p1, and the radius is + for p0": [
            ((signed < 0) & stands & decided).sum() / of,
        ],
        ">= for >: at exactly the radius the decision can become a tie; and at eps 0 it counts ties as certified": [
            ((signed >= eps) & decided).sum() / of,
        ],
        "a tie is no right decision: its radius is 0, which is not above any eps": [
            ((signed >= 0) & (radius.abs() >= eps) & decided).sum() / of,
            ((signed > eps) | (radius == 0))[decided].sum() / of,
        ],
        "eps is in the units of pixels in [0, 1], as the radius is; leave out the 255": [
            (natural & grey).sum() / of, every.sum() / of, (natural & (radius.abs() > eps * 255)).sum() / of,
        ],
        "that is accuracy without any change of the images; the radius has to exceed eps": [natural.sum() / of],
        "you divided by the number of right decisions; divide by all that have a right answer": [
            certified.sum() / natural.sum().clamp_min(1),
        ],
        "only unanimous votes were counted; the right answer is that of the majority": [
            ((signed > eps) & ((judge == 0) | (judge == 1))).sum() / of,
            ((signed > eps) & ((judge == 0) | (judge == 1))).sum() / ((judge == 0) | (judge == 1)).sum().clamp_min(1),
            ((signed > eps) & ((judge == 0) | (judge == 1))).sum() / n,
        ],
        "any vote for p1 made it the right answer; it is that of the majority: judge > 0.5": [
            (torch.where(judge > 0, -radius, radius) > eps)[decided].sum() / of,
            (torch.where(judge > 0, -radius, radius) > eps).sum() / n,
        ],
        "votes were taken for certainty: that is a score weighted by votes; the majority is right": [
            (torch.where(radius > 0, 1 - judge, judge) * stands).sum() / n,
            (torch.where(radius > 0, 1 - judge, judge) * stands)[decided].sum() / of,
            (torch.where(radius > 0, 1 - votes, votes) * stands).sum() / n,
        ],
        "only decisions for p0 can be right in it; where p1 is right the radius has to be below -eps": [
            ((radius > eps) & ~label & decided).sum() / of, ((radius > eps) & decided).sum() / of,
        ],
        "only decisions for p1 can be right in it": [((radius < -eps) & label).sum() / of],
        "that is the number of certified triplets; divide by how many have a right answer": [certified.sum()],
        "that is in percent; return the share, in [0, 1]": [100 * certified.sum() / of],
        "that is the share that is *not* certified": [1 - certified.sum() / of],
        "smaller than eps is what an attack may reach; certified is what is *above* eps": [
            (natural & (radius.abs() < eps)).sum() / of, (natural & (radius.abs() <= eps)).sum() / of,
        ],
        "that is the mean of the radii": [radius.mean(), signed.mean(), signed[decided].mean()],
    }  # fmt: skip


@exercise("12.5")
def certified_accuracy(attempt: Callable, random: torch.Generator) -> None:
    """Share of the triplets with a majority whose decision is right and cannot change within eps."""
    values: list[float] = []
    expected: list[float] = []
    told: list[dict[str, list[Any]]] = []
    for n in (223, 97, 401):
        radius = 0.4 * torch.randn(n, generator=random)
        radius[::7], radius[1::10] = 0.25, -0.25
        radius[2::9], radius[3::11] = 0, 5e-4
        judge = torch.randint(0, 5, (n,), generator=random) / 4
        for eps in (0.25, 0.1, 0.0):
            found = call(attempt, radius, judge, eps)
            if isinstance(found, Tensor) and found.ndim and found.numel() > 1:
                raise Mistake("you return one value for each triplet; return their share, one number")
            values.append(one_number(found))
            expected.append(_share(radius.tolist(), judge.tolist(), eps))
            told.append(_wrong(radius, judge, eps))
    if not all(near(value, right, 1e-5) for value, right in zip(values, expected, strict=True)):
        for message, variants in told[0].items():  # a mistake explains all of the answers, or none
            for number in range(len(variants)):
                if all(near(value, wrong[message][number], 1e-5) for value, wrong in zip(values, told, strict=True)):
                    raise Mistake(message)
        worst = max(range(len(values)), key=lambda i: abs(values[i] - expected[i]))
        raise Mistake(f"{values[worst]:.4f}, expected {expected[worst]:.4f}; try five triplets by hand")
    votes = torch.tensor([0.4, 0.6, 0.2, 0.5])
    value = one_number(call(attempt, torch.tensor([1.0, -1.0, 1.0, 1.0], dtype=torch.float64), votes, 0.5))
    if not near(value, 1.0):
        raise Mistake(f"{value:.3f} where all three majorities agree with the decision (0.4, 0.6, 0.2): expected 1")
