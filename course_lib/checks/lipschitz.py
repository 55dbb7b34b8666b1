"""Checks of chapter 10's exercises: certificates, norms from below and above, layers that cannot move fast."""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.checks import Mistake, exercise, expect_close, expect_shape
from course_lib.data import digits
from course_lib.lipschitz.bounds import upper_bound

STEPS, BATCH, EPSILON, TARGET = 150, 128, 36 / 255, 0.89


def _call(attempt: Callable, *inputs: Any) -> Any:
    """What `attempt` makes of copies of the inputs, which it may not change."""
    copies = [value.clone() if isinstance(value, Tensor) else value for value in inputs]
    result = attempt(*copies)
    for value, copy in zip(inputs, copies, strict=True):
        if isinstance(value, Tensor) and not torch.equal(value, copy):
            raise Mistake("you changed an input in place, and the caller still needs it; work on a copy: .clone()")
    return result


def _number(actual: Any) -> float:
    """The number that an attempt returned, as a float or as a tensor or array of one element."""
    if actual is None:
        raise Mistake("your function returns nothing; did you forget `return`?")
    if isinstance(actual, Tensor):
        expect_shape(actual, () if actual.numel() != 1 else tuple(actual.shape), "return one number")
        if actual.is_complex():
            raise Mistake("your function returns a complex number; a norm is real: take .abs()")
        return actual.item()
    if not isinstance(actual, Real):
        raise Mistake(f"your function returns a {type(actual).__name__}; one number was expected")
    return float(actual)


def _near(value: float, other: float | Tensor, tolerance: float = 1e-4) -> bool:
    return math.isclose(value, float(other), rel_tol=tolerance, abs_tol=1e-9)


def _norm(matrix: Tensor) -> float:
    """Largest singular value, by a full SVD in float64."""
    return torch.linalg.svdvals(matrix.double())[0].item()


@exercise("10.1")
def certified_radius(attempt: Callable, random: torch.Generator) -> None:
    """Radius (n,) within which an L-Lipschitz classifier's right decision cannot change; 0 for a wrong one."""
    constant = 1.5 + torch.rand((), generator=random).item()
    logits = 3 * torch.randn(12, 5, generator=random)
    ordered, order = logits.sort(1, descending=True)
    labels = order[:, 0].clone()
    labels[::4], labels[1::4] = order[::4, 2], order[1::4, 1]  # wrong, by one place and by two
    right = order[:, 0] == labels
    own = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    unsigned = ordered[:, 0] - ordered[:, 1]
    margin = (own - others).clamp_min(0)
    scale = math.sqrt(2) * constant
    softmax = logits.softmax(1).sort(1, descending=True).values
    expect_close(
        _call(attempt, logits, labels, constant),
        margin / scale,
        {
            "you forgot sqrt(2): the *difference* of two logits moves up to sqrt(2) times as fast as the network": (
                margin / constant
            ),
            "you divided by 2: true, but needlessly small; the difference of two logits has constant sqrt(2) L": (
                margin / (2 * constant)
            ),
            "you multiplied by sqrt(2); divide by it": margin * math.sqrt(2) / constant,
            "the constant L is missing: a network twice as fast certifies half": margin / math.sqrt(2),
            "you multiplied by L; a faster network certifies *less*": margin * constant / math.sqrt(2),
            "L is not under the root: it is sqrt(2) * L": margin / math.sqrt(2 * constant),
            "a wrong prediction got a radius; there is nothing to certify, so it is 0": unsigned / scale,
            "the radius is negative where the prediction is wrong; clamp it at 0": (own - others) / scale,
            "reversed: the wrong predictions got a radius, and the right ones 0": (unsigned * ~right / scale),
            "you used probabilities; the certificate is about the logits, before the softmax": [
                (softmax[:, 0] - softmax[:, 1]) * right / scale,
                (softmax[:, 0] - softmax[:, 1]) / scale,
            ],
            "that is the margin over the *smallest* logit; the runner-up is the second largest": (
                (ordered[:, 0] - ordered[:, -1]) * right / scale
            ),
            "that is the top logit alone; subtract the runner-up": ordered[:, 0] * right / scale,
            "the wrong predictions were left out; each keeps its place, with radius 0": (margin / scale)[right],
            "you returned one number; every input has its own radius: shape (n,)": lambda found: found.numel() == 1,
        },
    )


