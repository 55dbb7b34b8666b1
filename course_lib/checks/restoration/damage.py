"""Exercises 2.1 and 2.2: how bad is the hole, and how many photons came."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.checks import Mistake, exercise, expect_close, expect_shape
from course_lib.checks.autoencoders.calling import call

PHOTONS = 40
LEVELS = (0.05, 0.1125, 0.3, 0.3, 0.5)  # of grey: one of them twice, one no whole number of photons, none near 1


def _db(error: Tensor) -> Tensor:
    return -10 * error.log10()


@exercise("2.1")
def hole_psnr(attempt: Callable, random: torch.Generator) -> None:
    """10 log10(1 / MSE) over the missing pixels of every image, (n,)."""
    n, side = int(torch.randint(3, 6, (), generator=random)), int(torch.randint(9, 14, (), generator=random))
    truth = 0.9 * torch.rand(n, 3, side, side + 2, generator=random)
    restored = truth + 0.3 * torch.rand(truth.shape, generator=random) * torch.rand(n, 1, 1, 1, generator=random)
    restored = torch.where(torch.rand(truth.shape, generator=random) < 0.5, restored, truth - 0.1).clamp(0, 1)
    share = torch.linspace(0.2, 0.7, n)[:, None, None, None]
    mask = torch.rand(n, 1, side, side + 2, generator=random) < share
    difference = restored - truth
    square, wide = difference.square(), mask.expand_as(truth)
    # picked pixel by pixel, without a product or a division that could be forgotten
    error, known, size = (
        torch.stack([values[i][where[i]].mean() for i in range(n)])
        for values, where in ((square, wide), (square, ~wide), (difference.abs(), wide))
    )
    part = wide.float().mean((1, 2, 3))
    all_missing, true = square[wide].mean(), _db(error)
    expect_close(
        call(attempt, restored, truth, mask),
        true,
        {
            "the mask is inverted: True is where a pixel is *missing*": _db(known),
            "the whole picture counts; take the missing pixels only": _db(square.mean((1, 2, 3))),
            "you divided by the number of *all* pixels; divide by that of the missing ones": _db(error * part),
            "the mask has one channel and the picture three: you summed over three and divided by one": _db(3 * error),
            "the mask has one channel and the picture three: you divided by three once too often": _db(error / 3),
            "the peak is 255, and our images' largest value is 1": [
                true + 20 * torch.tensor(255.0).log10(),
                true + 10 * torch.tensor(255.0).log10(),
            ],
            "the peak is the largest value that a pixel *can* have, 1, not the largest in this image": [
                _db(error / top.amax((1, 2, 3)).square()) for top in (truth, restored, truth * wide, restored * wide)
            ],
            "that is the natural logarithm; decibels are 10 log10": [-10 * error.log(), -error.log()],
            "that is the logarithm to base 2; decibels are 10 log10": [-10 * error.log2(), -error.log2()],
            "twice too much: it is 20 log10 of the root, and 10 log10 of the mean *square*": 2 * true,
            "half of it: 10 log10 takes the mean square error, without a root": true / 2,
            "the 10 is missing: 10 log10(1 / MSE)": true / 10,
            "the sign is wrong: a smaller error is a larger PSNR, 10 log10(1 / MSE)": -true,
            "that is the mean square error; PSNR is 10 log10 of 1 / it": error,
            "that is the absolute difference; PSNR is of the mean *square*": [_db(size), 2 * _db(size)],
            "you summed the squares; PSNR is of their mean": _db(error * wide.sum((1, 2, 3))),
            "one number for the whole batch: average over the images *after* the logarithm, or rather not at all": [
                _db(all_missing),
                _db(error.mean()),
            ],
            "you averaged over the images; one number for each, (n,)": true.mean(),
            "every image got the same number, that of the whole batch; keep the images apart": [
                value.expand(n) for value in (_db(all_missing), _db(error.mean()), true.mean())
            ],
            "every image has a mask of its own; you took the first one for all": torch.stack(
                [_db(values[wide[0]].mean()) for values in square]
            ),
            "you took the logarithm of every pixel; first the mean, then the logarithm": lambda found: (
                tuple(found.shape) == (n,) and bool((found > true + 1).all())
            ),
        },
        atol=1e-3,
    )
    nearly = torch.ones_like(mask)
    nearly[..., 0, 0] = False
    expect_close(call(attempt, restored, truth, nearly), _db(square.flatten(2)[..., 1:].mean((1, 2))), atol=1e-3)


@exercise("2.2")
def photon_noise(attempt: Callable, random: torch.Generator) -> None:
    """Counts of mean images * photons, over photons, at most 1; (n, 3, h, w)."""
    levels = torch.tensor(LEVELS)
    images = levels[:, None, None, None].expand(-1, 3, 48, 48).contiguous()
    seed = int(torch.randint(1000, (), generator=random))
    found = _noisy(attempt, images, seed)
    if found.flatten(1).var(1).max() < 1e-9:
        raise Mistake("there is no noise: every pixel of a flat picture came out the same; draw with torch.poisson")
    _expect_mean(found, images)
    _expect_variance(found, levels)
    if not _whole(found):
        raise Mistake("right mean and variance, but photons are whole: that is Gaussian noise; use torch.poisson")
    zeros, chance = (found[0] == 0).float().mean(), math.exp(-LEVELS[0] * PHOTONS)
    if abs(zeros - chance) > 0.02:
        raise Mistake(
            f"where {LEVELS[0] * PHOTONS:.0f} photons are expected, none came at {zeros:.0%} of the pixels, expected "
            f"{chance:.0%}: rounded Gaussian noise is not torch.poisson"
        )
    if found.equal(found[:, :1].expand_as(found)):
        raise Mistake("the three channels got the same noise; each counts photons of its own: draw for images.shape")
    if _related(found[2], found[3]):
        raise Mistake("every image got the same noise; draw for all the images at once")
    if not torch.equal(_noisy(attempt, images, seed), found):
        raise Mistake("right, but the noise does not follow the generator: torch.poisson(rate, generator=generator)")
    if torch.equal(_noisy(attempt, images, seed + 1), found):
        raise Mistake("right, but every seed gives the same noise; use the generator as it is, do not seed it again")
    one = torch.Generator().manual_seed(seed)
    if torch.equal(attempt(images.clone(), PHOTONS, one), attempt(images.clone(), PHOTONS, one)):
        raise Mistake(
            "right, but a generator gives the same noise every time it is used; draw from it, and leave its seed alone"
        )
    white = _noisy(attempt, torch.ones(2, 3, 16, 16), seed)
    if white.max() > 1:
        raise Mistake(f"right, but white comes out as {white.max():.2f}; a full sensor stops at 1: .clamp(max=1)")
    if (white == 1).all():
        raise Mistake("right, but white has no noise; clamp the result, not the noise")


def _noisy(attempt: Callable, images: Tensor, seed: int) -> Tensor:
    given = images.clone()
    torch.manual_seed(seed + 17 * int(torch.randint(1000, ())))  # who draws from the global generator is found out
    found = attempt(given, PHOTONS, torch.Generator().manual_seed(seed))
    expect_shape(found, tuple(images.shape))
    if not torch.equal(given, images):
        raise Mistake("you changed an input in place, and the caller still needs it; work on a copy: .clone()")
    if found.isnan().any():
        raise Mistake("the result contains NaN; look for 0/0 or the root of a negative number")
    return found.float()


def _expect_mean(found: Tensor, images: Tensor) -> None:
    levels, means = torch.tensor(LEVELS), found.mean((1, 2, 3))
    mistakes: dict[str, Tensor | list[Tensor]] = {
        "those are the counts; divide them by photons": levels * PHOTONS,
        "the counts *are* the picture; you added them to it": 2 * levels,
        "that is the noise alone; the counts over photons are the noisy picture": 0 * levels,
        "the picture counts twice: the counts already follow it": levels.square(),
        "photons is there twice; images * photons are expected, and the counts are divided by photons": [
            levels / PHOTONS,
            levels * PHOTONS**2,
        ],
        "those are counts of a picture from 0 to 255; white is `photons`, not 255": [
            levels * 255,
            255 / PHOTONS * levels,
        ],
        "the *expected* number need not be whole, only what is counted: do not round before torch.poisson": [
            change(levels * PHOTONS) / PHOTONS for change in (torch.round, torch.floor, torch.ceil)
        ],
        "white is 1, not the largest value in the picture": [
            levels / levels.max(),
            (levels / levels.max()).clamp(max=0.937),  # the mean of what 40 photons and a limit of 40 leave
        ],
    }
    chance = 4 * found.flatten(1).std(1) / found[0].numel() ** 0.5
    if ((means - levels).abs() < chance.clamp_min(0.006)).all():
        return
    for message, wrong in mistakes.items():
        for value in wrong if isinstance(wrong, list) else [wrong]:
            if (means - value).abs().max() < 0.01 * float(value.max()) + 0.004:
                raise Mistake(message)
    at = int((means - levels).abs().argmax())
    raise Mistake(f"grey of {levels[at]:.3g} becomes {means[at]:.3f} on average; photon noise keeps the mean")


def _expect_variance(found: Tensor, levels: Tensor) -> None:
    variance = found.flatten(1).var(1)
    expected = levels / PHOTONS
    mistakes = {
        "dark and bright pixels are equally noisy; the variance of photon noise is image / photons": (
            variance.mean().expand_as(levels)
        ),
        "`photons` is ignored: the variance is the image itself, as if white were one photon": levels,
        "that is noise of white being 255 photons; `photons` says how many": levels / 255,
        "the noise is multiplied: its deviation grows like the image, and should grow like its *root*": (
            levels.square() * (variance / levels.square()).mean()
        ),
        "that is binomial: of `photons` each arrives or not. The number sent varies, too: torch.poisson": (
            levels * (1 - levels) / PHOTONS
        ),
        "the noise is too small by the root of photons: the *counts* vary by their root, so divide only them": (
            expected / PHOTONS
        ),
    }
    if (variance / expected - 1).abs().max() < 0.1:
        return
    for message, wrong in mistakes.items():
        if (variance / wrong - 1).abs().max() < 0.1:
            raise Mistake(message)
    if not _whole(found) and (variance / expected - 1)[1:].abs().max() < 0.1:  # wrong only where it was cut at 0
        raise Mistake("photons are whole: that is Gaussian noise, cut at 0; use torch.poisson")
    at = int((variance / expected - 1).abs().argmax())
    raise Mistake(
        f"where the image is {levels[at]:.3g} the noise has variance {variance[at]:.2g}; image / photons is "
        f"{expected[at]:.2g}"
    )


def _whole(found: Tensor) -> bool:
    counts = found * PHOTONS
    return bool((counts - counts.round()).abs().max() < 1e-3)


def _related(one: Tensor, other: Tensor) -> bool:
    return bool(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.2)
