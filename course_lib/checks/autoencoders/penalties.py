"""Exercises 1.2 and 1.3: a target for how often units are on, and a price for codes that move."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from course_lib.checks import Mistake, exercise, expect_close
from course_lib.checks.autoencoders.calling import call, expect_gradient, gradient


def _kl(p: Tensor | float, q: Tensor | float) -> Tensor:
    p, q = torch.as_tensor(p), torch.as_tensor(q)
    return torch.xlogy(p, p / q) + torch.xlogy(1 - p, (1 - p) / (1 - q))


@exercise("1.2")
def kl_sparsity(attempt: Callable, random: torch.Generator) -> None:
    """sum_j KL(rho || mean of unit j over the batch), in nats; a number."""
    n, k = (int(torch.randint(5, 9, (), generator=random)) for _ in range(2))
    code = torch.randn(n, k + 4, generator=random).sigmoid()
    rho = 0.1 + 0.2 * torch.rand((), generator=random).item()
    mean = code.mean(0)
    bernoulli = torch.distributions.Bernoulli
    each = torch.distributions.kl_divergence(bernoulli(torch.full_like(mean, rho)), bernoulli(mean))
    true = each.sum()
    first, second = rho * (rho / mean).log(), (1 - rho) * ((1 - rho) / (1 - mean)).log()
    expect_close(
        call(attempt, code, rho),
        true,
        {
            "the arguments are swapped: KL(rho || rho_hat), so that rho stands in front of the logarithms": (
                _kl(mean, rho).sum()
            ),
            "KL of every single activation, then the mean: that forbids *any* unit to be on; first the mean over "
            "the batch, then KL": [_kl(rho, code).sum(1).mean(), _kl(rho, code).sum()],
            "you averaged over the units as well; sum over them, so that every unit pays in full": [
                each.mean(),
                _kl(rho, code).mean(),
            ],
            "you averaged over the units of each image; rho_hat is each unit's mean over the batch, dim 0": [
                _kl(rho, code.mean(1)).sum(),
                _kl(rho, code.mean(1)).mean(),
            ],
            "one mean over everything lets half of the units be dead; take each unit's mean over the batch": [
                _kl(rho, code.mean()),
                k * _kl(rho, code.mean()),
                (k + 4) * _kl(rho, code.mean()),
            ],
            "only half of it: units that are *off* count, too: (1 - rho) log((1 - rho) / (1 - rho_hat))": first.sum(),
            "only the half of the units that are off; rho log(rho / rho_hat) is missing": second.sum(),
            "the two terms are added": (first - second).sum(),
            "the sign is wrong: this is -KL; check which of the two is above in rho / rho_hat": -true,
            "you divided by the images once more; rho_hat is a mean already, and its prices are summed": true / n,
            "you took 0.05, whatever rho is": _kl(0.05, mean).sum(),
            "that is in bits; take the natural logarithm": true / torch.tensor(2.0).log(),
            "that is the cross-entropy; KL is 0 where rho_hat is rho: rho log(*rho* / rho_hat)": (
                -(rho * mean.log() + (1 - rho) * (1 - mean).log()).sum()
            ),
            "that is the squared difference of rho and rho_hat; the chapter's penalty is KL": (
                (rho - mean).square().sum()
            ),
            "that is L1 sparsity; KL compares each unit's mean with rho": code.sum(1).mean(),
            "one number for every unit; sum them": lambda found: found.shape == each.shape,
            "NaN, the log of a negative number; rho_hat is the *mean* of a unit, so between 0 and 1": (
                lambda found: bool(torch.as_tensor(found).isnan().any())
            ),
            "the ratio is inside the logarithm, log(rho / rho_hat)": [
                (rho * mean.log() / rho + (1 - rho) * (1 - mean).log() / (1 - rho)).sum(),
                (rho * (rho / mean) + (1 - rho) * ((1 - rho) / (1 - mean))).sum(),
            ],
        },
    )
    _expect_clamped(attempt, random)
    slope = gradient(attempt, (code, rho), 0)
    expect_gradient(slope, ((1 - rho) / (1 - mean) - rho / mean).expand_as(code) / n, what="code")


def _expect_clamped(attempt: Callable, random: torch.Generator) -> None:
    """The mean, and nothing else, is kept off 0 and 1."""
    rare = torch.full((4, 3), 1e-4)
    expect_close(
        call(attempt, rare, 0.05),
        3 * _kl(0.05, torch.tensor(1e-4)),
        {
            "right, but a unit that is rarely on pays too little: clamp rho_hat much closer to 0, at 1e-7": (
                lambda found: bool(torch.as_tensor(found) < 0.98 * 3 * _kl(0.05, torch.tensor(1e-4)))
            )
        },
        rtol=0.01,  # an epsilon that is added, not a limit, does no harm
    )
    code = torch.rand(6, 4, generator=random)
    # near 1 float32 has steps of 6e-8, so that clamping the code instead of its mean costs a few percent
    for value, where, tolerance in ((0.0, "is never on", 0.02), (1.0, "is always on", 0.1)):
        code[:, 1] = value
        found = torch.as_tensor(call(attempt, code, 0.1)).detach()
        if not found.isfinite().all():
            rounds = "; 1 - 1e-12 is 1 in float32" if value else ""
            raise Mistake(f"right, but NaN or infinite where a unit {where}: rho_hat.clamp(1e-7, 1 - 1e-7){rounds}")
        expected = _kl(0.1, code.mean(0).clamp(1e-7, 1 - 1e-7)).sum()
        if abs(found - expected) > tolerance * expected:
            raise Mistake(
                f"right, but {found:.3g} where a unit {where}, expected {expected:.3g}: rho_hat.clamp(1e-7, 1 - 1e-7)"
            )
        if not gradient(attempt, (code, 0.1), 0).isfinite().all():
            raise Mistake(f"right, but its gradient is NaN where a unit {where}; clamp rho_hat *before* the logarithms")


def _squared_jacobians(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(n,): |J|_F^2 at every row of x, in float64 by automatic differentiation."""

    def encode(row: Tensor) -> Tensor:
        return torch.sigmoid(weight.double() @ row + bias.double())

    rows = [torch.autograd.functional.jacobian(encode, row).square().sum() for row in x.double()]
    return torch.stack(rows).float()