class _Map:
    """A linear map and its transpose that know their shapes and say what was wrong with an argument."""

    def __init__(self, apply: Callable, start: Tensor, transpose: Callable):
        self._apply, self._transpose = apply, transpose
        self.start, self.calls = start, 0
        self._inside, self._outside = start.shape, apply(start).shape

    def apply(self, v: Tensor) -> Tensor:
        self.calls += 1
        if v.shape != self._inside and v.shape == self._outside:
            raise Mistake("you applied A to a result of A; what A gives goes into its transpose: transpose(apply(v))")
        expect_shape(v, tuple(self._inside), "this is what you gave to apply(v); v has the shape of `start`")
        return self._apply(v)

    def transpose(self, u: Tensor) -> Tensor:
        if u.shape != self._outside and u.shape == self._inside:
            raise Mistake("you gave v to the transpose; first A, then its transpose: transpose(apply(v))")
        expect_shape(u, tuple(self._outside), "this is what you gave to transpose(u); u has the shape of apply(v)")
        return self._transpose(u)


@exercise("10.2")
def power_iteration(attempt: Callable, random: torch.Generator) -> None:
    """Estimate from below of a linear map's norm, from A v and A^T u alone."""
    left = torch.linalg.qr(torch.randn(7, 5, generator=random)).Q
    right = torch.linalg.qr(torch.randn(5, 5, generator=random)).Q
    spectrum = torch.tensor([3.0, 2.2, 1.0, 0.5, 0.1])
    matrix = left @ torch.diag(spectrum) @ right.T
    start = torch.randn(5, generator=random) + right[:, 1] + 0.3 * right[:, 0]

    def run(linear: _Map, steps: int) -> float:
        value = _number(_call(attempt, linear.apply, linear.transpose, linear.start, steps))
        if linear.calls == 0:
            raise Mistake("your function never calls apply(v)")
        return value

    dense = _Map(lambda v: matrix @ v, start, lambda u: matrix.T @ u)
    value, norm = run(dense, 100), _norm(matrix)
    if not math.isfinite(value):
        raise Mistake("inf or NaN: v grows at every step; scale it back to length 1 each time")
    if not _near(value, norm):
        told = {
            "that is the square: A^T A stretches v by the *squared* norm; take the root, or return |A v|": norm**2,
            "that is the root of the norm: |A v| of a v of length 1 needs none": norm**0.5,
            "that is the length of v, which you made 1; return |A v|": 1.0,
            "that is the Frobenius norm, the root of *all* squared singular values": matrix.norm(),
            "you did not iterate: that is the stretch of `start`; repeat v = A^T A v `steps` times": (
                (matrix @ start).norm() / start.norm()
            ),
        }
        for message, wrong in told.items():
            if _near(value, wrong):
                raise Mistake(message)
        if value > norm:
            raise Mistake(
                f"{value:.4f} is above the norm {norm:.4f}, and no stretch is: v needs length 1, in L2, in |A v|"
            )
        raise Mistake(f"after 100 steps {value:.4f}, the norm is {norm:.4f}; does every step do v = A^T A v?")
    early = run(_Map(lambda v: matrix @ v, start, lambda u: matrix.T @ u), 1)
    if early > norm * (1 + 1e-5):
        raise Mistake(f"after 1 step {early:.4f} is above the norm {norm:.4f}; is v of length 1 when you take |A v|?")
    if _near(early, norm, 1e-5):
        raise Mistake("after 1 step the norm is there already; do exactly `steps` steps, so that callers can choose")

    kernel = torch.randn(3, 2, 3, 3, generator=random)
    image = torch.randn(1, 2, 5, 4, generator=random)
    whole = F.conv2d(torch.eye(40).view(40, 2, 5, 4), kernel, padding=1).flatten(1).T
    conv = _Map(lambda v: F.conv2d(v, kernel, padding=1), image, lambda u: F.conv_transpose2d(u, kernel, padding=1))
    value, norm = run(conv, 300), _norm(whole)
    if not _near(value, norm, 1e-3):
        raise Mistake(
            f"right for a matrix; but {value:.4f} for a convolution of norm {norm:.4f}: v is then (1, c, h, w), "
            "and its length is that of all its numbers together: v.norm()"
        )
    value = run(_Map(lambda v: 0 * matrix @ v, start, lambda u: 0 * matrix.T @ u), 3)
    if math.isnan(value):
        raise Mistake("NaN for A = 0, because of 0 / 0; divide by v.norm().clamp_min(1e-12)")
    if abs(value) > 1e-6:
        raise Mistake(f"{value:.4g} for A = 0, whose norm is 0")


