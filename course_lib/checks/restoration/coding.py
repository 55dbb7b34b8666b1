"""Exercises 2.5 and 2.6: rounding that can be trained, and what the rounded numbers cost."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from course_lib.checks import Mistake, exercise, expect_close
from course_lib.checks.autoencoders.calling import call, gradient

RAREST = 2.0**-30


@exercise("2.5")
def quantise(attempt: Callable, random: torch.Generator) -> None:
    """The nearest multiple of step, whose gradient is 1."""
    x = 3 * torch.randn(7, int(torch.randint(8, 12, (), generator=random)), generator=random)
    for step in (0.4, 1.7):
        whole = (x / step).round()
        expect_close(
            call(attempt, x, step),
            whole * step,
            {
                "that is x itself: what is added and subtracted again cancels in the values, too": x,
                "those are the whole numbers; multiply them by step again": whole,
                "you rounded to whole numbers, whatever step is: divide by step, round, multiply": x.round(),
                "you multiplied by step before rounding, and divided after it; it is the other way round": (
                    (x * step).round() / step
                ),
                "you divided by step, and never multiplied again, or the reverse": [x.round() * step, x.round() / step],
                "that is floor, always downwards; round to the *nearest*": (x / step).floor() * step,
                "that is ceil, always upwards; round to the *nearest*": (x / step).ceil() * step,
                "that cuts off what follows the point; round to the *nearest*": (x / step).trunc() * step,
                "x is added twice: x plus the rounding *error*, rounded - x": whole * step + x,
                "that is the rounding error; add it to x": [whole * step - x, x - whole * step],
                "that has noise in the place of rounding; the decoder of a file sees rounded numbers": (
                    partial(_differs_by_chance, attempt, x, step)
                ),
            },
        )
        _expect_straight(attempt, x, step)
    scale = torch.linspace(-1, 2, x.shape[1])
    slope = gradient(lambda values: scale * attempt(values, 0.4), (x,), 0)
    if not torch.allclose(slope, scale.expand_as(x), atol=1e-5):
        raise Mistake("right, but what comes from behind is lost: the gradient is multiplied by 1, not set to 1")


def _differs_by_chance(attempt: Callable, x: Tensor, step: float, found: Tensor) -> bool:
    near = found.shape == x.shape and bool((found - x).abs().max() < 0.501 * step)
    return near and not torch.equal(call(attempt, x, step), found)


def _expect_straight(attempt: Callable, x: Tensor, step: float) -> None:
    slope = gradient(attempt, (x, step), 0)
    if torch.allclose(slope, torch.ones_like(x), atol=1e-5):
        return
    kinds = {
        "right, but the gradient is 0, which is that of rounding; x + (rounded - x).detach()": 0.0,
        "right, but the gradient is 2: x is there twice; detach all of (rounded - x)": 2.0,
        "right, but the gradient is -1; detach the difference, not x": -1.0,
        "right, but the gradient is step; it is 1, as if nothing had been rounded": step,
        "right, but the gradient is 1 / step; it is 1, as if nothing had been rounded": 1 / step,
    }
    for message, value in kinds.items():
        if torch.allclose(slope, torch.full_like(x, value), atol=1e-5):
            raise Mistake(message)
    if ((slope - 1).abs() < 1e-5).any():
        raise Mistake("right, but only some numbers have gradient 1, and all of them should")
    raise Mistake(f"right, but the gradient is {slope.mean():.3g} on average; it is 1, as if nothing had been rounded")


def _interval(latent: Tensor, mean: Tensor, scale: Tensor, shape: tuple[int, ...] = (1, -1, 1, 1)) -> Tensor:
    """Probability, in float64, of the interval of width 1 around every value, from the smaller tail."""
    distance = -(latent.double() - mean.double().view(shape)).abs()
    width = scale.double().view(shape)
    return ((distance + 0.5) / width).sigmoid() - ((distance - 0.5) / width).sigmoid()


@exercise("2.6")
def bits_per_pixel(attempt: Callable, random: torch.Generator) -> None:
    """Sum of -log2 P over the latent of every picture, over the picture's height times width; (n,)."""
    c, n = int(torch.randint(4, 7, (), generator=random)), 3
    mean, scale = torch.randn(c, generator=random), 0.25 + 0.5 * torch.rand(c, generator=random)
    latent = mean.view(-1, 1, 1) + 2 * scale.view(-1, 1, 1) * torch.randn(n, c, c, c, generator=random)
    latent = latent.round()  # as many channels as rows and columns: no shape tells the axes apart
    size = (8 * c - 3, 8 * c + 2)
    probability = _interval(latent, mean, scale)
    bits = -probability.log2()
    total, pixels = bits.sum((1, 2, 3)), size[0] * size[1]
    true, log2 = total / pixels, torch.tensor(2.0).double().log()
    scaled = (latent.double() - mean.view(1, -1, 1, 1)) / scale.view(1, -1, 1, 1)
    density = scaled.sigmoid() * (-scaled).sigmoid()
    rows, columns = (_interval(latent, mean, scale, shape) for shape in ((1, 1, -1, 1), (1, 1, 1, -1)))
    expect_close(
        call(attempt, latent, mean, scale, size),
        true.float(),
        {
            "those are nats; bits take the logarithm to base 2": true * log2,
            "that is the logarithm to base 10; bits take base 2": true * log2 / torch.tensor(10.0).double().log(),
            "you divided by the positions of the latent; bits per *pixel* are divided by the picture's h * w": [
                total / (c * c),
                bits.mean((2, 3)).sum(1),
            ],
            "that is bits per number of the latent; sum them up, and divide by the picture's h * w": [
                total / c**3,
                bits.mean((0, 1, 2, 3)).expand(n),
            ],
            "you divided by the three colours, too; a pixel is one of h * w": true / 3,
            "you forgot to divide by the picture's h * w": [total, total * log2],
            "one channel's worth: sum over the channels, too": [bits.mean(1).sum((1, 2)) / pixels],
            "that is bytes; a byte has eight bits": true / 8,
            "the picture's size is h * w, not h + w": total / sum(size),
            "the picture is not square: its size is h * w": [total / side**2 for side in size],
            "the picture need not be eight times as large as the latent; divide by size[0] * size[1]": [
                total / (64 * c * c)
            ],
            "the sign is wrong: a probability below 1 has a negative logarithm": -true,
            "that is the logarithm of the density; an integer has the probability of the interval k ± 1/2": [
                -(density / scale.view(1, -1, 1, 1)).log2().sum((1, 2, 3)) / pixels,
                -density.log2().sum((1, 2, 3)) / pixels,
            ],
            "the interval is k ± 1, twice too wide; it is k ± 1/2": (_wide(latent, mean, scale, 1.0, 1.0) / pixels),
            "the interval is from k to k + 1; rounding gives k to everything in k ± 1/2": (
                _wide(latent, mean, scale, 0.0, 1.0) / pixels
            ),
            "the interval is from k - 1 to k; rounding gives k to everything in k ± 1/2": (
                _wide(latent, mean, scale, 1.0, 0.0) / pixels
            ),
            "that is -log2 of the probability of *at most* k + 1/2; subtract that of at most k - 1/2": (
                -((latent + 0.5 - mean.view(-1, 1, 1)) / scale.view(-1, 1, 1)).double().sigmoid().log2().sum((1, 2, 3))
                / pixels
            ),
            "mean and scale belong to the channels, axis 1; yours went to another axis": [
                -(table + 1e-300).log2().sum((1, 2, 3)) / pixels for table in (rows, columns)
            ]
            + [_length(table) / pixels for table in (rows, columns)],
            "you multiplied by scale; divide (k - mean) by it": (_length(_interval(latent, mean, 1 / scale)) / pixels),
            "scale is neither squared nor under a root: it is what (k - mean) is divided by": [
                _length(_interval(latent, mean, change(scale))) / pixels for change in (torch.square, torch.sqrt)
            ],
            "every channel has a mean and a scale of its own; you averaged them": (
                _length(_interval(latent, mean.mean().expand(c), scale.mean().expand(c))) / pixels
            ),
            "the mean is missing: k - mean": _length(_interval(latent, 0 * mean, scale)) / pixels,
            "the mean is added; subtract it from k": _length(_interval(latent, -mean, scale)) / pixels,
            "1/2 was added after dividing by scale; it is half of a step of k": (
                _length(_interval(scaled, 0 * mean, torch.ones(c))) / pixels
            ),
            "that is a normal distribution's; the exercise has a logistic one, sigmoid((k - mean) / scale)": [
                _normal(latent, mean, scale) / pixels,
                _normal(latent.double(), mean.double(), scale.double()) / pixels,
            ],
            "that is the entropy, p log p; the *given* numbers cost -log2 p each": (
                (probability * bits).sum((1, 2, 3)) / pixels
            ),
            "one number for every picture, (n,); you averaged over the pictures": [
                true.mean(),
                true.sum(),
            ],
            "every picture got the same number, the mean of all; keep the pictures apart": true.mean().expand(n),
            "the logarithm of a sum; take it of every number's probability, then sum": (
                -probability.sum((1, 2, 3)).log2() / pixels
            ),
        },
        rtol=1e-3,
        atol=1e-4,
    )
    _expect_rare(attempt, mean, scale)
    _expect_gradient(attempt, latent, mean, scale, size)