def _formula(x: Tensor, weight: Tensor, bias: Tensor, cut: str = "") -> Tensor:
    """The penalty with one of its parts cut out of the gradient."""
    code = torch.sigmoid(x @ weight.T + bias)
    code = code.detach() if cut == "code" else code
    lengths = (weight.detach() if cut == "weight" else weight).square().sum(1)
    return ((code * (1 - code)).square() @ lengths).mean()


@exercise("1.3")
def contractive(attempt: Callable, random: torch.Generator) -> None:
    """|J|_F^2 of one sigmoid layer, averaged over the rows of x; a number."""
    n, k = 4, int(torch.randint(5, 8, (), generator=random))
    x, bias = torch.randn(n, k, generator=random), torch.randn(k, generator=random)
    weight = torch.randn(k, k, generator=random)  # square: no shape tells its axes apart
    each = _squared_jacobians(x, weight, bias)
    a = x @ weight.T + bias
    code, across = a.sigmoid(), (x @ weight + bias).sigmoid()
    unbiased = (x @ weight.T).sigmoid()
    slope, squares = code * (1 - code), weight.square()
    lengths = squares.sum(1)

    def penalty(slopes: Tensor) -> Tensor:
        return (slopes.square() @ lengths).mean()

    found = call(attempt, x, weight, bias)
    expect_close(
        found,
        each.mean(),
        {
            "wrong axis of W: unit j looks through *row* j, weight.square().sum(1)": (
                slope.square() @ squares.sum(0)
            ).mean(),
            "h (1 - h) is not squared": (slope @ lengths).mean(),
            "the weights are not squared: |W_j|^2 is the sum of the squares": [
                (slope.square() @ lengths.sqrt()).mean(),
                (slope.square() @ weight.abs().sum(1)).mean(),
                (slope.square() @ weight.sum(1)).mean(),
            ],
            "nothing is squared: it is the *squared* norm of the Jacobian": [
                (slope @ lengths.sqrt()).mean(),
                (slope @ weight.abs().sum(1)).mean(),
                (slope @ weight.sum(1)).mean(),
            ],
            "1 - h^2 is the derivative of tanh; a sigmoid's is h (1 - h)": [
                penalty(1 - code.square()),
                penalty(1 - a.tanh().square()),
            ],
            "you put W x + b into h (1 - h); put in h = sigmoid(W x + b)": penalty(a * (1 - a)),
            "you put the sigmoid through another sigmoid": penalty(code.sigmoid() * (1 - code.sigmoid())),
            "the derivative is h (1 - h); the (1 - h) is missing": penalty(code),
            "the derivative is h (1 - h); the h is missing": penalty(1 - code),
            "you averaged over the units; sum over them, and average over the images only": each.mean() / k,
            "you summed over the images; average over them": each.sum(),
            "you averaged h (1 - h) over the images before squaring: the mean comes last": [
                slope.mean(0).square() @ lengths,
            ],
            "you averaged over the images before the slope was taken: the mean comes last": [
                (averaged * (1 - averaged)).square() @ lengths for averaged in (code.mean(0), a.mean(0).sigmoid())
            ],
            "every unit pays for all of W; unit j pays for row j, weight.square().sum(1)": (
                slope.square().sum(1).mean() * squares.sum()
            ),
            "that is the norm; the penalty is its square": [each.mean().sqrt(), each.sqrt().mean()],
            "the square comes before the sum over the units, not after": (slope @ lengths).square().mean(),
            "that is the sum of all entries of the Jacobian, squared; square each entry, then sum": [
                (slope @ weight.sum(1)).square().mean(),
                (slope @ weight).sum(1).square().mean(),
                (slope @ weight).square().sum(1).mean(),
                (slope.square() @ weight.sum(1).square()).mean(),
            ],
            "that is weight decay; the slope of the sigmoid is missing": [squares.sum(), squares.sum() / 2],
            "the bias is missing": penalty(unbiased * (1 - unbiased)),
            "the encoder's weight is not transposed: W x of a row is x @ weight.T": penalty(across * (1 - across)),
            "one number for every image; average over them": each,
        },
    )
    inputs = torch.randn(5, 9, generator=random), torch.randn(4, 9, generator=random), torch.zeros(4)
    expect_close(call(attempt, *inputs), _squared_jacobians(*inputs).mean())
    expect_gradient(
        gradient(attempt, inputs, 1),
        gradient(_formula, inputs, 1),
        {
            "right, but the code is detached: its slope would never be trained": (
                gradient(partial(_formula, cut="code"), inputs, 1)
            ),
            "right, but the weights' lengths are detached: they would never shrink": (
                gradient(partial(_formula, cut="weight"), inputs, 1)
            ),
        },
    )