def _aol_factors(weight: Tensor) -> Tensor:
    """(n,): d_i = (sum over j of |W^T W|_ij)^-1/2 in float64, by loops."""
    columns = weight.double().unbind(1)
    sums = [sum(abs(float(a @ b)) for b in columns) for a in columns]
    return torch.tensor([0.0 if total == 0 else total**-0.5 for total in sums])


@exercise("10.3")
def aol(attempt: Callable, random: torch.Generator) -> None:
    """W diag(d), the almost orthogonal rescaling of the columns of W; of norm at most 1."""
    weight = torch.randn(5, 5, generator=random) * torch.tensor([0.3, 1.0, 3.0, 0.5, 2.0]) + 0.2
    gram, rows = weight.T @ weight, (weight @ weight.T).abs().sum(1)
    sums = gram.abs().sum(1)
    d = _aol_factors(weight)
    signed = gram.sum(1).rsqrt() * weight
    expect_close(
        _call(attempt, weight),
        weight * d,
        {
            "you forgot the root: d is 1 / sqrt of the sum": weight / sums,
            "you multiplied by the root of the sum; divide by it": weight * sums.sqrt(),
            "you scaled the rows: W diag(d) scales *column* j by d_j": weight * d[:, None],
            "sums of W W^T on the columns: they belong to the rows; for columns use W^T W": weight / rows.sqrt(),
            "you rescaled the rows with W W^T: bounded too, but the exercise is about the columns, with W^T W": (
                weight / rows.sqrt()[:, None]
            ),
            "you summed W^T W with its signs; take the absolute value of every entry first": lambda found: (
                found.shape == signed.shape and torch.allclose(found, signed, rtol=1e-4, equal_nan=True)
            ),
            "the absolute value comes after the product: |W^T W|, not |W|^T |W|": (
                weight / (weight.abs().T @ weight.abs()).sum(1).sqrt()
            ),
            "you only used the diagonal of W^T W: columns of length 1, whose norm together can exceed 1": (
                weight / weight.norm(dim=0)
            ),
            "you divided by the Frobenius norm: bounded, but loose; give every column its own factor": (
                weight / weight.norm()
            ),
            "you divided by the largest singular value: bounded, but by an SVD; AOL needs only W^T W": (
                weight / _norm(weight)
            ),
            "one factor for the whole matrix: bounded, but loose; give every column its own": [
                weight / sums.max().sqrt(),
                weight / sums.sum().sqrt(),
            ],
            "you squared the entries of W^T W; sum their absolute values": weight / gram.norm(dim=1).sqrt(),
            "you return the factors d; return the rescaled matrix W diag(d)": [d, torch.diag(d)],
        },
    )
    tall = torch.randn(7, 4, generator=random)
    expect_close(_call(attempt, tall), tall * _aol_factors(tall))
    tall[:, 2] = 0
    found = _call(attempt, tall)
    if isinstance(found, Tensor) and not found.isfinite().all():
        raise Mistake("NaN for a column of zeros, because of 0 / 0; add .clamp_min(1e-12) to the sum, before the root")
    expect_close(found, tall * _aol_factors(tall))


def _sll_t(weight: Tensor, log_q: Tensor) -> Tensor:
    """(h,): T_i = sum over j of |W^T W|_ij q_j / q_i, by loops in float64."""
    columns, q = weight.double().unbind(1), log_q.double().exp().tolist()
    sums = [
        sum(abs(float(a @ b)) * r / own for b, r in zip(columns, q, strict=True))
        for a, own in zip(columns, q, strict=True)
    ]
    return torch.tensor(sums, dtype=torch.float64).to(weight)


