"""Exercises 1.1 and 1.6: tied weights, and how weights start."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.checks import Mistake, exercise, expect_close, expect_shape
from course_lib.checks.autoencoders.calling import call, expect_gradient, gradient


def _tied(x: Tensor, weight: Tensor, bias: Tensor, out_bias: Tensor) -> Tensor:
    code = torch.sigmoid(torch.einsum("nd,kd->nk", x, weight) + bias)
    return torch.einsum("nk,kd->nd", code, weight) + out_bias


@exercise("1.1")
def tied(attempt: Callable, random: torch.Generator) -> None:
    """Reconstruction (n, d) of one sigmoid layer whose decoder is its encoder's weight, transposed."""
    n, k = (int(torch.randint(3, 7, (), generator=random)) for _ in range(2))
    x, weight = torch.randn(n, k, generator=random), torch.randn(k, k, generator=random)  # square: no shape helps
    b, c = torch.randn(2, k, generator=random)
    before = x @ weight.T + b
    code = before.sigmoid()
    true = code @ weight + c
    expect_close(
        call(attempt, x, weight, b, c),
        true,
        {
            "the decoder's weight is not transposed: back from a row of the code is code @ weight": code @ weight.T + c,
            "the encoder's weight is not transposed: W x of a row is x @ weight.T": [
                (x @ weight + b).sigmoid() @ weight.T + c,
                (x @ weight + b).sigmoid() @ weight + c,
            ],
            "you used the encoder's bias b again; the decoder has one of its own, c": code @ weight + b,
            "both biases are in the decoder; it has only c": code @ weight + b + c,
            "b and c are swapped": (x @ weight.T + c).sigmoid() @ weight + b,
            "the output is linear here; the sigmoid is the encoder's": true.sigmoid(),
            "the output is linear here; nothing is clamped": true.clamp(0, 1),
            "the sigmoid is missing from the code": [before @ weight + c, (before @ weight + c).sigmoid()],
            "the sigmoid comes after the bias: sigmoid(W x + b)": ((x @ weight.T).sigmoid() + b) @ weight + c,
            "the encoder's bias is missing": (x @ weight.T).sigmoid() @ weight + c,
            "the decoder's bias is missing": code @ weight,
            "the bias is added: W x + b": (x @ weight.T - b).sigmoid() @ weight + c,
            "you subtracted b from the code; only the weight is shared, not undone": (code - b) @ weight + c,
            "tied is transposed, not inverted: no inverse, no pinv": (
                code @ torch.linalg.inv(weight.double()).T.float() + c
            ),
            "you activated with tanh; the chapter's code is a sigmoid": before.tanh() @ weight + c,
            "you activated with relu; the chapter's code is a sigmoid": before.relu() @ weight + c,
            "you return the code; decode it": code,
        },
    )
    wide = torch.randn(n, 8, generator=random), torch.randn(3, 8, generator=random)
    inputs = *wide, torch.randn(3, generator=random), torch.randn(8, generator=random)
    expect_close(call(attempt, *inputs), _tied(*inputs))

    def halves(encoder: Tensor, decoder: Tensor) -> Tensor:
        return torch.sigmoid(inputs[0] @ encoder.T + inputs[2]) @ decoder + inputs[3]

    expect_gradient(
        gradient(attempt, inputs, 1),
        gradient(_tied, inputs, 1),
        {
            "right, but the decoder's weight is a copy without gradient; tied weights learn from both ends": (
                gradient(lambda w: halves(w, w.detach()), inputs[1:2], 0)
            ),
            "right, but the encoder's weight is a copy without gradient; tied weights learn from both ends": (
                gradient(lambda w: halves(w.detach(), w), inputs[1:2], 0)
            ),
        },
    )


@exercise("1.6")
def he_uniform(attempt: Callable, random: torch.Generator) -> None:
    """A weight of this shape, (out, in) or (out, in, k, k): uniform, with mean 0 and variance 2 / fan_in."""
    n_in = 60 + int(torch.randint(20, (), generator=random))
    n_out = 7 * n_in  # so that no two of the candidates' sizes are close
    _expect_uniform(attempt, (n_out, n_in), n_in, n_out)
    _expect_uniform(attempt, (n_in, n_out), n_out, n_in)
    taps = 5
    _expect_uniform(attempt, (70, 30, taps, taps), 30 * taps**2, 70 * taps**2)


