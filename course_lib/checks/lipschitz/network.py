"""Exercise 10.6: a bound for a whole network."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course_lib.checks import Mistake, exercise
from course_lib.checks.lipschitz.calling import near, one_number, spectral_norm
from course_lib.checks.lipschitz.layers import sll_t


def _slow_matrix(random: torch.Generator, size: int) -> Tensor:
    """Norm 1.3, with many singular values just below, so that power iteration needs hundreds of steps."""
    left, right = torch.linalg.qr(torch.randn(2, size, size, generator=random, dtype=torch.float64)).Q
    return (left * torch.linspace(1.3, 1.2, size, dtype=torch.float64) @ right).float()


def _bound_is(attempt: Callable, layers: list, expected: float, mistakes: dict[str, Any], where: str) -> None:
    value = one_number(attempt(layers))
    if math.isnan(value):
        raise Mistake(f"NaN for {where}")
    if near(value, expected):
        return
    for message, wrong in mistakes.items():
        if any(near(value, one) for one in (wrong if isinstance(wrong, list) else [wrong])):
            raise Mistake(message)
    if value < expected:
        raise Mistake(f"{value:.4f} for {where}, below the bound {expected:.4f}: not certain for every input")
    raise Mistake(f"{value:.4f} for {where}: true, but looser than {expected:.4f}, which the rules above give")


def _sll_mistakes(weight: Tensor, t: Tensor) -> dict[str, list[float]]:
    gain = spectral_norm(weight / t.sqrt()) ** 2
    both = spectral_norm(weight / t)
    return {
        "1 + 2 L(f) by the triangle inequality: true, but loose; W T^-1 W^T stands on both sides of the relu, "
        "so that the Jacobian is symmetric: max(1, 2 lambda - 1)": [
            1 + 2 * gain,
            1 + 2 * both * spectral_norm(weight),
            3.0,
        ],
        "2 lambda - 1 is below 1; but where every relu is off the layer is x: max(1, 2 lambda - 1)": [
            2 * gain - 1,
            abs(2 * gain - 1),
        ],
        "SLL layers are 1-Lipschitz *if* T is large enough; this T is a quarter of it, so compute lambda, the "
        "largest eigenvalue": [1.0],
        "you used the norm of W T^-1/2; lambda is its square": [2 * gain**0.5 - 1, max(1.0, 2 * gain**0.5 - 1)],
        "the 2 is missing: the eigenvalues run from 1 - 2 lambda to 1": [max(1.0, gain - 1), max(1.0, gain)],
        "you took W / T; T stands between W and W^T only once, so lambda is the squared norm of W / T.sqrt()": [
            max(1.0, 2 * both**2 - 1),
            max(1.0, 2 * both - 1),
        ],
        "T is missing: lambda is the largest eigenvalue of W T^-1 W^T": [max(1.0, 2 * spectral_norm(weight) ** 2 - 1)],
    }


@exercise("10.6")
def network_bound(attempt: Callable, random: torch.Generator) -> None:
    """Bound from above on the Lipschitz constant of a network that is described as a list."""
    a, b = torch.randn(6, 4, generator=random), torch.randn(5, 6, generator=random)
    c = 0.3 * torch.randn(4, 5, generator=random)
    a *= 0.5
    chain = [a, b, c]
    na, nb, nc = map(spectral_norm, chain)
    product = na * nb * nc
    _bound_is(
        attempt,
        [("linear", a), ("relu",), ("linear", b), ("linear", c)],
        product,
        {
            "you added the layers' constants; one after the other they multiply": [
                na + nb + nc + more for more in (0, 1, 2)
            ],
            "you took the largest constant; one after the other they multiply": nb,
            "you used Frobenius norms: true, but loose; the largest singular value is what counts": [
                math.prod(w.norm().item() for w in chain)
            ],
            "you used the largest entry; a matrix's constant is its largest singular value": [
                math.prod(w.abs().max().item() for w in chain)
            ],
            "you used the largest row sum; in L2 a matrix's constant is its largest singular value": [
                math.prod(w.abs().sum(axis).max().item() for w in chain) for axis in (0, 1)
            ],
            "only the first layer is in it; did you return inside the loop?": na,
            "only the last layer is in it; multiply the constants": nc,
            "the relu's constant is 1: where it is on, it lets everything through": product / 2,
            "0: a product begins with 1, and the relu's constant is 1": 0.0,
        },
        "linear, relu, linear, linear",
    )
    slow = _slow_matrix(random, 40)
    value = one_number(attempt([("linear", slow)]))
    if value < 1.3 * (1 - 1e-5):
        raise Mistake(
            f"{value:.4f} for a matrix of norm 1.3: power iteration approaches from *below*, so it bounds nothing; "
            "use an SVD: torch.linalg.matrix_norm(W, 2)"
        )
    weight = torch.randn(4, 4, generator=random)
    weight *= 0.8 / spectral_norm(weight)
    norm, branch = spectral_norm(weight), [("linear", weight), ("relu",)]
    for skip, scale, name in (
        (0.5, 0.5, "x/2 + f(x)/2"),
        (1.0, 1.0, "x + f(x)"),
        (0.5, -0.75, "x/2 - 3 f(x)/4"),
        (-0.5, 0.8, "-x/2 + 0.8 f(x)"),
    ):
        _bound_is(
            attempt,
            [("residual", skip, scale, branch)],
            abs(skip) + abs(scale) * norm,
            {
                "you forgot the skip: skip * x moves as well, so |skip| is added": abs(scale) * norm,
                "you forgot the skip's factor: it is |skip| + |scale| * L": 1 + abs(scale) * norm,
                "you forgot the branch's factor: it is |skip| + |scale| * L": [skip + norm, 1 + norm],
                "a minus sign before x does not help either: it is |skip| + |scale| * L": skip + abs(scale) * norm,
                "a minus sign does not help: f can move against x, so it is |skip| + |scale| * L": [
                    skip + scale * norm,
                    abs(skip + scale * norm),
                    abs(skip) + scale * norm,
                    abs(abs(skip) - abs(scale) * norm),
                ],
                "you took the larger of skip and branch; they can move the same way, so add": (
                    max(skip, abs(scale) * norm)
                ),
                "you multiplied skip and branch; they stand side by side, so add": [
                    skip * norm * abs(scale),
                    skip * norm * scale,
                ],
                "skip and branch are not at right angles; add them, without squares": [
                    math.hypot(skip, scale * norm),
                    math.hypot(1, norm),
                ],
                "residuals are left out; they are layers as well": 1.0,
            },
            name,
        )
    inner = [("residual", 1.0, 0.5, branch), ("linear", a)]
    _bound_is(
        attempt,
        [("residual", 0.5, 0.25, inner), ("linear", b.T[:4])],
        (0.5 + 0.25 * (1 + 0.5 * norm) * na) * spectral_norm(b.T[:4]),
        {},
        "a residual in a residual",
    )
    weight = torch.randn(6, 4, generator=random)
    t = sll_t(weight, torch.zeros(4))
    for factor, name in ((1.0, "an SLL layer"), (0.25, "an SLL-like layer whose T is too small")):
        big = spectral_norm(weight / (factor * t).sqrt()) ** 2
        _bound_is(
            attempt, [("sll", weight, factor * t)], max(1.0, 2 * big - 1), _sll_mistakes(weight, factor * t), name
        )
    wide = torch.randn(4, 6, generator=random)
    t = sll_t(wide, torch.zeros(6))
    _bound_is(
        attempt,
        [("sll", wide, t)],
        1.0,
        {
            "that is the Jacobian with every relu on; where all are off the layer is x: max(1, 2 lambda - 1)": (
                spectral_norm(torch.eye(4) - 2 * (wide / t) @ wide.T)
            ),
            **_sll_mistakes(wide, t),
        },
        "an SLL layer with more hidden units than features",
    )