@exercise("10.4")
def sll(attempt: Callable, random: torch.Generator) -> None:
    """Residual step x - 2 W T^-1 relu(W^T x + b) with SLL's T, (n, d) -> (n, d)."""
    x = 2 * torch.randn(3, 5, generator=random)
    weight, log_q = torch.randn(5, 5, generator=random), torch.randn(5, generator=random)
    bias = 0.5 * torch.randn(5, generator=random)
    gram, q = weight.T @ weight, log_q.exp()
    t = _sll_t(weight, log_q)
    other = weight @ weight.T

    def layer(t: Tensor, two: float = 2.0, w: Tensor = weight) -> Tensor:
        return x - two * ((x @ w + bias).relu() / t) @ w.T

    hidden = (x @ weight + bias).relu()
    ratio = q / q[:, None]
    expect_close(
        _call(attempt, x, weight, bias, log_q),
        layer(t),
        {
            "q_j / q_i is upside down, or you summed over the wrong axis: T_i sums over j and divides by q_i": (
                layer((gram.abs() / ratio).sum(1))
            ),
            "q cancels (q_i / q_i), as in the published convolution; q_j runs along the axis that is summed": (
                layer(gram.abs().sum(1))
            ),
            "you forgot to divide by q_i": layer((gram.abs() * q).sum(1)),
            "you forgot to multiply by q_j": layer((gram.abs() / q[:, None]).sum(1)),
            "you multiplied by q_i; divide by it": layer((gram.abs() * q).sum(1) * q),
            "log q is the *logarithm* of q: q_j / q_i = exp(log q_j - log q_i)": [
                layer((gram.abs() * (log_q / log_q[:, None])).sum(1)),
                layer((gram.abs() * (log_q - log_q[:, None])).sum(1)),
            ],
            "the 2 is missing: bounded too, but then the layer can never mirror, only shrink": layer(t, 1.0),
            "it is x *minus* 2 W T^-1 relu(...); with a plus the layer stretches": layer(t, -2.0),
            "the skip is missing: x - 2 W T^-1 relu(...)": layer(t) - x,
            "T comes from W W^T; it has to be W^T W, one entry per hidden unit": [
                layer((other.abs() * ratio).sum(1)),
                layer((other.abs() / ratio).sum(1)),
                layer(other.abs().sum(1)),
            ],
            "W and W^T are swapped: in a row of x, W^T x is x @ W, and the way back is @ W.T": [
                layer((other.abs() * ratio).sum(1), w=weight.T),
                layer(t, w=weight.T),
            ],
            "both products use W; the way back is the transpose": [x - 2 * (hidden / t) @ weight],
            "you summed W^T W with its signs; take the absolute value of every entry first": (
                layer((gram * ratio).sum(1))
            ),
            "the absolute value comes after the product: |W^T W|, not |W|^T |W|": (
                layer(((weight.abs().T @ weight.abs()) * ratio).sum(1))
            ),
            "you only used the diagonal of W^T W; T sums whole rows": layer(gram.diag()),
            "you divided by the root of T; that is AOL's. Here W stands on both sides, so it is T itself": (
                layer(t.sqrt())
            ),
            "you multiplied by T; divide by it": layer(1 / t),
            "the bias is missing": x - 2 * ((x @ weight).relu() / t) @ weight.T,
            "the bias belongs inside the relu": x - 2 * (((x @ weight).relu() + bias) / t) @ weight.T,
            "the relu is missing": x - 2 * ((x @ weight + bias) / t) @ weight.T,
        },
    )
    x, weight = torch.randn(2, 6, generator=random), torch.randn(6, 4, generator=random)
    bias, log_q = torch.randn(4, generator=random), 3 * torch.randn(4, generator=random)

    def formula(log_q: Tensor) -> Tensor:
        return x - 2 * ((x @ weight + bias).relu() / _sll_t(weight, log_q)) @ weight.T

    expect_close(_call(attempt, x, weight, bias, log_q), formula(log_q))
    huge = _call(attempt, x, weight, bias, torch.full((4,), 100.0))
    if not huge.isfinite().all() or torch.allclose(huge, x):
        raise Mistake("q = exp(100) overflows, though every ratio is 1; exp(log q_j - log q_i), *one* exponential")
    expect_close(huge, formula(torch.zeros(4)))
    x, weight, bias, log_q = (value.double() for value in (x, weight, bias, log_q))
    exact = _call(attempt, x, weight, bias, log_q)
    if exact.dtype != torch.float64 or not torch.allclose(exact, formula(log_q), rtol=1e-9, atol=1e-9):
        raise Mistake("right in float32, but float64 in gives something else; compute in the dtype of x")
    jacobian = torch.autograd.functional.jacobian(lambda row: attempt(row[None], weight, bias, log_q)[0], x[0])
    if not jacobian.any():
        raise Mistake("no gradient reaches x; leave out .detach(), torch.no_grad() and NumPy")