def _length(probability: Tensor) -> Tensor:
    return -probability.clamp_min(RAREST).log2().sum((1, 2, 3))


def _normal(latent: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    normal = torch.distributions.Normal(mean.view(-1, 1, 1), scale.view(-1, 1, 1))
    return _length(normal.cdf(latent + 0.5) - normal.cdf(latent - 0.5)).double()


def _wide(latent: Tensor, mean: Tensor, scale: Tensor, below: float, above: float) -> Tensor:
    value, width = latent.double() - mean.view(1, -1, 1, 1), scale.double().view(1, -1, 1, 1)
    return _length(((value + above) / width).sigmoid() - ((value - below) / width).sigmoid())


def _expect_rare(attempt: Callable, mean: Tensor, scale: Tensor) -> None:
    """A number that the model holds for impossible costs 30 bits, not infinitely many."""
    latent = mean.round().view(1, -1, 1, 1).repeat(1, 1, 2, 2)
    common = _interval(latent, mean, scale)
    latent[0, 0, 0, 0], latent[0, 1, 1, 1] = 900.0, -900.0
    found = torch.as_tensor(call(attempt, latent, mean, scale, (4, 4))).detach()
    if not found.isfinite().all():
        raise Mistake(f"right, but {found.item()} for a number far from the mean: .clamp_min(2**-30) before log2")
    rest = -common.log2()
    expected = (rest.sum() - rest[0, 0, 0, 0] - rest[0, 1, 1, 1] + 60).item() / 16
    if abs(found.item() - expected) > 0.02 * expected:
        raise Mistake(
            f"right, but {found.item():.3g} bits per pixel where two numbers are far from the mean, expected "
            f"{expected:.3g}: the *probability* is at least 2**-30"
        )


def _expect_gradient(attempt: Callable, latent: Tensor, mean: Tensor, scale: Tensor, size: tuple[int, int]) -> None:
    for at, name in ((2, "scale"), (1, "mean"), (0, "latent")):
        leaves = [value.double() for value in (latent, mean, scale)]
        leaves[at].requires_grad_()
        bits = -_interval(leaves[0], leaves[1], leaves[2]).log2().sum()
        (expected,) = torch.autograd.grad(bits / (size[0] * size[1]), leaves[at])
        found = gradient(attempt, (latent, mean, scale, size), at)
        if not torch.allclose(found.double(), expected, rtol=0.02, atol=1e-3 * float(expected.abs().max())):
            raise Mistake(f"right, but the gradient by {name} is not; is a part of it detached, rounded or clamped?")
