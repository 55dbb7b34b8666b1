"""Exercises 12.1 and 12.2: how far a reference has to move before a decision changes."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.checks import Mistake, exercise, expect_close
from course_lib.checks.certification.calling import embeddings, expect_exact, one_per_row

ROLES = ("e_ref", "e_p0", "e_p1")
SHAPES = ((12, 5, 1.0), (1, 2, 1.0), (4, 33, 7.0))  # n, d, typical length of an embedding


def _size(x: Tensor) -> Tensor:
    return x.norm(dim=1, keepdim=True)


def _unit(x: Tensor) -> Tensor:
    return x / _size(x)


def _cosine(x: Tensor, y: Tensor) -> Tensor:
    return (_unit(x) * _unit(y)).sum(1)


def _shortest(normals: Tensor, gaps: Tensor) -> Tensor:
    """Length (n,) of the shortest step along which <normal, step> makes up for the gap: least squares, row by row."""
    steps = [
        torch.linalg.lstsq(normal[None], gap.view(1, 1), driver="gelsd").solution.norm()
        for normal, gap in zip(normals, gaps, strict=True)
    ]
    return torch.stack(steps)


def _cosine_oracle(ref: Tensor, p0: Tensor, p1: Tensor) -> Tensor:
    """The shortest way to where both cosines are equal, in float64."""
    normal = _unit(p0) - _unit(p1)
    return _shortest(normal, -(ref * normal).sum(1)) * (_cosine(ref, p0) - _cosine(ref, p1)).sign()


def _euclidean_oracle(ref: Tensor, p0: Tensor, p1: Tensor) -> Tensor:
    """The shortest way to where both distances are equal, in float64."""
    d0, d1 = (ref - p0).square().sum(1), (ref - p1).square().sum(1)
    return _shortest(2 * (p1 - p0), d1 - d0) * (d1 - d0).sign()


def _swapped(formula: Callable[..., Tensor], triplet: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
    """What the formula gives when its arguments are taken for one another."""
    return {
        f"the arguments come as (e_ref, e_p0, e_p1), you took them for ({', '.join(ROLES[i] for i in order)})": formula(
            *(triplet[order.index(role)] for role in range(3))
        )
        for order in itertools.permutations(range(3))
        if order not in ((0, 1, 2), (0, 2, 1))
    }


def _expect_ties(attempt: Callable, formula: Callable[..., Tensor], triplet: tuple[Tensor, Tensor, Tensor]) -> None:
    """Raise :class:`Mistake` unless a triplet whose p0 and p1 are the same has radius 0, and the others keep theirs."""
    ref, p0, p1 = triplet
    p1 = p1.clone()
    p1[1] = p0[1]
    expected = formula(*(e[[0, 2, 3]] for e in (ref, p0, p1)))
    found = one_per_row(attempt, ref, p0, p1, n=4)
    if not found.isfinite().all():
        raise Mistake("NaN for a tie, p0 = p1: that is 0 / 0; divide by the length's .clamp_min(1e-12), and it is 0")
    if abs(found[1].item()) > 1e-9:
        raise Mistake(f"{found[1]:.3g} for a tie, p0 = p1, which any change may decide: its radius is 0")
    if not torch.allclose(found[[0, 2, 3]], expected, atol=1e-9):
        raise Mistake("one tie in the batch changes the radii of the others; each triplet is on its own")


@exercise("12.1")
def cosine_radius(attempt: Callable, random: torch.Generator) -> None:
    """Signed radius (n,) around a reference's embedding within which the cosine decision cannot change."""
    for n, d, scale in SHAPES:
        triplet = embeddings(random, n, d, scale)
        if n > 1:  # short directions, whose radius is as good as that of long ones
            triplet[1][0] *= 1e-3
        ref, p0, p1 = (e.float() for e in triplet)
        u, u0, u1 = map(_unit, (ref, p0, p1))
        expected = _cosine_oracle(*triplet)
        inner, apart = (ref * (u0 - u1)).sum(1), _size(u0 - u1)[:, 0]
        length = _size(ref)[:, 0]
        raw = (ref * (p0 - p1)).sum(1)
        direction = (u * (u0 - u1)).sum(1)
        d0, d1 = _size(ref - p0)[:, 0], _size(ref - p1)[:, 0]
        theta_0, theta_1 = (torch.acos(_cosine(ref, p).clamp(-1, 1)) for p in (p0, p1))
        found = one_per_row(attempt, ref, p0, p1, n=n)
        expect_close(
            found,
            expected.float(),
            {
                "you normalised e_ref: that is the published formula, too large wherever |e_ref| < 1; dividing by "
                "|e_ref| changes no decision, but it changes the radius": direction / apart,
                "the sign is missing: + where p0 is closer, - where p1 is": expected.abs().float(),
                "the sign is turned round: + where p0 is closer, that is where <e_ref, u_0> is the larger": (
                    -expected.float()
                ),
                "you normalised e_ref, and the sign is missing": (direction / apart).abs(),
                "you divided by |u_0| + |u_1|, which is 2: true, but needlessly small; divide by |u_0 - u_1|": inner
                / 2,
                "you divided by |u_0 + u_1|; the boundary is at right angles to u_0 - u_1": inner
                / _size(u0 + u1)[:, 0],
                "you divided by |e_0 - e_1|; the directions u_0 and u_1 decide, so divide by |u_0 - u_1|": (
                    inner / _size(p0 - p1)[:, 0]
                ),
                "p0 and p1 are not normalised: without that <e_ref, e_0 - e_1> is no decision about angles": [
                    raw / _size(p0 - p1)[:, 0],
                    raw / apart,
                    raw / 2,
                    raw,
                ],
                "nothing is normalised but e_ref; it is the other two that need it": [
                    (u * (p0 - p1)).sum(1) / _size(p0 - p1)[:, 0],
                    (u * (p0 - p1)).sum(1),
                ],
                "you did not divide by |u_0 - u_1|: that is the slope times the distance": inner,
                "that is the difference of the cosines, a slope in angle; multiply by |e_ref|, divide by |u_0 - u_1|": [
                    direction,
                    direction / 2,
                ],
                "you divided by the *squared* length of u_0 - u_1": inner / apart.square(),
                "you halved it; the 2 belongs to the Euclidean bisector": expected.float() / 2,
                "you multiplied by |e_ref| twice; <e_ref, u_0 - u_1> holds it already": inner * length / apart,
                "that is the Euclidean bisector; here the angle decides": _euclidean_oracle(*triplet).float(),
                "that is a difference of Euclidean distances; here the angle decides": [d1 - d0, (d1 - d0) / 2],
                "an angle is no distance: from theta to the boundary it is |e_ref| times a sine": [
                    theta_1 - theta_0,
                    (theta_1 - theta_0) / 2,
                    length * (theta_1 - theta_0) / 2,
                    length * torch.sin((theta_1 - theta_0) / 2),
                ],
                "you normalised over the batch; every embedding is a row: dim=1": [
                    (ref * step).sum(1) / step.norm(dim=1)
                    for step in (p0 / p0.norm(dim=0) - p1 / p1.norm(dim=0), p0 / p0.norm() - p1 / p1.norm())
                ],
                **{message: wrong.float() for message, wrong in _swapped(_cosine_oracle, triplet).items()},
                "radii are in the units of pixels in [0, 1]; leave out the 255": [
                    255 * expected.float(),
                    expected.float() / 255,
                ],
                "where p1 is closer the radius is negative, not 0": expected.clamp_min(0).float(),
            },
        )
        expect_exact(one_per_row(attempt, *triplet, n=n), expected)
    triplet = embeddings(random, 4, 6)
    _expect_ties(attempt, _cosine_oracle, triplet)
    longer = (triplet[0], triplet[1], triplet[1] * torch.tensor([[2.0], [2.0], [0.5], [4.0]]).double())
    found = one_per_row(attempt, *longer, n=4)
    if not found.isfinite().all() or found.abs().max() > 1e-9:
        raise Mistake(
            f"{found.abs().max():.3g} where p1 is p0 times a number: the same direction, so a tie, whose radius is 0"
        )