@exercise("10.5")
def group_sort(attempt: Callable, random: torch.Generator) -> None:
    """Sorts each group of consecutive channels, the smallest first; dense (n, c) and convolutional (n, c, h, w)."""
    x = torch.randn(4, 12, 4, 6, generator=random)
    chunks = torch.stack([part.sort(1).values for part in x.split(3, 1)], 1)
    expected = chunks.flatten(1, 2)
    strided = x.unflatten(1, (3, 4))
    actual = _call(attempt, x, 3)
    if isinstance(actual, tuple):
        raise Mistake("sort gives the values *and* where they were found; take .values")
    expect_close(
        actual,
        expected,
        {
            "you sorted along the width, not the channels: dim=1 is the channel axis": x.sort(3).values,
            "the groups are neighbouring *pixels*; split the channel axis only: x.unflatten(1, (-1, group))": (
                x.reshape(-1, 3).sort(1).values.view_as(x)
            ),
            "you sorted along the height, not the channels: dim=1 is the channel axis": x.sort(2).values,
            "you sorted over the batch: one image would change another's output; dim=1 is the channel axis": (
                x.sort(0).values
            ),
            "you sorted all channels together; sort each group of `group` channels alone": x.sort(1).values,
            "the largest comes first; bounded too, but the exercise asks for the smallest first": (
                chunks.flip(2).flatten(1, 2)
            ),
            "your groups hold distant channels (i and i + c / group); bounded too, but here they are *consecutive*: "
            "unflatten(1, (-1, group)), not (group, -1)": [
                strided.sort(1).values.flatten(1, 2),
                strided.sort(1, descending=True).values.flatten(1, 2),
            ],
            "you made `group` groups; make groups *of* `group` channels: unflatten(1, (-1, group))": (
                strided.sort(2).values.flatten(1, 2)
            ),
            "you sorted the order of the groups, not the channels inside each": (
                x.unflatten(1, (4, 3)).sort(1).values.flatten(1, 2)
            ),
            "the groups are still an axis of their own; flatten(1, 2) puts the channels together again": chunks,
            "you kept the largest of every group only; all its values stay, sorted": chunks[:, :, -1],
            "you sorted pairs whatever `group` says": torch.stack(
                [part.sort(1).values for part in x.split(2, 1)], 1
            ).flatten(1, 2),
            "you sorted the absolute values; sort the values": x.unflatten(1, (4, 3))
            .abs()
            .sort(2)
            .values.flatten(1, 2),
        },
    )
    dense = torch.randn(5, 8, generator=random)
    try:
        actual = _call(attempt, dense, 2)
    except (RuntimeError, IndexError, ValueError) as error:
        raise Mistake(
            f"right for (n, c, h, w), but not for a dense (n, c): {' '.join(str(error).split())[:120]}"
        ) from None
    expect_close(actual, torch.cat([part.sort(1).values for part in dense.split(2, 1)], 1))
    odd = torch.randn(2, 7, 2, 2, generator=random)
    try:
        actual = _call(attempt, odd, 2)
    except ValueError:
        return
    except NotImplementedError:
        raise
    except Exception as error:
        raise Mistake(
            f"7 channels in pairs end in a {type(error).__name__}; raise ValueError, and say how to fix it"
        ) from None
    raise Mistake("7 channels do not make pairs, but your function says nothing; raise ValueError if c % group")


