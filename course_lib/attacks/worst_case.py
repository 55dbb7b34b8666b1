"""The strongest attack we can run: an ensemble in the spirit of AutoAttack, each on what the earlier ones left."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib.attacks.apgd import apgd
from course_lib.attacks.balls import Ball, sizes
from course_lib.attacks.fab import fab
from course_lib.attacks.minimum_norm import tighten
from course_lib.attacks.objectives import Objective
from course_lib.attacks.search import Attacked, Search, check_attack
from course_lib.attacks.square import square


@dataclass
class _Settings:
    steps: int
    queries: int
    restarts: int
    generator: torch.Generator
    progress: bool


def _apgd(loss: str) -> Callable[[Objective, Ball, _Settings], Attacked]:
    return lambda objective, ball, s: apgd(
        objective, ball, steps=s.steps, restarts=s.restarts, loss=loss, generator=s.generator, progress=s.progress
    )


MEMBERS: dict[str, Callable[[Objective, Ball, _Settings], Attacked]] = {
    "apgd-margin": _apgd("margin"),
    "apgd-ce": _apgd("ce"),
    "fab": lambda objective, ball, s: fab(
        objective, norm=ball.norm, steps=s.steps, restarts=s.restarts, generator=s.generator, progress=s.progress
    ),
    "square": lambda objective, ball, s: square(
        objective, ball, queries=s.queries, generator=s.generator, progress=s.progress
    ),
}


@dataclass
class WorstCase(Attacked):
    """What the ensemble found; `images`, `value` and `success` are the worst inside the ball.

    Attributes:
        first: the attack that succeeded first inside the ball: "start" where no change was needed, None for none.
        nearest: images with the smallest change that succeeds, inside the ball or not; the start where there is none.
        smallest: (n,) size of that change; infinite where there is none. An upper bound of the true minimum.
    """

    first: tuple[str | None, ...]
    nearest: Float[Tensor, "n *parts c h w"]
    smallest: Float[Tensor, "n"]


def worst_case(
    objective: Objective,
    ball: Ball,
    *,
    steps: int = 100,
    queries: int = 1000,
    restarts: int = 1,
    generator: torch.Generator | None = None,
    attacks: Sequence[str] = tuple(MEMBERS),
    progress: bool = False,
) -> WorstCase:
    """Run several attacks, each on the examples that the earlier ones left, then shrink what succeeded.

    AutoAttack's DLR loss needs three classes and a 2AFC decision has two, so the margin takes its place. For two
    classes the cross-entropy has the margin's gradient direction: APGD-CE counts as a restart from another point.
    FAB looks for the smallest change, Square uses no gradient and so finds what a masked gradient hides. At the end a
    bisection towards the start shrinks every success.

    Args:
        objective: what to make large. Without a threshold every attack but FAB runs on every example.
        ball: how far images may change.
        steps: gradients per example and restart, of each attack that uses them.
        queries: values that Square asks for.
        restarts: of APGD and FAB.
        generator: draws everything random; None seeds one with 0.
        attacks: which, in this order: "apgd-margin", "apgd-ce", "fab", "square".
        progress: show progress bars, on a terminal.

    Raises:
        ValueError: for unknown attacks, numbers that make no sense, or a gradient that is not finite.

    Source: Croce, Hein, Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks, ICML 2020, section 5.
    """
    check_attack(steps=steps, queries=queries, restarts=restarts)
    if not attacks or not set(attacks) <= set(MEMBERS):
        raise ValueError(f"unknown attacks in {list(attacks)}; choose from {', '.join(MEMBERS)}")
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    settings = _Settings(steps, queries, restarts, generator, progress)
    worst, nearest = Search(objective), Search(objective, better=ball.norm)
    first: list[str | None] = ["start" if success else None for success in worst.success.tolist()]
    for name in attacks:
        solved = worst.success | (objective.threshold.isinf() if name == "fab" else False)
        left = (~solved).nonzero()[:, 0]
        if not len(left):
            continue
        # solved examples stay in the batch, as solved, so that they do not shift the random numbers of others
        threshold = torch.where(solved, torch.finfo(objective.threshold.dtype).min, objective.threshold)
        found = MEMBERS[name](replace(objective, threshold=threshold), ball, settings)
        nearest.keep(left, found.images[left], found.value[left])
        size = sizes(found.images.double() - objective.start.double(), ball.norm)
        inside = left[size[left] <= ball.eps]
        worst.keep(inside, found.images[inside], found.value[inside])
        for index in left[worst.success[left]].tolist():
            first[index] = name
        worst.forwards[left] += found.forwards[left]
        worst.backwards[left] += found.backwards[left]
    tighten(nearest)
    best = worst.result()
    forwards = best.forwards + nearest.forwards
    return WorstCase(
        best.images, best.value, best.success, forwards, best.backwards, tuple(first), nearest.images, nearest.size
    )
