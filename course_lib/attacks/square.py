"""Square: an attack that only asks for values, never for gradients, and so is not misled by masked ones."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from tqdm import tqdm

from course_lib.attacks.balls import Ball, direction, lengths, per_example
from course_lib.attacks.objectives import Objective
from course_lib.attacks.search import Attacked, Search, check_attack

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # after so many of 10000 queries the squares' area halves


def square(
    objective: Objective,
    ball: Ball,
    *,
    queries: int = 1000,
    p_init: float = 0.8,
    restarts: int = 1,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Attacked:
    """Change one random square at a time and keep what makes the value larger.

    The squares shrink on the schedule of the authors' code, rescaled to the number of queries. All changes have the
    largest size the ball allows. All examples see squares in the same places; signs are drawn for each. No gradients.

    Args:
        objective: what to attack; an example may be several images, each of which is changed.
        ball: how far.
        queries: values asked for per example and restart, on top of the one at the start.
        p_init: share of the image that the first squares cover; 0.8 is AutoAttack's.
        restarts: how often to begin anew, for examples still standing.
        generator: draws places and signs.
        progress: show a progress bar, on a terminal.

    Raises:
        ValueError: for a count below 1.

    Source: Andriushchenko et al., Square Attack, ECCV 2020, algorithms 1 to 3.
    """
    check_attack(queries=queries, restarts=restarts)
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    search = Search(objective)
    start = objective.start
    height, width = start.shape[-2:]
    linf = ball.norm == "linf"
    for _ in range(restarts):
        best, value = start.clone(), torch.full_like(objective.threshold, -torch.inf)
        for query in tqdm(range(queries), desc="Square", disable=None if progress else True):
            which = search.standing()
            if not len(which):
                break
            draw = _Draw(generator, start, which)
            if query == 0:
                change = _stripes(draw) if linf else _tiles(draw)
            else:
                side = round(math.sqrt(covered(query - 1, queries - 1, p_init) * height * width))
                change = (best - start)[which] / ball.eps
                change = _recoloured(change, side, draw) if linf else _moved(change, side, draw)
            images = ball.project(start[which] + ball.eps * change, start[which])
            new = search.evaluate(which, images)
            better = new > value[which]
            best[which] = torch.where(per_example(better, images), images, best[which])
            value[which] = torch.where(better, new, value[which])
    return search.result()


def covered(step: int, steps: int, p_init: float = 0.8) -> float:
    """Share of the image that the square of this step covers: p_init, and half as much after each of HALVINGS."""
    return p_init / 2 ** sum(int(step / steps * 10000) > halving for halving in HALVINGS)


@dataclass
class _Draw:
    """Random numbers; drawn for all examples, used for `which`, so that no example changes another's luck."""

    generator: torch.Generator
    start: Tensor
    which: Int64[Tensor, "m"]

    def signs(self, height: int, width: int) -> Tensor:
        """-1 or 1 for every example and channel, (m, *parts, c, height, width)."""
        shape = (*self.start.shape[:-2], height, width)
        signs = torch.randint(0, 2, shape, generator=self.generator, device=self.generator.device) * 2 - 1
        return signs.to(self.start)[self.which]

    def integer(self, end: int) -> int:
        """One of 0..end - 1."""
        return int(torch.randint(0, end, (), generator=self.generator, device=self.generator.device))

    def square(self, side: int) -> tuple:
        """Index of a square at a random place."""
        top, left = (self.integer(length - side + 1) for length in self.start.shape[-2:])
        return ..., slice(top, top + side), slice(left, left + side)


def _stripes(draw: _Draw) -> Tensor:
    """Vertical stripes, one pixel wide: the start of the L-infinity attack."""
    return draw.signs(1, draw.start.shape[-1]).expand_as(draw.start[draw.which])


def _recoloured(change: Tensor, side: int, draw: _Draw) -> Tensor:
    """The change with one square set to the largest or smallest value allowed, per channel."""
    change[draw.square(min(max(side, 1), *change.shape[-2:]))] = draw.signs(1, 1)
    return change


def _tiles(draw: _Draw) -> Tensor:
    """A grid of about 5 by 5 bumps: the start of the L2 attack."""
    change = torch.zeros_like(draw.start[draw.which])
    height, width = change.shape[-2:]
    side = max(min(height, width) // 5, 1)
    for top in range(height % side // 2, height - side + 1, side):
        for left in range(width % side // 2, width - side + 1, side):
            change[..., top : top + side, left : left + side] = _bumps(side, draw) * draw.signs(1, 1)
    return direction(change, "l2")


def _moved(change: Tensor, side: int, draw: _Draw) -> Tensor:
    """The change with the mass of one square moved to another, where a pair of bumps is added to it."""
    side = min(max(side, 3) // 2 * 2 + 1, *change.shape[-2:])
    here, there = draw.square(side), draw.square(side)
    both = torch.zeros_like(change)
    both[here] = both[there] = 1
    unused = (1 - lengths(change, "l2") ** 2).clamp_min(0) / change.shape[-3]  # what the limits of pixels cut off
    mass = (unused + ((change * both) ** 2).sum((-2, -1), keepdim=True)).sqrt()
    mixed = _unit(change[here]) + _bumps(side, draw) * draw.signs(1, 1)
    change[there] = 0
    change[here] = mass * _unit(mixed)
    return direction(change, "l2")


def _bumps(side: int, draw: _Draw) -> Float[Tensor, "side side"]:
    """A positive bump beside a negative one, of L2 norm 1, upright or lying."""
    half = side // 2
    pair = torch.cat((bump(half, side), -bump(side - half, side)))
    pair = pair / pair.norm()
    return (pair if draw.integer(2) else pair.T).to(draw.start)


def bump(height: int, width: int) -> Float[Tensor, "height width"]:
    """Rings around the middle of a rectangle, of L2 norm 1: the k-th is 1/k^2 + 1/(k + 1)^2 + ..."""
    rows, columns = ((torch.arange(length) - length // 2).abs() for length in (height, width))
    ring = torch.maximum(rows[:, None], columns)
    terms = 1 / torch.arange(1, max(height, width) // 2 + 2) ** 2
    rings = terms.flip(0).cumsum(0).flip(0)[ring]
    return rings / rings.norm()


def _unit(change: Tensor) -> Tensor:
    """Every channel divided by its L2 norm; 0 where that is 0."""
    length = torch.linalg.vector_norm(change, dim=(-2, -1), keepdim=True)
    return change / torch.where(length > 0, length, 1)