def _slow_matrix(random: torch.Generator, size: int) -> Tensor:
    """Norm 1.3, with many singular values just below, so that power iteration needs hundreds of steps."""
    left, right = torch.linalg.qr(torch.randn(2, size, size, generator=random, dtype=torch.float64)).Q
    return (left * torch.linspace(1.3, 1.2, size, dtype=torch.float64) @ right).float()


def _bound_is(attempt: Callable, layers: list, expected: float, mistakes: dict[str, Any], where: str) -> None:
    value = _number(attempt(layers))
    if math.isnan(value):
        raise Mistake(f"NaN for {where}")
    if _near(value, expected):
        return
    for message, wrong in mistakes.items():
        if any(_near(value, one) for one in (wrong if isinstance(wrong, list) else [wrong])):
            raise Mistake(message)
    if value < expected:
        raise Mistake(f"{value:.4f} for {where}, below the bound {expected:.4f}: not certain for every input")
    raise Mistake(f"{value:.4f} for {where}: true, but looser than {expected:.4f}, which the rules above give")


@exercise("10.6")
def network_bound(attempt: Callable, random: torch.Generator) -> None:
    """Bound from above on the Lipschitz constant of a network that is described as a list."""
    a, b = torch.randn(6, 4, generator=random), torch.randn(5, 6, generator=random)
    c = 0.3 * torch.randn(4, 5, generator=random)
    a *= 0.5
    chain = [a, b, c]
    na, nb, nc = map(_norm, chain)
    product = na * nb * nc
    _bound_is(
        attempt,
        [("linear", a), ("relu",), ("linear", b), ("linear", c)],
        product,
        {
            "you added the layers' constants; one after the other they multiply": [
                na + nb + nc,
                na + nb + nc + 1,
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
            "the relu's constant is 1: where it is on, it lets everything through": [product / 2, 0.0],
        },
        "linear, relu, linear, linear",
    )
    slow = _slow_matrix(random, 40)
    value = _number(attempt([("linear", slow)]))
    if value < 1.3 * (1 - 1e-5):
        raise Mistake(
            f"{value:.4f} for a matrix of norm 1.3: power iteration approaches from *below*, so it bounds nothing; "
            "use an SVD: torch.linalg.matrix_norm(W, 2)"
        )
    weight = torch.randn(4, 4, generator=random)
    weight *= 0.8 / _norm(weight)
    norm, branch = _norm(weight), [("linear", weight), ("relu",)]
    for skip, scale, name in ((0.5, 0.5, "x/2 + f(x)/2"), (1.0, 1.0, "x + f(x)"), (0.5, -0.75, "x/2 - 3 f(x)/4")):
        _bound_is(
            attempt,
            [("residual", skip, scale, branch)],
            skip + abs(scale) * norm,
            {
                "you forgot the skip: skip * x moves as well, so |skip| is added": abs(scale) * norm,
                "you forgot the skip's factor: it is |skip| + |scale| * L": 1 + abs(scale) * norm,
                "you forgot the branch's factor: it is |skip| + |scale| * L": [skip + norm, 1 + norm],
                "a minus sign does not help: f can move against x, so it is |skip| + |scale| * L": [
                    skip + scale * norm,
                    abs(skip + scale * norm),
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
        (0.5 + 0.25 * (1 + 0.5 * norm) * na) * _norm(b.T[:4]),
        {},
        "a residual in a residual",
    )
    weight = torch.randn(6, 4, generator=random)
    t = _sll_t(weight, torch.zeros(4))
    gain = _norm(weight / t.sqrt()) ** 2
    separate = 2 * _norm(weight / t) * _norm(weight)
    for factor, name in ((1.0, "an SLL layer"), (0.25, "an SLL-like layer whose T is too small")):
        big = gain / factor
        _bound_is(
            attempt,
            [("sll", weight, factor * t)],
            max(1.0, 2 * big - 1),
            {
                "1 + 2 L(f) by the triangle inequality: true, but loose; W T^-1 W^T stands on both sides of the relu, "
                "so that the Jacobian is symmetric: max(1, 2 lambda - 1)": [
                    1 + 2 * big,
                    1 + separate / factor,
                    3.0,
                ],
                "2 lambda - 1 is below 1; but where every relu is off the layer is x: max(1, 2 lambda - 1)": [
                    2 * big - 1,
                    abs(2 * big - 1),
                ],
                "SLL layers are 1-Lipschitz *if* T is large enough; this T is a quarter of it, so compute lambda": 1.0,
                "you used the norm of W T^-1/2; lambda is its square": [
                    2 * big**0.5 - 1,
                    max(1.0, 2 * big**0.5 - 1),
                ],
                "the 2 is missing: the eigenvalues run from 1 - 2 lambda to 1": [max(1.0, big - 1), max(1.0, big)],
                "you took W / T, with its norm squared: T stands between W and W^T only once": [
                    max(1.0, 2 * _norm(weight / (factor * t)) ** 2 - 1)
                ],
                "T is missing: lambda is the largest eigenvalue of W T^-1 W^T": [max(1.0, 2 * _norm(weight) ** 2 - 1)],
            },
            name,
        )


def conv_matrix(kernel: Tensor, n: int) -> Tensor:
    """Matrix (o n n, i n n) of the zero-padded convolution of n x n images, entry by entry in float64."""
    o, i, k, _ = kernel.shape
    matrix = torch.zeros(o, n, n, i, n, n, dtype=torch.float64)
    for y, x, dy, dx in torch.cartesian_prod(*(torch.arange(s) for s in (n, n, k, k))).tolist():
        row, column = y + dy - k // 2, x + dx - k // 2
        if 0 <= row < n and 0 <= column < n:
            matrix[:, y, x, :, row, column] = kernel[:, :, dy, dx].double()
    return matrix.view(o * n * n, i * n * n)


def _torus(kernel: Tensor, size: int) -> float:
    """Norm of the circular convolution on size x size pixels, for a size of at least the kernel's."""
    spectrum = torch.fft.fft2(kernel.double(), s=(size, size))
    return torch.linalg.svdvals(spectrum.permute(2, 3, 0, 1)).max().item()


@exercise("10.7")
def conv_norm(attempt: Callable, random: torch.Generator) -> None:
    """Bound from above on the norm of a zero-padded convolution of n x n images."""
    for k, n, noise in ((3, 5, 0.2), (5, 7, 0.1)):
        signs = 1.0 - 2 * ((torch.arange(k)[:, None] + torch.arange(k)) % 2)
        mix = torch.randn(3, 2, 1, 1, generator=random)
        kernel = mix * signs + noise * torch.randn(3, 2, k, k, generator=random)
        value = _number(_call(attempt, kernel, n))
        true, wide = _norm(conv_matrix(kernel, n)), _torus(kernel, n + k - 1)
        highest = _torus(kernel, 96)
        taps = sum(_norm(tap) for tap in kernel.flatten(2).unbind(2))
        spectrum = torch.fft.fft2(kernel.double(), s=(n + k - 1, n + k - 1))
        own = _torus(kernel, n)
        if not math.isfinite(value):
            raise Mistake("the result is not finite; a norm is")
        told: dict[str, list[float]] = {
            "the FFT was on the image's own n x n grid: that is circular padding, and below the norm with zero "
            f"padding ({own:.3f} < {true:.3f}); take n + k - 1": [own],
            "the norm of the reshaped kernel bounds nothing: a pixel takes part in k * k windows": [
                _norm(kernel.flatten(1)),
                _norm(kernel.transpose(0, 1).flatten(1)),
            ],
            "the FFT was on the k x k grid of the kernel; take n + k - 1, where nothing wraps around": [
                _torus(kernel, k)
            ],
            "you took the largest entry of the spectrum; at each frequency there is a *matrix*: its largest "
            "singular value": [spectrum.abs().max().item()],
            "that is the Frobenius norm of each frequency's matrix: true, but loose; take its largest singular value": [
                spectrum.abs().square().sum((0, 1)).max().sqrt().item()
            ],
            "the singular values ran over the two frequencies; permute(2, 3, 0, 1) brings the channels last": [
                torch.linalg.svdvals(spectrum).max().item(),
            ],
            "you transformed the channels; the FFT runs over the last two axes, the pixels": [
                torch.linalg.svdvals(torch.fft.fft2(kernel.double(), dim=(0, 1)).permute(2, 3, 0, 1)).max().item()
            ],
            "the sum over the taps is true for every size, but loose; the FFT gives less": [taps],
            "that is the sum of all squares: true after multiplying by k only; take the FFT": [kernel.norm().item()],
            "that is the squared norm; take the root of the largest eigenvalue of K* K": [wide**2, true**2],
        }
        for message, wrong in told.items():
            if any(_near(value, one) for one in wrong):
                raise Mistake(message)
        if value < true * (1 - 1e-5):
            raise Mistake(
                f"{value:.4f} is below the norm {true:.4f}, which the SVD of the whole matrix gives: an estimate from "
                "below is no bound"
            )
        if value > 1.02 * max(wide, highest):
            raise Mistake(f"{value:.4f} is true, but loose: the torus of n + k - 1 gives {wide:.4f}")


def fit(network: nn.Module, steps: int = STEPS) -> nn.Module:
    """Train a classifier of digits in place, the same way for everybody, and return it in evaluation mode.

    Adam over `steps` batches of 128 of the 4,000 training digits, on cross-entropy of the logits after 0.4 was taken
    from the right one (so that right answers go on growing their margin) and everything multiplied by 8.

    Args:
        network: (n, 1, 28, 28) in [0, 1] -> (n, 10).
        steps: how many.
    """
    images, labels = digits.load("train")
    random = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    network.train()
    for _ in range(steps):
        batch = torch.randint(len(images), (BATCH,), generator=random)
        logits = network(images[batch].float() / 255) - 0.4 * F.one_hot(labels[batch], 10)
        optimizer.zero_grad()
        F.cross_entropy(8 * logits, labels[batch]).backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def radii(network: nn.Module) -> Tensor:
    """Certified radius (500,) of each test digit, 0 where the prediction is wrong, of a 1-Lipschitz classifier."""
    images, labels = digits.load("test")
    with torch.no_grad():
        logits = network(images.float() / 255)
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(1, keepdim=True)
    return ((own - others).clamp_min(0) / math.sqrt(2)).squeeze(1)


@exercise("10.8")
def classifier(attempt: Callable, random: torch.Generator) -> None:
    """Open-ended: a 1-Lipschitz network for the digits, trained by :func:`fit`, that certifies many of them."""
    network = attempt()
    if network is None:
        raise Mistake("your function returns nothing; did you forget `return`?")
    if not isinstance(network, nn.Module):
        raise Mistake(f"your function returns a {type(network).__name__}; return a network, such as nn.Sequential(...)")
    images = digits.load("train")[0][:5].float() / 255
    network.train()
    with torch.no_grad():
        expect_shape(network(images), (5, 10), "one logit per digit")
        if not torch.equal(network(images), network(images)):
            raise Mistake("the same digits give different logits: no dropout, no noise, in training neither")
    if not any(p.requires_grad for p in network.parameters()):
        raise Mistake("the network has no parameters to train")
    _expect_slow(network.eval(), images, "")
    fit(network)
    _expect_slow(network, images, " after training")
    certified = (radii(network) > EPSILON).double().mean().item()
    if certified < TARGET:
        raise Mistake(
            f"1-Lipschitz, but only {certified:.0%} of the test digits are certified at 36/255 after {STEPS} steps; "
            f"reach {TARGET:.0%}"
        )


def _expect_slow(network: nn.Module, images: Tensor, when: str) -> None:
    try:
        bound = upper_bound(network)
    except (TypeError, ValueError) as error:
        raise Mistake(f"no bound from above: {' '.join(str(error).split())}") from None
    if bound > 1 + 1e-5:
        raise Mistake(
            f"the bound from above is {bound:.3g}{when}, so it is not 1-Lipschitz; use layers whose bound is 1"
        )
    jacobians = [torch.autograd.functional.jacobian(lambda x: network(x)[0], image[None]) for image in images]
    fastest = max(_norm(jacobian.reshape(10, -1)) for jacobian in jacobians)
    if fastest > max(bound, 0) * (1 + 1e-4):
        raise Mistake(
            f"upper_bound() of the network says {bound:.3g}, but at a digit it moves by {fastest:.3g}{when}; "
            "a bound has to be true"
        )
