"""Checks of chapter 06's exercises: PSNR, SSIM and MS-SSIM, Gram matrices, feature losses, what MSE cannot see."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course_lib.checks import Mistake, exercise, expect_close
from course_lib.data import LUMA, photos
from course_lib.perceptual_losses import mse
from course_lib.perceptual_losses import ssim as library_ssim

RGB = torch.eye(3)


@exercise("6.1")
def psnr(attempt: Callable, random: torch.Generator) -> None:
    """Peak signal-to-noise ratio in decibels of two batches in [0, 1], (n,)."""
    x, y = torch.rand(2, 3, 3, 4, 5, generator=random)
    y[0] = x[0] + 0.1 * (y[0] - x[0])
    error = (x - y).square().mean((1, 2, 3))
    expected = -10 * error.log10()
    expect_close(
        attempt(x.clone(), y.clone()),
        expected,
        {
            "the sign is wrong: a smaller error gives *more* decibels": -expected,
            "this is the natural logarithm; decibels use log10": -10 * error.log(),
            "this is in bels; a decibel is a tenth of one: multiply by 10": expected / 10,
            "20 is for the *root* of the MSE; for the MSE itself it is 10": 2 * expected,
            "you averaged the error over the batch; every image has its own PSNR": -10 * error.mean().log10(),
            "the peak is 1 here, not 255": expected + 20 * torch.tensor(255.0).log10(),
            "you averaged the decibels; return one number per image": expected.mean(),
            "this is the *absolute* error; square the differences": [
                -10 * (x - y).abs().mean((1, 2, 3)).log10(),
                -20 * (x - y).abs().mean((1, 2, 3)).log10(),
            ],
        },
    )


@exercise("6.2")
def gaussian_window(attempt: Callable, random: torch.Generator) -> None:
    """Weights (size, size) of a Gaussian, that sum to 1; size is odd."""
    size, sigma = 7, 0.8 + torch.rand((), generator=random).item()

    def bell(scale: float, centre: float = 3.0, step: float = 1.0) -> Tensor:
        offsets = step * (torch.arange(size, dtype=torch.float64) - centre)
        return torch.exp(-(offsets[:, None].square() + offsets[None].square()) / scale).float()

    window, row = bell(2 * sigma**2), bell(2 * sigma**2)[3]
    expect_close(
        attempt(size, sigma),
        window / window.sum(),
        {
            "the weights do not sum to 1; divide by their sum": window,
            "2 pi sigma^2 is the sum over the whole plane; divide by the sum of these weights": (
                window / (2 * torch.pi * sigma**2)
            ),
            "this is one row; the window is its outer product with itself": row / row.sum(),
            "the 2 of 2 sigma^2 is missing": bell(sigma**2) / bell(sigma**2).sum(),
            "sigma is not squared": bell(2 * sigma) / bell(2 * sigma).sum(),
            "the window is not centred; the offsets run from -(size - 1) / 2 to (size - 1) / 2": (
                bell(2 * sigma**2, 0.0) / bell(2 * sigma**2, 0.0).sum()
            ),
            "the middle of an odd size is size // 2, not size / 2": (
                bell(2 * sigma**2, size / 2) / bell(2 * sigma**2, size / 2).sum()
            ),
            "count the offsets in pixels, ..., -1, 0, 1, ..., not from -1 to 1": (
                bell(2 * sigma**2, step=1 / 3) / bell(2 * sigma**2, step=1 / 3).sum()
            ),
            "every row sums to 1; the whole window should": window / window.sum(1, keepdim=True),
        },
    )


@exercise("6.3")
def ssim(attempt: Callable, random: torch.Generator) -> None:
    """SSIM of two batches, (n,), with a given window, where the whole window fits."""
    x, noise = torch.rand(2, 2, 3, 13, 15, generator=random)
    x = x * torch.linspace(0.1, 1, 15)  # dark on one side: there both terms are small, so that neither is idle
    y = 0.6 * x + 0.3 * noise
    window = torch.rand(5, 5, generator=random)
    window /= window.sum()
    bell = torch.exp(-((torch.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    published = torch.outer(bell, bell) / bell.sum() ** 2

    def terms(
        c1: float = 0.01**2,
        c2: float = 0.03**2,
        *,
        given: Tensor = window,
        border: int = 0,
        raw: bool = False,
        root: bool = False,
        two: float = 2.0,
        channels: Tensor = RGB,
    ) -> tuple[Tensor, Tensor]:
        pair = (torch.einsum("nchw,kc->nkhw", torch.nn.functional.pad(i, [border] * 4), channels) for i in (x, y))
        a, b = (i.double().unfold(2, len(given), 1).unfold(3, len(given), 1) for i in pair)
        mean_a, mean_b = ((given * i).sum((-2, -1)) for i in (a, b))
        off_a, off_b = (a, b) if raw else (a - mean_a[..., None, None], b - mean_b[..., None, None])
        cov = (given * off_a * off_b).sum((-2, -1))
        var_a, var_b = ((given * i.square()).sum((-2, -1)) for i in (off_a, off_b))
        spread = var_a.sqrt() + var_b.sqrt() if root else var_a + var_b
        luminance = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
        return luminance, (two * cov + c2) / (spread + c2)

    def value(*constants: float, **changes: Any) -> Tensor:
        luminance, structure = terms(*constants, **changes)
        return (luminance * structure).mean((1, 2, 3)).float()

    luminance, structure = terms()
    expected = value()
    expect_close(
        attempt(x.clone(), y.clone(), window.clone()),
        expected,
        {
            "variance is the mean of squares *minus* the square of the mean; so for the covariance": value(raw=True),
            "the constants have to be squared: 0.01^2 and 0.03^2": value(0.01, 0.03),
            "the constants are those of a range of 255; here it is 1": value((0.01 * 255) ** 2, (0.03 * 255) ** 2),
            "you swapped the constants; 0.01 belongs to the means": value(0.03**2, 0.01**2),
            "the constants C1 and C2 are missing": value(0.0, 0.0),
            "the luminance term is missing": structure.mean((1, 2, 3)).float(),
            "the structure term is missing": luminance.mean((1, 2, 3)).float(),
            "the two terms are multiplied, not averaged": ((luminance + structure) / 2).mean((1, 2, 3)).float(),
            "multiply the two terms at every position, and average only then": [
                (luminance.mean((1, 2, 3)) * structure.mean((1, 2, 3))).float(),
                (luminance.mean((2, 3)) * structure.mean((2, 3))).mean(1).float(),
            ],
            "the 2 before the covariance is missing": value(two=1.0),
            "the denominator has the variances, not the standard deviations": value(root=True),
            "you padded the border; use only positions where the whole window fits": value(border=2),
            "the window is not used: in these means every pixel weighs the same": value(given=torch.full((5, 5), 0.04)),
            "use the window that is given, not one of your own": value(given=published),
            "SSIM is taken in each of R, G, B; you made the pictures grey": [
                value(channels=torch.tensor([weights])) for weights in (LUMA, (1 / 3, 1 / 3, 1 / 3))
            ],
            "return one number per image, not one for the batch": expected.mean(),
            "this is 1 - SSIM; SSIM is a similarity": 1 - expected,
        },
    )


@exercise("6.4")
def ms_ssim(attempt: Callable, random: torch.Generator) -> None:
    """MS-SSIM (n,) from the mean contrast term at five scales, (n, 5), and the mean luminance at the last, (n,)."""
    contrast = 0.2 + 0.7 * torch.rand(4, 5, generator=random)
    contrast[1, 2] = -0.1
    luminance = 0.3 + 0.4 * torch.rand(4, generator=random)
    weights = torch.tensor([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])
    powers = contrast.clamp_min(0) ** weights
    expected = powers.prod(1) * luminance ** weights[-1]
    expect_close(
        attempt(contrast.clone(), luminance.clone(), weights.clone()),
        expected,
        {
            "a negative term has no real power: it counts as 0, so clamp first": lambda value: bool(
                value.isnan().any()
            ),
            "a negative term counts as 0, you took its absolute value": (
                (contrast.abs() ** weights).prod(1) * luminance ** weights[-1]
            ),
            "the luminance is missing": powers.prod(1),
            "the luminance has the exponent of its scale, too: the last weight": powers.prod(1) * luminance,
            "the luminance belongs to the *last* scale, with its weight": powers.prod(1) * luminance ** weights[0],
            "you multiplied over the batch, too; multiply over the scales, dim=1": (
                lambda value: value.shape == (4,) and not value.any()
            ),
            "the weights are exponents, not factors": (weights * contrast.clamp_min(0)).prod(1)
            * luminance
            * weights[-1],
            "the scales are multiplied, not added": (weights * contrast.clamp_min(0)).sum(1) * luminance ** weights[-1],
            "the weights are in the wrong order; the first is for the finest scale": (
                (contrast.clamp_min(0) ** weights.flip(0)).prod(1) * luminance ** weights[0]
            ),
            "do not turn the scales round: column s has weight s": (
                (contrast.clamp_min(0) ** weights.flip(0)).prod(1) * luminance ** weights[-1]
            ),
            "you multiplied over the batch; multiply over the scales, dim=1": lambda value: value.shape == (5,),
        },
    )


@exercise("6.5")
def gram(attempt: Callable, random: torch.Generator) -> None:
    """Gram matrices (n, c, c) of features (n, c, h, w), divided by c h w."""
    features = torch.randn(2, 4, 3, 5, generator=random) + 0.5
    expected = torch.einsum("nihw,njhw->nij", features, features) / 60
    centred = features - features.mean((2, 3), keepdim=True)
    expect_close(
        attempt(features.clone()),
        expected,
        {
            "you compared positions, not channels: the matrix is (c, c), not (h w, h w)": (
                lambda value: value.shape[-2:] == (15, 15)
            ),
            "it is not divided by c h w": expected * 60,
            "you divided by h w only; c is missing": expected * 4,
            "you divided by c only; h w is missing": expected * 15,
            "you divided by the size of the batch, too; c h w are the numbers of one image": expected / 2,
            "do not subtract the mean: that is a covariance": torch.einsum("nihw,njhw->nij", centred, centred) / 60,
            "every image has its own matrix; you summed over the batch": expected.sum(0),
            "you compared the images with one another; keep the batch axis": lambda value: value.shape == (2, 2),
            "you joined the batch and the channels; flatten(2) keeps them apart": lambda value: value.shape == (8, 8),
        },
    )


@exercise("6.6")
def feature_loss(attempt: Callable, random: torch.Generator) -> None:
    """Weighted sum over layers of the mean squared difference, (n,), from two dictionaries of features."""
    shapes = {"relu1": (3, 4, 6, 6), "relu2": (3, 7, 3, 3)}
    ours, theirs = ({n: torch.randn(s, generator=random) for n, s in shapes.items()} for _ in range(2))
    weights = {"relu2": 2.5, "relu1": 0.5}
    gaps = {name: ours[name] - theirs[name] for name in weights}

    def total(term: Callable, factors: dict[str, float] = weights) -> Tensor:
        return sum((factors[name] * term(gap) for name, gap in gaps.items()), torch.zeros(()))

    one = dict.fromkeys(weights, 1.0)
    swapped = {"relu1": 2.5, "relu2": 0.5}
    expected = total(lambda gap: gap.square().mean((1, 2, 3)))
    expect_close(
        attempt({**ours}, {**theirs}, dict(weights)),
        expected,
        {
            "you averaged over the batch; return one number per image": expected.mean(),
            "you summed over the features; take the mean, or large layers rule": total(
                lambda g: g.square().sum((1, 2, 3))
            ),
            "you summed over the channels; take the mean over channels, rows and columns": total(
                lambda g: g.square().sum(1).mean((1, 2))
            ),
            "the weights are missing": total(lambda g: g.square().mean((1, 2, 3)), one),
            "the weights went to the wrong layers; look them up by name": total(
                lambda g: g.square().mean((1, 2, 3)), swapped
            ),
            "this is the absolute difference; square it": total(lambda g: g.abs().mean((1, 2, 3))),
            "do not take the root: the loss is a *squared* distance": total(
                lambda g: g.square().mean((1, 2, 3)).sqrt()
            ),
            "do not take the root of the sum: the loss is a *squared* distance": expected.sqrt(),
            "divide nothing by the number of layers: it is a sum": expected / 2,
            "divide nothing by the sum of the weights: it is a sum, not an average": expected / 3,
            "the weight goes before the square, not into it": total(
                lambda g: g.square().mean((1, 2, 3)), {name: weight**2 for name, weight in weights.items()}
            ),
            "only one layer is in it; did you return inside the loop?": (
                lambda value: any(
                    value.shape == gap.shape[:1] and torch.allclose(value, weights[n] * gap.square().mean((1, 2, 3)))
                    for n, gap in gaps.items()
                )
            ),
        },
    )


@exercise("6.7")
def best_for_absolute_error(attempt: Callable, random: torch.Generator) -> None:
    """The one picture (3, h, w) with the smallest mean absolute error to k possible answers (k, 3, h, w), k odd."""
    answers = torch.rand(7, 3, 4, 5, generator=random) ** 3
    actual = attempt(answers.clone())
    if isinstance(actual, tuple):
        raise Mistake("median(0) gives the values *and* where they were found; take .values")
    expect_close(
        actual,
        answers.sort(0).values[3],
        {
            "this is the mean, the best for the *squared* error": answers.mean(0),
            "this is one number; take the median over the answers, pixel by pixel: dim 0": (
                lambda value: value.numel() == 1 and bool(torch.isclose(value, answers.median()).all())
            ),
            "this is one of the answers; another picture is better": (
                lambda value: any(torch.equal(value, answer) for answer in answers)
            ),
            "this is halfway between the smallest and the largest; that is best for the *largest* error": (
                (answers.amin(0) + answers.amax(0)) / 2
            ),
        },
    )


@exercise("6.8")
def fool_ssim(attempt: Callable, random: torch.Generator) -> None:
    """Open-ended: an image of SSIM 0.9 or more to a photograph, and MSE 0.01 or more."""
    photo = photos.single("chelsea")[..., 40:232, 110:302]  # the crop that the notebook shows
    given = photo.clone()
    image = attempt(given)
    if image is None:
        raise Mistake("your function returns nothing; did you forget `return`?")
    if not isinstance(image, Tensor):
        raise Mistake(f"your function returns a {type(image).__name__}; a torch.Tensor was expected")
    if image.shape != photo.shape:
        raise Mistake(f"the image has shape {tuple(image.shape)}, the photograph {tuple(photo.shape)}")
    if not torch.equal(given, photo):
        raise Mistake("you changed the photograph itself; work on photo.clone()")
    if not (image.min() >= 0 and image.max() <= 1):
        raise Mistake("the image leaves [0, 1], so it cannot be shown; clamp it *before* you measure")
    similarity, error = library_ssim(photo, image.float()).item(), mse(photo, image.float()).item()
    if error < 0.01:
        raise Mistake(f"the MSE is {error:.4f}, less than 0.01; change the picture more")
    if similarity < 0.9:
        raise Mistake(
            f"the SSIM is {similarity:.4f}, less than 0.9; spare edges and texture (clamping takes texture, too)"
        )
