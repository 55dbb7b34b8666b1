"""Exercise 9.5: when APGD halves its step."""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.checks import Mistake, exercise, expect_shape
from course_lib.checks.judgments.calling import call

RHO = 0.75


@exercise("9.5")
def to_halve(attempt: Callable, random: torch.Generator) -> None:
    """Which examples halve: too few rises since the last checkpoint, or a best value that no longer moves."""
    # moves of 1, at first, and of a size that fewer digits, or a tolerance, would hide
    for steps, last, size in ((20, 8, 1), (12, 8, 1), (9, 0, 1), (20, 8, 1e-4)):
        values, halved = _climbs(200, steps, last, random)
        values = values if size == 1 else 0.5 + size * values
        found = call(attempt, values, last, halved)
        expect_shape(found, (200,), "one answer per example")
        if found.dtype != torch.bool:
            raise Mistake(f"return True or False for every example; this is {found.dtype}")
        expected = _by_loops(values, last, halved)
        if torch.equal(found, expected):
            continue
        for message, wrong in _mistakes(values, last, halved).items():
            if any(torch.equal(found, one.expand(200)) for one in wrong):
                raise Mistake(message)
        at = int((found != expected).nonzero()[0])
        row = [round(x, 4) for x in values[at].tolist()]
        raise Mistake(
            f"{int((found != expected).sum())} of 200 differ; for example {row} with last={last} and "
            f"halved={bool(halved[at])} should be {bool(expected[at])}"
        )


def _climbs(n: int, steps: int, last: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Values (n, steps + 1) that rise, fall and stay, and who halved at the last checkpoint."""
    up = torch.rand(n, 1, generator=random) * 0.6 + 0.4
    moves = torch.where(torch.rand(n, steps, generator=random) < up, 1.0, -1.0)
    moves[torch.rand(n, steps, generator=random) < 0.05] = 0
    # deep falls, before and after the checkpoint, from which many rises do not lead back to the best
    moves[: n // 4, last // 2] = -15
    moves[n // 4 : n // 2, last] = -15
    moves[n // 2 : 3 * n // 4, last + 1] = -15
    values = torch.cat((torch.zeros(n, 1), moves.cumsum(1)), 1)
    return values, torch.rand(n, generator=random) < 0.4


def _by_loops(values: Tensor, last: int, halved: Tensor) -> Tensor:
    answers = []
    for row, before in zip(values.tolist(), halved.tolist(), strict=True):
        rises = sum(row[i + 1] > row[i] for i in range(last, len(row) - 1))
        few = rises <= RHO * (len(row) - 1 - last)
        stuck = not before and max(row) <= max(row[: last + 1])
        answers.append(few or stuck)
    return torch.tensor(answers)


def _mistakes(values: Tensor, last: int, halved: Tensor) -> dict[str, list[Tensor]]:
    steps = values.shape[1] - 1
    moves = values.diff(dim=1)
    rises, interval = (moves[:, last:] > 0).sum(1), steps - last
    best, best_then = values.amax(1), values[:, : last + 1].amax(1)
    few, unmoved = rises <= RHO * interval, best <= best_then
    stuck = ~halved & unmoved
    record = values.cummax(1).values
    records = (record[:, 1:] > record[:, :-1])[:, last:].sum(1)
    return {
        "condition 2 with a tolerance: a best value that rose by a little has risen": [
            few | (~halved & (best <= best_then + tolerance)) for tolerance in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
        ],
        "too few digits: values that differ became equal": [_by_loops(values.half(), last, halved)],
        "you joined the two conditions with *and*; either is enough: |": [few & stuck],
        "all examples got one answer; each decides for itself, with sums over dim=1": [
            decision.expand(len(values))
            for rule in (few | stuck, few)
            for decision in (rule.any(), rule.all(), rule.float().mean() > 0.5)
        ]
        + [(rises.float().mean() <= RHO * interval) | stuck],
        "a tie halves: of four steps three rises, exactly 75 %, are too few: <=, not <; or you divide by one step too "
        "few": [(rises < RHO * interval) | stuck, (rises <= RHO * (interval - 1)) | stuck],
        "you counted rises since the start; only those since the last checkpoint count: values[:, last:]": [
            ((moves > 0).sum(1) <= RHO * interval) | stuck,
            ((moves > 0).sum(1) <= RHO * steps) | stuck,
            (rises <= RHO * steps) | stuck,
        ],
        "you compared with the number of *values* since the checkpoint; there is one step less": [
            (rises <= RHO * (interval + 1)) | stuck
        ],
        "the first step after the checkpoint is missing; its rise is values[:, last + 1] > values[:, last]": [
            ((moves[:, last + 1 :] > 0).sum(1) <= RHO * interval) | stuck,
            ((moves[:, last + 1 :] > 0).sum(1) <= RHO * (interval - 1)) | stuck,
        ],
        "the last step before the checkpoint was counted as well; begin with values[:, last]": [
            ((moves[:, max(last - 1, 0) :] > 0).sum(1) <= RHO * interval) | stuck
        ],
        "condition 1 is reversed: *few* rises halve": [
            (rises > RHO * interval) | stuck,
            (rises >= RHO * interval) | stuck,
        ],
        "a value that stays the same is no rise: >, not >=": [
            ((moves[:, last:] >= 0).sum(1) <= RHO * interval) | stuck
        ],
        "you counted new records; a rise is a value above the one just before": [(records <= RHO * interval) | stuck],
        "condition 2 is missing or never true; each example has its own best, and a tie counts": [few],
        "only condition 2; an example with few rises halves, too": [stuck],
        "condition 2 lacks `~halved`: who halved at the last checkpoint gets time to use the shorter step": [
            few | unmoved
        ],
        "condition 2: you took `halved` for `~halved`": [few | (halved & unmoved)],
        "condition 2 compares *best* values; the current one may be below the best": [
            few | (~halved & (values[:, -1] <= values[:, last])),
            few | (~halved & (values[:, -1] <= best_then)),
        ],
        "condition 2: the best *so far* counts, from the first column on, not that of the last checkpoint alone": [
            few | (~halved & (values[:, last:].amax(1) <= values[:, last])),
            few | (~halved & (best <= values[:, last])),
        ],
        "condition 2: the value *at* the checkpoint belongs to the best until there: values[:, :last + 1]": [
            few | (~halved & (best <= values[:, : max(last, 1)].amax(1)))
        ],
        "condition 2 is reversed: a best value that did *not* rise halves": [few | (~halved & (best > best_then))],
        "`halved` holds back condition 2 only, not condition 1": [~halved & (few | unmoved)],
        "True and False are swapped": [~(few | stuck)],
    }
