"""Exercise 12.4: all three images change, and the cosine decision has to stand."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course_lib.checks import Mistake, exercise
from course_lib.checks.autoencoders.calling import call

SLACK = 3e-3  # radians from the limit: closer triplets are left to rounding


def _angle(a: list[float], b: list[float]) -> float:
    inner = sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))
    return math.acos(max(-1.0, min(1.0, inner)))


class _Triplets:
    """Angles and lengths of triplets, number by number, and what a rule makes of them."""

    def __init__(self, triplet: tuple[Tensor, Tensor, Tensor], eps: tuple[float, float, float]):
        self.eps = eps
        rows = list(zip(*(e.tolist() for e in triplet), strict=True))
        self.gaps = [_angle(ref, p1) - _angle(ref, p0) for ref, p0, p1 in rows]
        self.cosines = [math.cos(_angle(ref, p0)) - math.cos(_angle(ref, p1)) for ref, p0, p1 in rows]
        self.lengths = [tuple(math.hypot(*e) for e in row) for row in rows]

    def needed(self, turn: Callable[[float, float], float] | None = None, weights=(2, 1, 1), eps=None) -> list[float]:
        """Sum of the turns of every triplet, infinite where a direction is lost."""
        turn = turn or (lambda e, length: math.asin(e / length) if e < length else math.inf)
        budgets = eps or self.eps
        return [
            sum(w * turn(e, size) if w else 0.0 for w, e, size in zip(weights, budgets, lengths, strict=True))
            for lengths in self.lengths
        ]

    def rule(self, needed: list[float], gaps: list[float] | None = None) -> Tensor:
        return torch.tensor([abs(gap) > need for gap, need in zip(gaps or self.gaps, needed, strict=True)])

    @property
    def clear(self) -> Tensor:
        """Where the rule does not hang on rounding."""
        return torch.tensor([abs(abs(g) - n) > SLACK for g, n in zip(self.gaps, self.needed(), strict=True)])


def _capped(e: float, length: float) -> float:
    return math.asin(min(1.0, e / length))


def _wrong_rules(all_: _Triplets) -> dict[str, Any]:
    """Message -> what that mistake certifies."""
    ref, zero, one = all_.eps
    n = len(all_.gaps)
    exact = all_.rule(all_.needed())
    lost = torch.tensor([any(e >= size for e, size in zip(all_.eps, lengths, strict=True)) for lengths in all_.lengths])
    first = torch.tensor([gap > 0 for gap in all_.gaps])
    raw = [sum(w * e for w, e in zip((2, 1, 1), all_.eps, strict=True))] * n
    bare = [sum(w * math.asin(min(1.0, e)) for w, e in zip((2, 1, 1), all_.eps, strict=True))] * n
    return {
        "arcsin(min(1, eps / |e|)) says 90 degrees where eps >= |e|; but the embedding can come to 0 there and point "
        "anywhere, so nothing is certified": all_.rule(all_.needed(_capped)),
        "the factor 2 of the reference is missing: when it turns, theta_0 grows *and* theta_1 shrinks": (
            all_.rule(all_.needed(weights=(1, 1, 1)))
        ),
        "the factor 2 of the reference is missing, and arcsin(min(1, .)) hides that a direction is lost": (
            all_.rule(all_.needed(_capped, (1, 1, 1)))
        ),
        "one budget was used for all three; eps holds those of ref, p0 and p1": [
            all_.rule(all_.needed(eps=(e, e, e))) for e in (ref, zero, one, max(all_.eps), sum(all_.eps) / 3)
        ],
        "the budgets are mixed up; eps holds those of ref, p0 and p1, in this order": [
            all_.rule(all_.needed(eps=order))
            for order in ((ref, one, zero), (zero, ref, one), (one, zero, ref), (zero, one, ref), (one, ref, zero))
        ],
        "only the reference turns; p0 and p1 change as well: add a_0 and a_1": [
            all_.rule(all_.needed(weights=(w, 0, 0))) for w in (1, 2)
        ],
        "the reference turns as well: add 2 a_ref": all_.rule(all_.needed(weights=(0, 1, 1))),
        "sound but loose: only the reference counts twice, p0 and p1 once": all_.rule(all_.needed(weights=(2, 2, 2))),
        "the factor 2 belongs to the reference; p0 and p1 count once": all_.rule(all_.needed(weights=(1, 2, 2))),
        "the turn of p0 counts as well: 2 a_ref + a_0 + a_1": all_.rule(all_.needed(weights=(2, 0, 1))),
        "the turn of p1 counts as well: 2 a_ref + a_0 + a_1": all_.rule(all_.needed(weights=(2, 1, 0))),
        "eps / |e| is the sine of the turn; the turn is its arcsin, and larger": (
            all_.rule(all_.needed(lambda e, size: e / size if e < size else math.inf))
        ),
        "eps / |e| is the sine of the turn, and at eps >= |e| the direction is lost": (
            all_.rule(all_.needed(lambda e, size: e / size))
        ),
        "arctan(eps / |e|) is too small: the change need not be at right angles to e; take arcsin": [
            all_.rule(all_.needed(math.atan2)),
            all_.rule(all_.needed(lambda e, size: math.atan2(e, size) if e < size else math.inf)),
        ],
        "arcsin(eps) forgets the length: the shorter e is, the further it turns: arcsin(eps / |e|)": [
            all_.rule(bare),
            all_.rule(raw),
        ],
        "that compares cosines; the triangle inequality holds for *angles*": [
            all_.rule(all_.needed(), all_.cosines),
            all_.rule(all_.needed(_capped), all_.cosines),
        ],
        "only decisions for p0 are certified; where p1 is closer the gap is theta_0 - theta_1": exact & first,
        "only decisions for p1 are certified: the gap is |theta_1 - theta_0|": exact & ~first,
        "reversed: certified is where the gap is *larger* than what the three can turn": [
            ~exact,
            torch.tensor([abs(g) < need < math.inf for g, need in zip(all_.gaps, all_.needed(), strict=True)]),
        ],
        "where eps > |e| the arcsin is NaN, and NaN <= x is False, so its reverse certifies; ask for eps < |e|": (
            exact | lost
        ),
        "angles in degrees on one side, radians on the other": (
            all_.rule([math.radians(need) for need in all_.needed()])
        ),
        "budgets do not add up as squares: all three can turn the way that hurts": all_.rule(
            [
                math.hypot(2 * a, b, c)
                for a, b, c in zip(
                    all_.needed(weights=(1, 0, 0)),
                    all_.needed(weights=(0, 1, 0)),
                    all_.needed(weights=(0, 0, 1)),
                    strict=True,
                )
            ]
        ),
        "everything is certified": torch.ones(n, dtype=torch.bool),
        "nothing is certified; are angles in degrees compared with radians?": torch.zeros(n, dtype=torch.bool),
    }  # fmt: skip


def _certified(attempt: Callable, triplet: tuple[Tensor, ...], eps: tuple[float, float, float]) -> Tensor:
    found = call(attempt, *triplet, eps)
    if found is None:
        raise Mistake("your function returns nothing; did you forget `return`?")
    if not isinstance(found, Tensor):
        raise Mistake(f"your function returns a {type(found).__name__}; a torch.Tensor of booleans was expected")
    if tuple(found.shape) != (len(triplet[0]),):
        raise Mistake(f"the result has shape {tuple(found.shape)}, expected {(len(triplet[0]),)}: one for each triplet")
    if found.dtype != torch.bool:
        raise Mistake(f"the result is {found.dtype}; say for each triplet whether it is certified: a comparison, bool")
    return found


def _same(found: Tensor, wrong: Tensor, expected: Tensor) -> bool:
    """Whether an answer is that of a wrong rule, which rounding may decide otherwise where it is close."""
    return int((found != wrong).sum()) <= 3 and int((wrong != expected).sum()) > 10


@exercise("12.4")
def three_image_certified(attempt: Callable, random: torch.Generator) -> None:
    """Where no changes of all three images, each within its own budget, can change the cosine decision."""
    for d, scale in ((2, 1.0), (3, 2.0), (7, 1.5)):
        eps = tuple((0.1 + 0.4 * torch.rand(3, generator=random).double()).tolist())
        triplet = torch.randn(3, 3000, d, generator=random).double()
        # every length from far below the budgets to far above
        lengths = scale * 10 ** (2.5 * torch.rand(3, 3000, 1, generator=random).double() - 1)
        triplet = triplet / triplet.norm(dim=2, keepdim=True) * lengths
        ref, p0, p1 = triplet
        near = _Triplets((ref, p0, p1), eps).clear
        ref, p0, p1 = (e[near].float() for e in (ref, p0, p1))
        all_ = _Triplets((ref, p0, p1), eps)
        expected = all_.rule(all_.needed())
        found = _certified(attempt, (ref, p0, p1), eps)
        if torch.equal(found, expected):
            continue
        for message, wrong in _wrong_rules(all_).items():
            if any(_same(found, one, expected) for one in (wrong if isinstance(wrong, list) else [wrong])):
                raise Mistake(message)
        too_many, too_few = int((found & ~expected).sum()), int((expected & ~found).sum())
        if too_many:
            raise Mistake(
                f"unsound: {too_many} of {len(found)} triplets are certified though their decision can change"
            )
        raise Mistake(f"sound but loose: {too_few} of {int(expected.sum())} certifiable triplets are not certified")
    ref, p0 = torch.randn(2, 4, 3, generator=random)
    if _certified(attempt, (ref, p0, p0.clone()), (0.0, 0.0, 0.0)).any():
        raise Mistake("ties are certified at eps 0; the gap has to be *larger* than what the three can turn")
    ref, p1 = torch.tensor([[4.0, 0.0]]), torch.tensor([[-0.25, 0.0]])
    if _certified(attempt, (ref, 8 * ref, p1), (0.0, 0.0, 0.25)).any():
        raise Mistake(
            "certified at eps = |e|, where the embedding can come to 0 and has no direction: ask for eps < |e|"
        )
