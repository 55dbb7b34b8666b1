"""How far an embedding has to move before a decision or a distance changes: exact formulas, no network.

A network f that is 1-Lipschitz in L2 moves an embedding e = f(x) by at most |delta| when its image moves by delta. So a
distance in the space of embeddings, *not* normalised, is a distance in the space of images that is safe. Everything
here is about embeddings of shape (n, d), and exact there up to the rounding of their dtype (half precision is computed
in float32); :class:`~course_lib.certification.CertifiedMetric` divides by the network's Lipschitz constant and
subtracts a margin for rounding.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from course_lib.lipschitz.base import wide

Embeddings = Float[Tensor, "n d"]
Radii = Float[Tensor, "n"]
Reach = float | int | Tensor
KINDS = ("cosine", "euclidean")


def cosine_2afc_radius(e_ref: Embeddings, e_p0: Embeddings, e_p1: Embeddings) -> Radii:
    """Signed L2 radius around each reference within which its cosine 2AFC decision cannot change.

    Positive where p0 is closer in angle, negative where p1 is, 0 for a tie, and 0 where the embedding of p0 or p1 has
    no direction. The gradient is finite everywhere.

    Proof: with u = e / |e|, p0 is closer exactly where <e_ref, u_0 - u_1> > 0, for dividing by |e_ref| changes no
    sign. That is a half-space, whose boundary is |<e_ref, u_0 - u_1>| / |u_0 - u_1| away from e_ref.

    Source: this course; what Ghazanfari et al., LipSim, ICLR 2024, have instead is :func:`published_2afc_radius`.
    """
    e_ref, e_p0, e_p1 = _alike(e_ref, e_p0, e_p1)
    return _cosine_radius(e_ref, e_p0, e_p1)


def euclidean_2afc_radius(e_ref: Embeddings, e_p0: Embeddings, e_p1: Embeddings) -> Radii:
    """Signed L2 radius around each reference within which its Euclidean 2AFC decision cannot change.

    Positive where p0 is closer, negative where p1 is, 0 for a tie. The gradient is finite everywhere.

    Proof: p0 is closer on one side of the hyperplane that bisects the way from e_0 to e_1, and the signed distance of
    e_ref from it is (|e_ref - e_1|^2 - |e_ref - e_0|^2) / (2 |e_0 - e_1|).

    Source: this course; the same bisector as in nearest-neighbour classification.
    """
    e_ref, e_p0, e_p1 = _alike(e_ref, e_p0, e_p1)
    # |a|^2 - |b|^2 = <a + b, a - b>: two large squares would cancel
    return 0.5 * _dot((e_ref - e_p1) + (e_ref - e_p0), unit(e_p0 - e_p1))


def published_2afc_radius(e_ref: Embeddings, e_p0: Embeddings, e_p1: Embeddings, *, appended: bool = False) -> Radii:
    """The published cosine radius, <u_ref, u_0 - u_1> / |u_0 - u_1|: too large wherever |e_ref| < 1. For comparison.

    It normalises the reference, so it is :func:`cosine_2afc_radius` divided by |e_ref|, and a certificate **only where
    |f(x)| >= 1**, a condition that nothing in the network or its training ensures.

    Args:
        e_ref: embeddings of the references.
        e_p0: of the first candidates.
        e_p1: of the second candidates.
        appended: append a constant 1 to every embedding first, an option of the published code that is off by default.
            No norm is below 1 then, so the radius is sound; it speaks of the decision by the angle between the
            *longer* vectors, another metric.

    Source: Ghazanfari et al., LipSim, ICLR 2024, and its code, which normalises all three embeddings.
    """
    e_ref, e_p0, e_p1 = _alike(e_ref, e_p0, e_p1)
    if appended:
        e_ref, e_p0, e_p1 = (append_one(e) for e in (e_ref, e_p0, e_p1))
    return _cosine_radius(unit(e_ref), e_p0, e_p1)


def append_one(e: Embeddings) -> Float[Tensor, "n d_plus_1"]:
    """Embeddings with a constant 1 at the end, so that none is shorter than 1; distances stay, angles shrink."""
    return torch.cat([e, e.new_ones(len(e), 1)], 1)


class Counterexample(NamedTuple):
    """Embeddings, each (1, d), for which the published radius is a wrong promise.

    Attributes:
        e_ref, e_p0, e_p1: the decision is p0.
        e_moved: where the decision is p1, closer to e_ref than the published radius.
        claimed: the published radius.
        true: the exact one.
    """

    e_ref: Float[Tensor, "1 d"]
    e_p0: Float[Tensor, "1 d"]
    e_p1: Float[Tensor, "1 d"]
    e_moved: Float[Tensor, "1 d"]
    claimed: float
    true: float


def published_counterexample(length: float | int = 0.5, angle: float | int = 0.6) -> Counterexample:
    """A reference so short that its decision flips well inside the published radius, in the plane, float64.

    Args:
        length: of the reference's embedding, below 1; the claim is 1 / length times too large.
        angle: of the reference, in radians above the line between p0 and p1, in (0, pi / 2).

    Raises:
        ValueError: if they are not; the published formula is right there.
    """
    if not (0 < length < 1 and 0 < angle < math.pi / 2):
        raise ValueError(f"length is {length}, angle {angle}; use 0 < length < 1 and 0 < angle < pi / 2")
    above, below = (torch.tensor([[math.cos(s * 0.9), math.sin(s * 0.9)]], dtype=torch.float64) for s in (1, -1))
    e_ref = length * torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.float64)
    true, claimed = (f(e_ref, above, below).item() for f in (cosine_2afc_radius, published_2afc_radius))
    e_moved = e_ref.clone()
    e_moved[0, 1] -= 0.5 * (true + claimed)  # straight across the boundary, half way between the two radii
    return Counterexample(e_ref, above, below, e_moved, claimed, true)


def three_image_certified(
    e_ref: Embeddings,
    e_p0: Embeddings,
    e_p1: Embeddings,
    eps: float | int | Sequence[float | int],
    *,
    kind: str = "cosine",
) -> Bool[Tensor, "n"]:
    """Where no perturbation of all three images, each within its own L2 budget, can change the 2AFC decision.

    Args:
        e_ref: embeddings of the references.
        e_p0: of the first candidates.
        e_p1: of the second candidates.
        eps: one budget for each of the three, or three: (of the reference, of p0, of p1).
        kind: "cosine": |theta_1 - theta_0| > 2 a_ref + a_0 + a_1, theta the angles to the reference and
            a = arcsin(eps / |e|); "euclidean": |d_1 - d_0| > 2 eps_ref + eps_0 + eps_1.

    Proof: within eps a vector turns by at most arcsin(eps / |e|), and the angle between two directions is a metric; so
    theta_0 grows by at most a_ref + a_0 and theta_1 shrinks by at most a_ref + a_1. With eps >= |e| it may come to
    point anywhere, and nothing is certified. (arcsin(min(1, eps / |e|)) would say 90 degrees there: a bug.)

    Raises:
        ValueError: for a budget that is negative or not a number, not one or three of them, or an unknown kind.

    Source: this course; the triangle inequality.
    """
    check_kind(kind)
    return all_moved(_alike(e_ref, e_p0, e_p1), three_budgets(eps), kind)


def distance(e_x: Embeddings, e_y: Embeddings, kind: str = "euclidean") -> Radii:
    """|e_x - e_y|, or the cosine distance 1 - cos, in [0, 2]; its gradient is 0, not NaN, where the two are equal.

    The cosine distance is computed as |u_x - u_y|^2 / 2, which is the same and keeps its digits at small angles. A
    zero vector has no direction; its cosine distance to anything is 1.
    """
    check_kind(kind)
    e_x, e_y = _alike(e_x, e_y)
    if kind == "euclidean":
        return _length(e_x - e_y)
    nowhere = (_length(e_x) == 0) | (_length(e_y) == 0)
    return torch.where(nowhere, 1.0, 0.5 * (unit(e_x) - unit(e_y)).square().sum(1))


def distance_interval(
    e_x: Embeddings, e_y: Embeddings, eps: float | int, *, kind: str = "euclidean", both: bool = False
) -> tuple[Radii, Radii]:
    """Smallest and largest :func:`distance` that are possible when x, or with `both` also y, moves by up to eps.

    Euclidean: d - eps (but not below 0) and d + eps, with `both` 2 eps. Cosine: 1 - cos of the angle minus and plus
    arcsin(eps / |e|) of what moves, cut off at 0 and pi; all of [0, 2] where eps >= |e|, as the direction is lost.

    Proof: the triangle inequality, of vectors and of angles.

    Raises:
        ValueError: for an eps that is negative or not a number, or an unknown kind.

    Source: this course.
    """
    check_kind(kind)
    check_eps(eps)
    return moved_apart(_alike(e_x, e_y), (eps, eps if both else 0), kind)


def angle(x: Embeddings, y: Embeddings) -> Radii:
    """Angle between vectors, in [0, pi], accurate also near both ends, where arccos is not.

    Source: Kahan, How Futile are Mindless Assessments of Roundoff, 2006, section 12.
    """
    u, v = unit(x), unit(y)
    return 2 * torch.atan2(_length(u - v), _length(u + v))


def unit(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Scale to length 1, x / |x|; 0, with zero gradient, where x is 0 or smaller than the smallest normal number."""
    peak = x.detach().abs().amax(1, keepdim=True)
    some = ~(peak < torch.finfo(x.dtype).tiny)  # NaN stays NaN
    x = torch.where(some, x, 0) / torch.where(some, peak, 1)  # so that no square underflows
    return x / torch.where(some, torch.linalg.vector_norm(x, dim=1, keepdim=True), 1)