@exercise("12.2")
def euclidean_radius(attempt: Callable, random: torch.Generator) -> None:
    """Signed radius (n,) around a reference's embedding within which the Euclidean decision cannot change."""
    for n, d, scale in SHAPES:
        triplet = embeddings(random, n, d, scale)
        ref, p0, p1 = (e.float() for e in triplet)
        expected = _euclidean_oracle(*triplet)
        d0, d1, apart = (_size(x)[:, 0] for x in (ref - p0, ref - p1, p0 - p1))
        squares = d1.square() - d0.square()
        units = [_unit(e) for e in triplet]
        found = one_per_row(attempt, ref, p0, p1, n=n)
        expect_close(
            found,
            expected.float(),
            {
                "the factor 2 is missing, so twice too large: the boundary runs *midway* between e_0 and e_1": (
                    squares / apart
                ),
                "you divided by the *squared* |e_0 - e_1|; its length is what is asked for": [
                    squares / (2 * apart.square()),
                    squares / apart.square(),
                ],
                "(d1 - d0) / 2 is sound but loose: both distances change as fast only where the three lie in one line; "
                "the way to the bisector is (d1^2 - d0^2) / (2 |e_0 - e_1|)": (d1 - d0) / 2,
                "d1 - d0 forgets that both distances move: d0 grows *and* d1 shrinks": d1 - d0,
                "the sign is turned round: + where p0 is closer, d1^2 - d0^2": -expected.float(),
                "the sign is missing: + where p0 is closer, - where p1 is": expected.abs().float(),
                "(d1 - d0) / 2 is sound but loose, and it is turned round": (d0 - d1) / 2,
                "the distances under the fraction are not squared": [(d1 - d0) / (2 * apart), (d1 - d0) / apart],
                "you multiplied by 2 instead of dividing": [2 * squares / apart, squares * apart / 2],
                "you did not divide by |e_0 - e_1|": [squares / 2, squares],
                "you divided by |e_0| + |e_1|; the distance between the two, |e_0 - e_1|, is asked for": [
                    squares / (_size(p0) + _size(p1))[:, 0],
                    squares / (2 * (_size(p0) + _size(p1)))[:, 0],
                ],
                "you divided by |e_0 + e_1|; the distance between the two, |e_0 - e_1|, is asked for": [
                    squares / (2 * _size(p0 + p1)[:, 0]),
                    squares / _size(p0 + p1)[:, 0],
                ],
                "a mean instead of a sum: |e|^2 is the *sum* of squares": [
                    squares / d / (2 * apart),
                    squares / (2 * apart) * d**0.5,
                    squares / (2 * apart) / d**0.5,
                ],
                "that is the cosine radius; here the plain distance decides": _cosine_oracle(*triplet).float(),
                "the embeddings are normalised; their lengths count here": [
                    _euclidean_oracle(*units).float(),
                    _euclidean_oracle(units[0], triplet[1], triplet[2]).float(),
                    _euclidean_oracle(triplet[0], units[1], units[2]).float(),
                ],
                "that is how far the reference is from the *point* midway; the boundary is a plane": [
                    _size(ref - (p0 + p1) / 2)[:, 0],
                    _size(ref - (p0 + p1) / 2)[:, 0] * squares.sign(),
                ],
                "|e_1|^2 - |e_0|^2 alone is the bisector as seen from the origin; from e_ref subtract it first": (
                    (_size(p1)[:, 0].square() - _size(p0)[:, 0].square()) / (2 * apart)
                ),
                **{message: wrong.float() for message, wrong in _swapped(_euclidean_oracle, triplet).items()},
                "radii are in the units of pixels in [0, 1]; leave out the 255": [
                    255 * expected.float(),
                    expected.float() / 255,
                ],
                "where p1 is closer the radius is negative, not 0": expected.clamp_min(0).float(),
            },
        )
        expect_exact(one_per_row(attempt, *triplet, n=n), expected)
    _expect_ties(attempt, _euclidean_oracle, embeddings(random, 4, 6))
    ref, p0, p1 = embeddings(random, 4, 6)
    close = p0 + 1e-4 * (p1 - p0)
    expect_close(
        one_per_row(attempt, ref, p0, close, n=4),
        _euclidean_oracle(ref, p0, close),
        {
            "where p0 and p1 are close together the radius got smaller; what guards against 0 / 0 has to be tiny, such "
            "as .clamp_min(1e-12)": lambda found: bool((found.abs() < _euclidean_oracle(ref, p0, close).abs()).all())
        },
        atol=1e-6,
    )