def _expect_uniform(attempt: Callable, shape: tuple[int, ...], fan_in: int, fan_out: int) -> None:
    found = attempt(shape, torch.Generator().manual_seed(1))
    if isinstance(found, Tensor) and found.shape != shape and found.shape == (shape[1], shape[0], *shape[2:]):
        raise Mistake("the weight is transposed; its shape is (out, in), as in nn.Linear")
    expect_shape(found, shape)
    if found.dtype != torch.float32:
        raise Mistake(f"the weight is {found.dtype}; a layer's is torch.float32, which is what torch.rand draws")
    if not found.isfinite().all():
        raise Mistake("the weight contains NaN or infinity")
    if not torch.equal(attempt(shape, torch.Generator().manual_seed(1)), found):
        raise Mistake("two calls with the same seed differ; draw from `generator`: torch.rand(shape, generator=...)")
    if torch.equal(attempt(shape, torch.Generator().manual_seed(2)), found):
        raise Mistake("every seed gives the same weight; draw from the generator as it is, and do not seed it again")
    weight = found.detach().double()
    size, mean = weight.square().mean().sqrt().item(), weight.mean().item()
    if size == 0:
        raise Mistake("all weights are 0, so all units stay the same for ever; draw them at random")
    for axis in range(2):
        if torch.allclose(weight, weight.mean(axis, keepdim=True)):
            raise Mistake("some weights are copies of each other, so their units learn the same; draw each of them")
    if mean > 0.1 * size:
        raise Mistake("the mean is not 0: torch.rand is in [0, 1]; 2 * torch.rand(...) - 1 is in [-1, 1]")
    if mean < -0.1 * size:
        raise Mistake("the mean is below 0; a uniform weight is symmetric: 2 * torch.rand(...) - 1 is in [-1, 1]")
    right = math.sqrt(2 / fan_in)
    taps = math.prod(shape[2:])
    if weight.abs().max().item() > 1.9 * size:  # sqrt(3) for a uniform distribution
        if math.isclose(size, right, rel_tol=0.03):
            raise Mistake("the right variance, but not uniform; that is He's normal start: use torch.rand")
        raise Mistake("not uniform, and not of variance 2 / fan_in; is it torch.randn?")
    if weight.abs().max().item() < 1.65 * size:
        raise Mistake("not uniform: there are only weights of about the same size; use torch.rand")
    candidates = {
        "you used fan_out; what a unit sums up are its *inputs*: fan_in": math.sqrt(2 / fan_out),
        "the sqrt(3) is missing: a uniform variable in [-a, a] has deviation a / sqrt(3)": right / math.sqrt(3),
        "you took the variance for the standard deviation: the root of 2 / fan_in": 2 / fan_in,
        "you took the variance for the bound: the bound is sqrt(3 * variance)": 2 / fan_in / math.sqrt(3),
        "the root is missing: the bound is sqrt(6 / fan_in)": 6 / fan_in / math.sqrt(3),
        "the bound is sqrt(3) times the standard deviation, not 3 times": right * math.sqrt(3),
        "the bound is sqrt(3) times the standard deviation; you divided by sqrt(3)": right / 3,
        "that is Xavier's, 2 / (fan_in + fan_out); a relu needs 2 / fan_in": math.sqrt(2 / (fan_in + fan_out)),
        "the 2 is missing: a relu lets half of the signal through, and variance 2 / fan_in makes up for it": (
            math.sqrt(1 / fan_in)
        ),
        "that is PyTorch's own start, of variance 1 / (3 fan_in)": math.sqrt(1 / (3 * fan_in)),
        "you centred [0, 1] at 0 and did not double it, so the bound is halved: 2 * torch.rand(...) - 1": right / 2,
        "you multiplied by the root of fan_in; divide by it": math.sqrt(2 * fan_in),
    }
    if taps > 1:
        candidates |= {
            "right for matrices; a unit of a convolution sums in * k * k inputs, all of them are fan_in": (
                math.sqrt(2 * taps / fan_in)
            ),
            "right for matrices; of a convolution you left out one of the two sides of the kernel": (
                math.sqrt(2 * math.sqrt(taps) / fan_in)
            ),
        }
    for message, wrong in candidates.items():
        if not math.isclose(wrong, right, rel_tol=0.05) and math.isclose(size, wrong, rel_tol=0.03):
            raise Mistake(message)
    if not math.isclose(size, right, rel_tol=0.03):
        raise Mistake(f"the standard deviation for shape {shape} is {size:.4f}, expected {right:.4f}")