def check_kind(kind: str) -> None:
    """Raise ValueError unless the kind is "cosine" or "euclidean"."""
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; choose {' or '.join(KINDS)}")


def check_eps(eps: float | int) -> None:
    """Raise ValueError unless eps is a finite number, at least 0, in the units of pixel values from 0 to 1."""
    if not 0 <= eps < math.inf:
        raise ValueError(f"eps is {eps}; it has to be a number of pixel units from 0 on, such as 36 / 255")


def three_budgets(eps: float | int | Sequence[float | int]) -> list[float]:
    """Budgets of ref, p0 and p1 from one number or three. Raises ValueError if they make no sense."""
    budgets = [float(eps)] * 3 if isinstance(eps, (float, int)) else [float(one) for one in eps]
    if len(budgets) != 3:
        raise ValueError(f"eps has {len(budgets)} numbers; give one, or three: of the reference, of p0 and of p1")
    for budget in budgets:
        check_eps(budget)
    return budgets


def all_moved(embeddings: Sequence[Tensor], reach: Sequence[Reach], kind: str) -> Bool[Tensor, "n"]:
    """:func:`three_image_certified` for embeddings that move up to `reach`, one number for all or one for each."""
    e_ref, e_p0, e_p1 = embeddings
    if kind == "euclidean":
        gap = (_length(e_ref - e_p1) - _length(e_ref - e_p0)).abs()
        return gap > 2 * reach[0] + reach[1] + reach[2]
    gap = (angle(e_ref, e_p1) - angle(e_ref, e_p0)).abs()
    turns = [_largest_turn(e, r) for e, r in zip(embeddings, reach, strict=True)]
    (a_ref, kept_ref), (a_0, kept_0), (a_1, kept_1) = turns
    return kept_ref & kept_0 & kept_1 & (gap > 2 * a_ref + a_0 + a_1)


