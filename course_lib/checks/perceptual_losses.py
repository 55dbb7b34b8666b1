"""Checks of chapter 06's exercises: PSNR, SSIM from its window, Gram matrices, feature losses, and descent on them."""

import functools
import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from course_lib.checks import Mistake, exercise, expect_close, expect_shape
from course_lib.data import photos
from course_lib.perceptual_losses import ssim
from course_lib.trunks import Trunk

C1, C2 = 0.01**2, 0.03**2


def _numbers(random: torch.Generator, low: int, high: int, n: int) -> list[int]:
    """`n` different whole numbers from low to high, in random order."""
    return (low + torch.randperm(high - low + 1, generator=random)[:n]).tolist()


@exercise("6.1")
def psnr(attempt: Callable, random: torch.Generator) -> None:
    """Peak signal-to-noise ratio of each pair, in decibels, infinite for equal images."""
    n, height, width = _numbers(random, 2, 9, 3)
    x, noise = torch.rand(2, n, 3, height, width, generator=random)
    y = (x + torch.linspace(0.1, 0.9, n).view(n, 1, 1, 1) * (noise - 0.5)).clamp(0, 1)
    error = (x - y).double().square().mean((1, 2, 3))
    expected = (-10 * error.log10()).float()
    expect_close(
        attempt(x.clone(), y.clone()),
        expected,
        {
            "the sign is reversed: a smaller error has a larger PSNR": -expected,
            "that is the natural logarithm; decibels use log10": expected * math.log(10),
            "20 log10 belongs to the *root* of the MSE; of the MSE it is 10 log10": 2 * expected,
            "these are bels; a decibel is a tenth of it: 10 log10": expected / 10,
            "your peak is 255; these images are in [0, 1], so it is 1": expected + 20 * math.log10(255),
            "you took one MSE over the whole batch; every image has its own": -10 * error.mean().log10(),
            "this is the mean PSNR; return one per image": expected.mean(),
            "this is the MSE; now put it on the decibel scale": error,
            "you summed the squared errors; take their mean": -10 * (error * x[0].numel()).log10(),
        },
    )
    if not bool((attempt(x.clone(), x.clone()) == torch.inf).all()):
        raise Mistake("equal images have infinite PSNR; do not add a small number to the MSE")


@exercise("6.2")
def gaussian_window(attempt: Callable, random: torch.Generator) -> None:
    """Weights (size, size) that fall off as a Gaussian from the centre and sum to 1."""
    half = _numbers(random, 2, 6, 1)[0]
    size, sigma = 2 * half + 1, 1.3 + torch.rand((), generator=random).item()

    def window(falloff: Callable, centre: float = float(half)) -> Tensor:
        rows = [[falloff((i - centre) ** 2 + (j - centre) ** 2) for j in range(size)] for i in range(size)]
        return torch.tensor(rows)

    raw = window(lambda squared: math.exp(-squared / (2 * sigma**2)))

    def unit(weights: Tensor) -> Tensor:
        return weights / weights.sum()

    expect_close(
        attempt(size, sigma),
        unit(raw),
        {
            "the weights do not sum to 1; divide by their sum": raw,
            "1 / (2 pi sigma²) is for the whole plane; a cut window has to be divided by its own sum": (
                raw / (2 * math.pi * sigma**2)
            ),
            "every row sums to 1; the whole window should": raw / raw.sum(1, keepdim=True),
            "you forgot to square sigma": unit(window(lambda squared: math.exp(-squared / (2 * sigma)))),
            "the 2 is missing: exp(-r² / (2 sigma²))": unit(window(lambda squared: math.exp(-squared / sigma**2))),
            "you forgot to square the distance from the centre": (
                unit(window(lambda squared: math.exp(-(squared**0.5) / (2 * sigma**2))))
            ),
            "the peak is half a pixel off; the middle of 0 … size - 1 is size // 2": (
                unit(window(lambda squared: math.exp(-squared / (2 * sigma**2)), size / 2))
            ),
            "the peak is in a corner; subtract the middle, size // 2, from the coordinates": (
                unit(window(lambda squared: math.exp(-squared / (2 * sigma**2)), 0.0))
            ),
            "this is one row; multiply it by itself as a column": unit(raw[half]),
        },
        atol=1e-6,
    )


@exercise("6.3")
def ssim_window(attempt: Callable, random: torch.Generator) -> None:
    """SSIM of two grey patches (k, k) under a window of weights that sum to 1."""
    k = _numbers(random, 5, 9, 1)[0]
    a, b, window = torch.rand(3, k, k, generator=random)
    b, window = 0.1 + 0.2 * (a + b), window / window.sum()
    expect_close(_as_tensor(attempt(a.clone(), b.clone(), window.clone())), *_ssim_of(a, b, window), atol=1e-4)


