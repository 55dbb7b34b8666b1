"""Rates of change that really occur: bounds from below on a Lipschitz constant."""

import copy
import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import jvp, vjp

CLOSEST = 1e-6  # pairs closer than this, relative to |x|, would measure rounding
TINY = 1e-30


def lower_bound(
    f: Callable[[Tensor], Tensor],
    x: Float[Tensor, "n *shape"],
    *,
    steps: int = 20,
    search: int = 20,
    seed: int = 0,
) -> float:
    """Bound a function's L2 Lipschitz constant from below, by the largest rate found. Never a certificate.

    At each point, power iteration finds a unit v for which |J v|, J the Jacobian, is almost its largest singular
    value; however early it stops, |J v| is a rate that occurs. The search then moves both ends of a pair (x, y) to
    increase |f(x) - f(y)| / |x - y|, by gradient ascent. Between the ends some Jacobian is at least as steep as the
    pair, so power iteration runs once more there.

    Args:
        f: a module, of which a float64 copy is used, or a function, called in x's own dtype, whose rounding counts
            as movement: give float64 points. It has to treat the examples of a batch independently.
        x: points where f is differentiable. If all lie in [0, 1], like images, the search stays in [0, 1].
        steps: power iterations at each point.
        search: ascent steps; 0 for the Jacobian at the points alone.
        seed: of the directions that the iteration starts from.

    Returns:
        The largest rate found, in units of f per unit of x.

    Raises:
        ValueError: if there are no points or steps is not positive.
    """
    if steps < 1 or len(x) == 0:
        raise ValueError(f"{len(x)} points and {steps} steps; at least one of each is needed")
    x = x.detach()
    if isinstance(f, nn.Module):
        f, x = copy.deepcopy(f).double().requires_grad_(False), x.double()
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
    rates, directions = _steepest_directions(f, x, start, steps)
    candidates = [_alone(f, x, directions, rates)]
    if search:
        limits = (0.0, 1.0) if bool(((x >= 0) & (x <= 1)).all()) else (-math.inf, math.inf)
        y = (x + 0.1 * _norms(x).amax() * directions).clamp(*limits)
        x, y = _spread(f, x, y, search, limits)
        chord = y - x
        lengths = _norms(chord)
        pair_rates = torch.where(lengths > CLOSEST * (1 + _norms(x)), _norms(f(y) - f(x)) / lengths, 0.0)
        i = int(pair_rates.argmax())
        if pair_rates[i] > 0:
            candidates.append(((f(y[i : i + 1]) - f(x[i : i + 1])).norm() / chord[i].norm()).item())
        for part in (0.0, 0.5, 1.0):
            point = torch.lerp(x, y, part)
            rates, directions = _steepest_directions(f, point, chord, steps)
            candidates.append(_alone(f, point, directions, rates))
    return max(candidates)


def jacobian_norm(f: Callable[[Tensor], Tensor], x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n"]:
    """Largest singular value of the full Jacobian at each point, by SVD in float64: exact there, for small inputs.

    For a piecewise linear f it is the Lipschitz constant of the piece around each point; the largest of all points
    is a bound from below for f.

    Args:
        f: a module, of which a float64 copy is used, or a function that accepts float64.
        x: points; the Jacobian holds (outputs x inputs) numbers for each.
    """
    x = x.detach().double()
    if isinstance(f, nn.Module):
        f = copy.deepcopy(f).double().requires_grad_(False)
    norms = []
    for point in x.split(1):
        jacobian = torch.autograd.functional.jacobian(f, point, vectorize=True)
        norms.append(torch.linalg.matrix_norm(jacobian.reshape(-1, point.numel()), 2))
    return torch.stack(norms)


def _steepest_directions(f: Callable[[Tensor], Tensor], x: Tensor, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """|J v| (n,) and the unit v with it, for each example, after `steps` iterations v <- J^T J v."""
    direction = _unit(start)
    pull = vjp(f, x)[1]
    for step in range(steps):
        pushed = jvp(f, (x,), (direction,))[1]
        rates = _norms(pushed)
        if step + 1 < steps:
            moved = pull(pushed)[0]
            direction = torch.where(_along(_norms(moved) > 0, x), _unit(moved), direction)
    return rates, direction


def _alone(f: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor, rates: Tensor) -> float:
    """|J v| of the steepest example in a batch of its own, so that no other example can have contributed."""
    i = int(rates.argmax())
    only = direction[i : i + 1]
    return (jvp(f, (x[i : i + 1],), (only,))[1].norm() / only.norm().clamp_min(TINY)).item()


def _spread(
    f: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, search: int, limits: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Move x and y so that |f(x) - f(y)| / |x - y| grows; each example keeps its best pair."""
    best = (x, y)
    best_rates = torch.full((len(x),), -math.inf, dtype=x.dtype, device=x.device)
    length = _along(_norms(y - x).clamp_min(CLOSEST), x)
    for step in range(search + 1):
        x, y = x.detach().requires_grad_(), y.detach().requires_grad_()
        rates = (_norms(f(y) - f(x)) + TINY).log() - (_norms(y - x) + TINY).log()
        better = _along(rates.detach() > best_rates, x)
        best = torch.where(better, x.detach(), best[0]), torch.where(better, y.detach(), best[1])
        best_rates = torch.maximum(best_rates, rates.detach())
        if step == search or not rates.requires_grad:
            break
        pace = 0.3 * length * (1 - step / search)
        up = torch.autograd.grad(rates.sum(), (x, y))
        x, y = ((end + pace * _unit(slope)).clamp(*limits) for end, slope in zip((x, y), up, strict=True))
    return best


def _norms(x: Tensor) -> Tensor:
    """L2 norm of each example, (n,)."""
    return x.reshape(len(x), -1).norm(dim=1)


def _along(values: Tensor, like: Tensor) -> Tensor:
    """One value per example, (n,), with as many axes as `like`."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def _unit(x: Tensor) -> Tensor:
    return x / _along(_norms(x), x).clamp_min(TINY)