def moved_apart(embeddings: Sequence[Tensor], reach: Sequence[Reach], kind: str) -> tuple[Tensor, Tensor]:
    """:func:`distance_interval` for two embeddings that move up to `reach`, one number for all or one for each."""
    e_x, e_y = embeddings
    if kind == "euclidean":
        d, both = _length(e_x - e_y), reach[0] + reach[1]
        return (d - both).clamp_min(0), d + both
    (a_x, kept_x), (a_y, kept_y) = (_largest_turn(e, r) for e, r in zip(embeddings, reach, strict=True))
    theta, kept = angle(e_x, e_y), kept_x & kept_y
    low, high = (2 * torch.sin(t.clamp(0, math.pi) / 2).square() for t in (theta - a_x - a_y, theta + a_x + a_y))
    return torch.where(kept, low, 0), torch.where(kept, high, 2)


def _cosine_radius(e_ref: Tensor, e_p0: Tensor, e_p1: Tensor) -> Tensor:
    u_0, u_1 = unit(e_p0), unit(e_p1)
    nowhere = (_length(u_0) == 0) | (_length(u_1) == 0)
    return torch.where(nowhere, 0, _dot(e_ref, unit(u_0 - u_1)))


def _largest_turn(e: Tensor, reach: Reach) -> tuple[Tensor, Tensor]:
    """arcsin(reach / |e|), and where it holds because the vector cannot come to 0; elsewhere 0."""
    length = _length(e)
    kept = length > reach
    return torch.arcsin(torch.where(kept, reach / torch.where(kept, length, 1), 0)), kept


def _alike(*embeddings: Tensor) -> tuple[Tensor, ...]:
    first = embeddings[0]
    for e in embeddings:
        if e.ndim != 2 or e.shape != first.shape or not e.is_floating_point():
            found = ", ".join(f"{tuple(e.shape)} of {e.dtype}" for e in embeddings)
            raise ValueError(f"embeddings are {found}; give floating-point tensors of one shape (n, d)")
    return tuple(wide(e) for e in embeddings)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(1)


def _length(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=1)