def _as_tensor(actual: object) -> object:
    return torch.as_tensor(actual) if isinstance(actual, float | int) else actual


def _ssim_of(a: Tensor, b: Tensor, window: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """SSIM in float64, with the sums around the means, and what the usual mistakes give."""
    a, b, window = a.double(), b.double(), window.double()

    def terms(weights: Tensor = window, c1: float = C1, c2: float = C2) -> tuple[Tensor, Tensor]:
        mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
        variances = (weights * ((a - mean_a) ** 2 + (b - mean_b) ** 2)).sum()
        covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
        return (
            (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1),
            (2 * covariance + c2) / (variances + c2),
        )

    def product(weights: Tensor = window, c1: float = C1, c2: float = C2) -> Tensor:
        luminance, contrast = terms(weights, c1, c2)
        return luminance * contrast

    luminance, contrast = terms()
    mean_a, mean_b = (window * a).sum(), (window * b).sum()
    aa, bb, ab = (window * a * a).sum(), (window * b * b).sum(), (window * a * b).sum()
    va, vb, cov = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    return luminance * contrast, {
        "this is the luminance term only; multiply by the contrast and structure term": luminance,
        "this is the contrast and structure term only; multiply by the luminance term": contrast,
        "you added the two terms; SSIM multiplies them": luminance + contrast,
        "all pixels counted the same; weigh them by the window": product(torch.ones_like(a) / a.numel()),
        "c1 and c2 are *squares*: 0.01² and 0.03²": product(window, 0.01, 0.03),
        "your c1 and c2 are for values up to 255; here the largest value is 1": (
            product(window, C1 * 255**2, C2 * 255**2)
        ),
        "c1 and c2 are missing": product(window, 0.0, 0.0),
        "a variance is the mean of the squares *minus* the square of the mean": (
            luminance * (2 * ab + C2) / (aa + bb + C2)
        ),
        "the covariance lacks its - mean_a * mean_b": luminance * (2 * ab + C2) / (va + vb + C2),
        "you used standard deviations in the denominator; it has the variances": (
            luminance * (2 * cov + C2) / (va.sqrt() + vb.sqrt() + C2)
        ),
        "the covariance has a factor 2 in SSIM": luminance * (cov + C2) / (va + vb + C2),
    }


@exercise("6.4")
def gram(attempt: Callable, random: torch.Generator) -> None:
    """Gram matrices (n, c, c) of feature maps (n, c, h, w), divided by c h w."""
    n, c, h, w = _numbers(random, 2, 7, 4)
    features = torch.randn(n, c, h, w, generator=random) + 0.5
    sums = torch.einsum("nchw,ndhw->ncd", features, features)
    centred = features - features.mean((2, 3), keepdim=True)
    expect_close(
        attempt(features.clone()),
        sums / (c * h * w),
        {
            "divide by c h w, so that images of different sizes can be compared": sums,
            "you divided by the positions h w only; divide by the channels, too": sums / (h * w),
            "you divided by the channels only; divide by the positions h w, too": sums / c,
            "you divided by n as well; every image has its own matrix": sums / (n * c * h * w),
            "this compares positions; it is (c, c): flat @ flat.mT, not flat.mT @ flat": lambda found: (
                tuple(found.shape) == (n, h * w, h * w)
            ),
            "this is one matrix for the whole batch; keep the batch axis": lambda found: tuple(found.shape) == (c, c),
            "you subtracted the means, that is a covariance; a Gram matrix does not": (
                torch.einsum("nchw,ndhw->ncd", centred, centred) / (c * h * w)
            ),
            "this is the diagonal only; every channel is multiplied by every channel": (
                sums.diagonal(dim1=1, dim2=2) / (c * h * w)
            ),
            "features and reshape got mixed up; flatten(2) keeps batch and channels": (
                lambda found: not torch.allclose(found, found.mT)
            ),
        },
    )


@functools.cache
def _trunk() -> Trunk:
    return Trunk("st-alex")


def _patches(n: int, size: int = 32) -> tuple[Tensor, Tensor]:
    images = photos.crops("train", 2 * n, size=size, seed=6).images.float() / 255
    return images[:n], images[n:].lerp(images[:n], 0.5)


def _features(images: Tensor, layer: str) -> Tensor:
    """What the trunk's modules give one after the other, without :meth:`Trunk.stream`."""
    trunk = _trunk()
    scaled = (images - trunk.mean) / trunk.std
    return trunk.features[: trunk.layer_names.index(layer) + 1](scaled)


def _wants_gradient(attempt: Callable[[Tensor], Tensor], x: Tensor) -> None:
    x = x.clone().requires_grad_()
    loss = attempt(x)
    if not loss.requires_grad:
        raise Mistake("no gradient reaches x; a loss must not use no_grad, detach, item or numpy")


def _total(losses: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(losses)).sum(0)


@exercise("6.5")
def feature_loss(attempt: Callable, random: torch.Generator) -> None:
    """Mean squared difference of one layer's features, per image, with a gradient."""
    x, y = _patches(2)
    layers = ["conv2", "relu3", "pool1"]
    layer = layers[_numbers(random, 0, 2, 1)[0]]
    difference = _features(x, layer) - _features(y, layer)
    expected = difference.square().mean((1, 2, 3))

    def unit(features: Tensor) -> Tensor:
        return features / features.norm(dim=1, keepdim=True).clamp_min(1e-10)

    def loss(a: Tensor, b: Tensor, name: str = layer) -> Tensor:
        return (_features(a, name) - _features(b, name)).square().mean((1, 2, 3))

    scaled = [(images - _trunk().mean) / _trunk().std for images in (x, y)]
    expect_close(
        attempt(_trunk(), layer, x.clone(), y.clone()),
        expected,
        {
            "one number for the whole batch; keep the batch axis: shape (n,)": expected.mean(),
            "you summed the squares; take their mean over channels and positions": difference.square().sum((1, 2, 3)),
            "you summed over the channels; the mean goes over channels and positions": difference.square()
            .sum(1)
            .mean((1, 2)),
            "these are absolute differences; square them": difference.abs().mean((1, 2, 3)),
            "you took the square root; the loss is a *squared* distance": expected.sqrt(),
            "you compared the pixels; compare the features": (x - y).square().mean((1, 2, 3)),
            "you compared the last layer; read the one that was asked for": loss(x, y, "relu5"),
            "you summed all of the trunk's layers; read the one that was asked for": sum(
                loss(x, y, name) for name in _trunk().taps
            ),
            "you scaled to unit channels, as LPIPS will; this loss compares the raw features": (
                (unit(_features(x, layer)) - unit(_features(y, layer))).square().mean((1, 2, 3))
            ),
            "the trunk already subtracts the ImageNet means; give it [0, 1]": loss(scaled[0], scaled[1]),
            "you fed [-1, 1]; the trunk takes [0, 1]": loss(2 * x - 1, 2 * y - 1),
        },
        atol=1e-6,
    )
    _wants_gradient(lambda images: attempt(_trunk(), layer, images, y.clone()), x)


@exercise("6.6")
def style_loss(attempt: Callable, random: torch.Generator) -> None:
    """Sum over layers of the squared Frobenius distance of Gram matrices, per image, for any two sizes."""
    layers = ("relu1", "relu3")
    x, y = _patches(3)

    def matrices(images: Tensor, layer: str, divide: bool = True) -> Tensor:
        features = _features(images, layer)
        sums = torch.einsum("nchw,ndhw->ncd", features, features)
        return sums / features[0].numel() if divide else sums

    def distance(layer: str, a: Tensor = x, b: Tensor = y, divide: bool = True) -> Tensor:
        return (matrices(a, layer, divide) - matrices(b, layer, divide)).square().sum((1, 2))

    expected = _total(distance(layer) for layer in layers)
    apart = [matrices(x, layer) - matrices(y, layer) for layer in layers]
    contents = [_features(x, layer) - _features(y, layer) for layer in layers]
    expect_close(
        attempt(_trunk(), layers, x.clone(), y.clone()),
        expected,
        {
            "one number for the whole batch; keep the batch axis: shape (n,)": expected.mean(),
            "you summed over the batch as well; keep the batch axis: shape (n,)": expected.sum(),
            "this is the last layer only; did you overwrite the sum?": distance(layers[-1]),
            "this is the first layer only; is the `return` inside the loop?": distance(layers[0]),
            "you took the mean over the layers; sum them": expected / len(layers),
            "you took the mean of the squared differences; the Frobenius norm sums": (
                _total(difference.square().mean((1, 2)) for difference in apart)
            ),
            "that is the norm; the loss is its *square*": _total(difference.norm(dim=(1, 2)) for difference in apart),
            "these are absolute differences; square them": (
                _total(difference.abs().sum((1, 2)) for difference in apart)
            ),
            "the Gram matrices are not divided by c h w": _total(distance(layer, divide=False) for layer in layers),
            "you compared the features; compare their Gram matrices": (
                _total(difference.square().mean((1, 2, 3)) for difference in contents)
            ),
            "you summed all of the trunk's layers; use those that were asked for": (
                _total(distance(layer) for layer in _trunk().taps)
            ),
        },
        atol=1e-9,
    )
    wide = torch.cat([y, y.flip(3)], 3)
    actual, expected = attempt(_trunk(), layers, x.clone(), wide), _total(distance(layer, x, wide) for layer in layers)
    expect_close(
        actual,
        expected,
        {
            "wrong where x and y differ in size; divide each Gram matrix by its own c h w": lambda found: (
                found.shape == expected.shape
            )
        },
        atol=1e-9,
    )
    _wants_gradient(lambda images: attempt(_trunk(), layers, images, y.clone()), x)


@exercise("6.7")
def descend(attempt: Callable, random: torch.Generator) -> None:
    """Projected gradient descent on images: each step goes down the gradient, then back into [0, 1]."""
    steps, *shape = _numbers(random, 3, 7, 3)
    start, goal, steep = torch.rand(3, 2, 3, *shape, generator=random)
    goal = 1.6 * goal - 0.3
    rate = 1.2

    def loss(images: Tensor) -> Tensor:
        if images.shape != start.shape:
            raise Mistake(f"the images became {tuple(images.shape)}; they have to keep the shape {tuple(start.shape)}")
        return (0.7 * steep * (images - goal).square()).sum((1, 2, 3))

    def path(
        step: float = rate, n: int = steps, momentum: bool = False, sign: bool = False, every: bool = True
    ) -> Tensor:
        images, total = start.clone(), torch.zeros_like(start)
        for _ in range(n):
            slope = 1.4 * steep * (images - goal)
            total = total + slope if momentum else slope
            images = images - step * (total.sign() if sign else total)
            images = images.clamp(0, 1) if every else images
        return images

    given = start.clone()
    actual = attempt(loss, given, steps, rate)
    if not torch.equal(given, start):
        raise Mistake("you changed `start`, which is not yours; work on a copy: start.clone()")
    expect_close(
        actual,
        path(),
        {
            "you went *up* the gradient; subtract it": path(-rate),
            "the images leave [0, 1]; clamp them after every step": path(every=False),
            "you clamped only at the end; clamp after *every* step": path(every=False).clamp(0, 1),
            "the gradients add up from step to step; start each one without the last one's": path(momentum=True),
            "one step too few": path(n=steps - 1),
            "one step too many": path(n=steps + 1),
            "this is one step; take `steps` of them": path(n=1),
            "the images did not move": start,
            "your loss is the mean over the batch, so every image moves less; sum it, then each has its own gradient": (
                path(rate / len(start))
            ),
            "you used the sign of the gradient; use the gradient": path(sign=True),
            "this is a loss; return the images": lambda found: found.ndim < 2,
        },
    )
    if actual.requires_grad:
        raise Mistake("the result still carries its history; return it detached")


@exercise("6.8")
def my_disagreement(attempt: Callable, random: torch.Generator) -> None:
    """Open-ended: SSIM finds the first image clearly more similar to a photograph, and you the second."""
    photo = photos.single("chelsea")[..., 20:276:2, 100:356:2]
    pair = attempt(photo.clone())
    if pair is None:
        raise Mistake("your function returns nothing; did you forget `return`?")
    if not (isinstance(pair, tuple | list) and len(pair) == 2):
        raise Mistake("return two images: first what SSIM finds more similar, then what you do")
    for image in pair:
        expect_shape(image, tuple(photo.shape), "keep the photograph's shape")
        if image.isnan().any() or image.min() < 0 or image.max() > 1:
            raise Mistake("an image leaves [0, 1]; clamp it before you return it")
        if (image - photo).square().mean() < 1e-4:
            raise Mistake(
                "one of your images is the photograph, or nearly so; change both, to an MSE of 0.0001 or more"
            )
    theirs, yours = (ssim(photo, image.detach().float()).item() for image in pair)
    if yours > theirs:
        raise Mistake(f"SSIM agrees with you: {yours:.3f} for your choice, {theirs:.3f} for the other; look further")
    if theirs - yours < 0.2:
        raise Mistake(f"SSIM hardly prefers the first: {theirs:.3f} against {yours:.3f}; reach a difference of 0.2")
