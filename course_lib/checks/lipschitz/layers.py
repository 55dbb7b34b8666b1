"""Exercises 10.3 to 10.5: layers that cannot move fast."""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.checks import Mistake, exercise, expect_close
from course_lib.checks.autoencoders.calling import call
from course_lib.checks.lipschitz.calling import spectral_norm


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
        call(attempt, weight),
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
                weight / spectral_norm(weight)
            ),
            "one factor for the whole matrix: bounded, but loose; give every column its own": [
                weight / sums.max().sqrt(),
                weight / sums.sum().sqrt(),
            ],
            "you squared the entries of W^T W; sum their absolute values": weight / gram.norm(dim=1).sqrt(),
            "you took the mean of |W^T W|_ij over j; take the sum": weight / gram.abs().mean(1).sqrt(),
            "you return the transpose; the shape of W stays": (weight * d).T,
            "you return the factors d; return the rescaled matrix W diag(d)": [d, torch.diag(d)],
        },
    )
    tall = torch.randn(7, 4, generator=random)
    expect_close(call(attempt, tall), tall * _aol_factors(tall))
    expect_close(
        call(attempt, 0.1 * tall),
        tall * _aol_factors(tall),
        {
            "right, but not for small W, which d makes *larger*: clamp the sum at 1e-12, not at 1": lambda found: (
                found.shape == tall.shape
                and bool((found.norm(dim=0) < 0.9 * (tall * _aol_factors(tall)).norm(dim=0)).any())
            )
        },
    )
    tall[:, 2] = 0
    found = call(attempt, tall)
    if isinstance(found, Tensor) and not found.isfinite().all():
        raise Mistake("NaN for a column of zeros, because of 0 / 0; add .clamp_min(1e-12) to the sum, before the root")
    expect_close(found, tall * _aol_factors(tall))


def sll_t(weight: Tensor, log_q: Tensor) -> Tensor:
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
    t = sll_t(weight, log_q)
    other = weight @ weight.T

    def layer(t: Tensor, two: float = 2.0, w: Tensor = weight) -> Tensor:
        return x - two * ((x @ w + bias).relu() / t) @ w.T

    hidden = (x @ weight + bias).relu()
    ratio = q / q[:, None]
    expect_close(
        call(attempt, x, weight, bias, log_q),
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
            "the absolute value comes before the sum: each |W^T W|_ij, then the sum over j": (
                layer((gram * ratio).sum(1).abs())
            ),
            "you summed |W^T W| and the ratios apart; multiply entry by entry, then sum over j": [
                layer(gram.abs().sum(1) * ratio.sum(1)),
                layer((gram.abs() @ ratio).sum(1)),
                layer((ratio @ gram.abs()).sum(1)),
            ],
            "you gave each W a root of T: the relu sees W^T x + b, before T; divide what comes out by T": (
                x - 2 * ((x @ (weight / t.sqrt()) + bias).relu() / t.sqrt()) @ weight.T
            ),
            "the bias is added: W^T x + b": x - 2 * ((x @ weight - bias).relu() / t) @ weight.T,
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
        return x - 2 * ((x @ weight + bias).relu() / sll_t(weight, log_q)) @ weight.T

    expect_close(call(attempt, x, weight, bias, log_q), formula(log_q))
    huge = call(attempt, x, weight, bias, torch.full((4,), 100.0))
    if not huge.isfinite().all() or torch.allclose(huge, x):
        raise Mistake("q = exp(100) overflows, though every ratio is 1; exp(log q_j - log q_i), *one* exponential")
    expect_close(huge, formula(torch.zeros(4)))
    x, weight, bias, log_q = (value.double() for value in (x, weight, bias, log_q))
    exact = call(attempt, x, weight, bias, log_q)
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
    actual = call(attempt, x, 3)
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
            "that is MaxMin of two halves; the groups are of *consecutive* channels, and of `group` of them": [
                torch.cat((torch.minimum(*x.chunk(2, 1)), torch.maximum(*x.chunk(2, 1))), 1),
                torch.cat((torch.maximum(*x.chunk(2, 1)), torch.minimum(*x.chunk(2, 1))), 1),
            ],
            "sorted, but not put back in place: the groups stay one after the other, each sorted": (
                chunks.transpose(1, 2).flatten(1, 2)
            ),
            "those are the places that the values came from; sort(...) gives (values, places)": (
                x.unflatten(1, (4, 3)).argsort(2).flatten(1, 2)
            ),
            "you sorted the absolute values; sort the values": x.unflatten(1, (4, 3))
            .abs()
            .sort(2)
            .values.flatten(1, 2),
        },
    )
    dense = torch.randn(5, 8, generator=random)
    try:
        actual = call(attempt, dense, 2)
    except (RuntimeError, IndexError, ValueError) as error:
        raise Mistake(
            f"right for (n, c, h, w), but not for a dense (n, c): {' '.join(str(error).split())[:120]}"
        ) from None
    expect_close(actual, torch.cat([part.sort(1).values for part in dense.split(2, 1)], 1))
    odd = torch.randn(2, 7, 2, 2, generator=random)
    try:
        actual = call(attempt, odd, 2)
    except ValueError:
        return
    except NotImplementedError:
        raise
    except Exception as error:
        raise Mistake(
            f"7 channels in pairs end in a {type(error).__name__}; raise ValueError, and say how to fix it"
        ) from None
    raise Mistake("7 channels do not make pairs, but your function says nothing; raise ValueError if c % group")
