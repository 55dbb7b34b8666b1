"""Checks of chapter 07's exercises: LPIPS from its parts, its embedding, and what it is used for."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.checks import Mistake, exercise, expect_close, expect_shape
from course_lib.data import photos
from course_lib.lpips import LPIPS
from course_lib.trunks import Trunk

_MEAN, _STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@exercise("7.1")
def scale_input(attempt: Callable, random: torch.Generator) -> None:
    """Images in [0, 1] become what an ImageNet network was trained on: per channel, minus mean, over deviation."""
    images = torch.rand(2, 3, 4, 3, generator=random)  # a width of 3, so that a wrong axis does not crash
    mean, std = _MEAN.view(1, 3, 1, 1), _STD.view(1, 3, 1, 1)
    expect_close(
        attempt(images.clone()),
        (images - mean) / std,
        {
            "red and blue are swapped; the channels are R, G, B": (images - mean.flip(1)) / std.flip(1),
            "you divided by the variances; divide by the deviations, without a square": (images - mean) / std.square(),
            "you scaled to [-1, 1] first; the means and deviations are for images in [0, 1]": (
                (2 * images - 1 - mean) / std
            ),
            "these are [-1, 1], as LPIPS 0.0 fed them by mistake; use the ImageNet means and deviations": 2 * images
            - 1,
            "you subtracted the means, but did not divide by the deviations": images - mean,
            "you divided by the deviations, but did not subtract the means first": images / std,
            "you divided before subtracting; it is (images - mean) / std, with the brackets": images - mean / std,
            "you multiplied by the deviations; divide by them": (images - mean) * std,
            "mean and deviation were applied along the width; give them the shape (1, 3, 1, 1)": (images - _MEAN)
            / _STD,
            "you used the batch's own statistics; the network needs those of its training images": (
                (images - images.mean((0, 2, 3), keepdim=True)) / images.std((0, 2, 3), keepdim=True)
            ),
            "the images are already in [0, 1]; do not divide by 255": (images / 255 - mean) / std,
        },
    )


@exercise("7.2")
def unit_channels(attempt: Callable, random: torch.Generator) -> None:
    """Every position's channel vector has length 1; where no channel fires it stays 0."""
    features = torch.randn(2, 5, 4, 3, generator=random).relu()
    features[:, 0] += 0.1  # no position without any channel that fires; those come below
    length = _length(features, 1)
    centred = features - features.mean(1, keepdim=True)
    expect_close(
        attempt(features.clone()),
        features / length,
        {
            "you normalised over space, not channels: dim=1 is the channel axis": (
                features / _length(features, 2, 3).clamp_min(1e-12)
            ),
            "you normalised over the batch, not channels: dim=1 is the channel axis": (
                features / _length(features, 0).clamp_min(1e-12)
            ),
            "one length for the whole image; every position has its own: only dim=1": (
                features / _length(features, 1, 2, 3)
            ),
            "you divided by the squared length; take the square root": features / length.square(),
            "that is the sum of absolute values; the length is the root of the sum of squares": (
                features / features.abs().sum(1, keepdim=True)
            ),
            "that is a softmax; divide by the length": features.softmax(1),
            "you divided by the largest channel; divide by the length": features / features.amax(1, keepdim=True),
            "LPIPS subtracts no mean; only divide by the length": centred / _length(centred, 1),
        },
    )
    features[0, :, 1, 2] = 0
    if attempt(features.clone()).isnan().any():
        raise Mistake("NaN where no channel fires, because of 0 / 0; add a tiny number to the length")
    expect_close(attempt(features.clone()), _unit(features))


def _length(features: Tensor, *axes: int) -> Tensor:
    return torch.linalg.vector_norm(features, dim=axes, keepdim=True)


def _unit(features: Tensor) -> Tensor:
    return features / _length(features, 1).clamp_min(1e-12)


@exercise("7.3")
def layer_distance(attempt: Callable, random: torch.Generator) -> None:
    """One layer's part of LPIPS, from two feature maps and the channels' weights."""
    fx, fy = torch.randn(2, 2, 5, 4, 3, generator=random)
    head = torch.rand(5, generator=random)
    w = head.view(1, 5, 1, 1)
    squared = (_unit(fx) - _unit(fy)).square()
    expected = (w * squared).sum(1).mean((1, 2))
    expect_close(
        attempt(fx.clone(), fy.clone(), head.clone()),
        expected,
        {
            "you compared the raw features; scale both to unit channels first": (
                (w * (fx - fy).square()).sum(1).mean((1, 2))
            ),
            "you scaled the difference; scale each feature map to unit channels, *then* subtract": (
                (w * _unit(fx - fy).square()).sum(1).mean((1, 2))
            ),
            "you forgot the head: weigh every channel's squared difference": squared.sum(1).mean((1, 2)),
            "the weights got squared; weigh *after* squaring the difference": (w * w * squared).sum(1).mean((1, 2)),
            "you summed over the positions; LPIPS takes their mean": (w * squared).sum((1, 2, 3)),
            "you took the mean over the channels too; they are summed": (w * squared).mean((1, 2, 3)),
            "these are absolute differences; square them": (w * squared.sqrt()).sum(1).mean((1, 2)),
            "you took the square root; LPIPS is a *squared* distance": expected.sqrt(),
            "square root at every position; LPIPS takes no root": (w * squared).sum(1).sqrt().mean((1, 2)),
            "one number for the whole batch; keep the batch axis: shape (n,)": expected.mean(),
            "this is a map; take the mean over its positions": (w * squared).sum(1),
        },
    )


@functools.cache
def _st_alex() -> LPIPS:
    return LPIPS("st-alex")


def _parts() -> tuple[Trunk, list[Tensor]]:
    network = _st_alex().network
    return network.trunk, [head.detach() for head in network.heads]


def _patches(n: int) -> tuple[Tensor, Tensor]:
    images = photos.crops("train", 2 * n, size=32, seed=7).images.float() / 255
    return images[:n], images[n:].lerp(images[:n], 0.5)


def _layers(x: Tensor, y: Tensor, change: Callable = lambda w, squared: (w * squared).sum(1).mean((1, 2))) -> Tensor:
    """(n, layers): what `change` makes of weights (1, c, 1, 1) and squared differences of unit features."""
    trunk, heads = _parts()
    pairs = zip(heads, trunk(x).values(), trunk(y).values(), strict=True)
    return torch.stack([change(w.view(1, -1, 1, 1), (_unit(a) - _unit(b)).square()) for w, a, b in pairs], 1)


@exercise("7.4")
def lpips(attempt: Callable, random: torch.Generator) -> None:
    """The whole of LPIPS, from a trunk and its heads."""
    x, y = _patches(2)
    layers = _layers(x, y)
    expected = layers.sum(1)
    expect_close(
        attempt(x.clone(), y.clone(), *_parts()),
        expected,
        {
            "you took the mean over the layers; they are summed": layers.mean(1),
            "this is the last layer only; did you `return` inside the loop, or overwrite the sum?": layers[:, -1],
            "this is the first layer only; is the `return` inside the loop?": layers[:, 0],
            "you returned one number per layer; sum them": layers,
            "you took the square root; LPIPS is a *squared* distance": expected.sqrt(),
            "you scaled the images before the trunk; `Trunk` already does this, give it [0, 1]": (
                _layers((x - _MEAN.view(3, 1, 1)) / _STD.view(3, 1, 1), (y - _MEAN.view(3, 1, 1)) / _STD.view(3, 1, 1))
            ).sum(1),
            "you fed [-1, 1]; `Trunk` takes [0, 1]": _layers(2 * x - 1, 2 * y - 1).sum(1),
            "the heads are missing: weigh the channels of every layer": _layers(
                x, y, lambda w, squared: squared.sum(1).mean((1, 2))
            ).sum(1),
            "you summed over the positions; LPIPS takes their mean, layer by layer": _layers(
                x, y, lambda w, squared: (w * squared).sum((1, 2, 3))
            ).sum(1),
            "one number for the whole batch; keep the batch axis: shape (n,)": expected.mean(),
        },
    )


@exercise("7.5")
def embed(attempt: Callable, random: torch.Generator) -> None:
    """A point for every image, such that LPIPS is the squared Euclidean distance of two points."""
    x, y = _patches(2)
    first, second = (attempt(images.clone(), *_parts()) for images in (x, y))
    if not isinstance(first, Tensor) or first.ndim != 2:
        expect_shape(first, (2, _st_alex().embed(x).shape[1]), "one vector per image: flatten(1), then torch.cat(…, 1)")
    if first.shape[0] != 2:
        raise Mistake(f"the result has shape {tuple(first.shape)} for 2 images; the batch axis comes first: flatten(1)")
    trunk, heads = _parts()
    raw = [
        (w.view(1, -1, 1, 1) * (a - b).square()).sum(1).mean((1, 2))
        for w, a, b in zip(heads, trunk(x).values(), trunk(y).values(), strict=True)
    ]
    expect_close(
        (first - second).square().sum(1),
        _layers(x, y).sum(1),
        {
            "scale by the *root* of the head: squaring the difference squares the weights": _layers(
                x, y, lambda w, squared: (w.square() * squared).sum(1).mean((1, 2))
            ).sum(1),
            "the heads are missing: scale every channel by the root of its weight": _layers(
                x, y, lambda w, squared: squared.sum(1).mean((1, 2))
            ).sum(1),
            "large layers count too much: divide by the root of the number of positions, h * w": _layers(
                x, y, lambda w, squared: (w * squared).sum((1, 2, 3))
            ).sum(1),
            "divide by the *root* of the number of positions; the square makes it a mean": _layers(
                x, y, lambda w, squared: (w * squared).sum((1, 2, 3)) / squared[0, 0].numel() ** 2
            ).sum(1),
            "take the *root* of the head over the positions: squaring the difference squares the scale": _layers(
                x, y, lambda w, squared: (w.square() * squared).sum((1, 2, 3)) / squared[0, 0].numel() ** 2
            ).sum(1),
            "the features are not scaled to unit channels": sum(raw),
            "average pooling loses where things are; keep every position": lambda found: first.shape[1] == 1152,
            "this is one layer only; concatenate them all": lambda found: any(
                torch.allclose(found, layer, rtol=1e-3) for layer in _layers(x, y).T
            ),
        },
        rtol=1e-3,
    )


@exercise("7.6")
def agreement(attempt: Callable, random: torch.Generator) -> None:
    """Mean 2AFC score of a metric on triplets: the share of votes that agree with it, ties half."""
    ref, p0, p1 = torch.rand(3, 12, 3, 2, 2, generator=random)
    p1[:3] = p0[:3]
    judge = torch.randint(6, (12,), generator=random) / 5
    calls = 0

    def distance(x: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return (x - y).square().mean((1, 2, 3))

    d0, d1 = distance(ref, p0), distance(ref, p1)
    calls = 0
    agrees = torch.where(d1 < d0, judge, 1 - judge)
    to_p1 = torch.where(d1 <= d0, judge, 1 - judge)
    scores = torch.where(d0 == d1, 0.5, agrees)
    expected = scores.mean()
    actual = attempt(distance, ref.clone(), p0.clone(), p1.clone(), judge.clone())
    if calls == 0:
        raise Mistake("your function never calls distance(x, y)")
    between = distance(p0, p1)
    confused = torch.where(between < d0, judge, 1 - judge)
    expect_close(
        torch.as_tensor(actual) if isinstance(actual, float | int) else actual,
        expected,
        {
            "reversed: judge is the share of votes for p1, and d1 < d0 means that the metric prefers p1": 1 - expected,
            "ties went to p0; a metric that cannot decide scores 0.5": agrees.mean(),
            "ties went to p1; a metric that cannot decide scores 0.5": to_p1.mean(),
            "reversed, and ties went to one side: d1 < d0 means that the metric prefers p1, and ties score 0.5": [
                1 - agrees.mean(),
                1 - to_p1.mean(),
            ],
            "that is agreement with the majority, with ties on one side; average the votes that agree, ties 0.5": [
                (decision == (judge > 0.5)).float().mean() for decision in (d1 < d0, d1 <= d0)
            ],
            "that is agreement with the majority; average the share of votes that agree": torch.where(
                d0 == d1, 0.5, ((d1 < d0) == (judge > 0.5)).float()
            ).mean(),
            "one score per triplet; return their mean": scores,
            "you compared p0 with p1; both distances start at the reference": torch.where(
                between == d0, 0.5, confused
            ).mean(),
            "that is a correlation; 2AFC counts agreeing votes": lambda found: torch.allclose(
                found, torch.corrcoef(torch.stack([d0 - d1, judge]))[0, 1], atol=1e-4
            ),
            "tied triplets were left out; each scores 0.5": agrees[d0 != d1].mean(),
        },
    )


@exercise("7.7")
def shift_curve(attempt: Callable, random: torch.Generator) -> None:
    """Mean distance between a window and the windows that lie k pixels to the right, for k = 0, 1, …, most."""
    most, size = 4, 6
    wide = torch.rand(3, 3, size, size + most, generator=random).cumsum(3) / 10

    def distance(x: Tensor, y: Tensor) -> Tensor:
        if x.shape[2] != y.shape[2]:
            raise Mistake("you cut rows; the shift is along the columns, the last axis: wide[..., k : k + width]")
        if x.shape != y.shape:
            raise Mistake(f"the windows differ in shape: {tuple(x.shape)} and {tuple(y.shape)}; cut both {size} wide")
        return (x - y).square().mean((1, 2, 3))

    window = wide[..., :size]
    windows = [wide[..., k : k + size] for k in range(most + 1)]

    def curve(pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
        return torch.stack([distance(a, b).mean() for a, b in pairs])

    expected = curve([(window, other) for other in windows])
    expect_close(
        attempt(distance, wide.clone(), most),
        expected,
        {
            "you rolled the window: what leaves on one side comes back on the other; cut a second window": curve(
                [(window, window.roll(-k, 3)) for k in range(most + 1)]
            ),
            "you rolled the whole picture; the windows are its columns 0 to w - most, cut without wrapping": curve(
                [(wide, wide.roll(-k, 3)) for k in range(most + 1)]
            ),
            "you rolled the rows; the shift is along the columns, the last axis": curve(
                [(window, window.roll(k, 2)) for k in range(most + 1)]
            ),
            "your windows get narrower as the shift grows; every window is wide.shape[3] - most columns wide": [
                curve([(a[..., : a.shape[3] - k], a[..., k:]) for k in range(most + 1)]) for a in (wide, window)
            ],
            "you compared neighbours, k - 1 with k; compare every window with the first": curve(
                [(windows[max(k - 1, 0)], windows[k]) for k in range(most + 1)]
            ),
            "the last shift is missing: k = 0, 1, …, most are most + 1 windows": expected[:-1],
            "the shift of 0 is missing; the curve starts there": expected[1:],
            "one value per image and shift; take the mean over the images": torch.stack(
                [distance(window, other) for other in windows]
            ),
            "these are sums over the images; take the mean": 3 * expected,
        },
    )


@exercise("7.8")
def fooled(attempt: Callable, random: torch.Generator) -> None:
    """Open-ended: two versions of a photograph that LPIPS ranks clearly, and you the other way round."""
    photo = photos.single("chelsea")[..., 20:276:2, 100:356:2]
    pair = attempt(photo.clone())
    if pair is None:
        raise Mistake("your function returns nothing; did you forget `return`?")
    if not (isinstance(pair, tuple | list) and len(pair) == 2):
        raise Mistake("return two images: first what LPIPS calls closer, then what you call closer")
    for image in pair:
        if not isinstance(image, Tensor) or image.shape != photo.shape:
            raise Mistake(f"both images have to be tensors of the photograph's shape {tuple(photo.shape)}")
        if image.isnan().any() or image.min() < 0 or image.max() > 1:
            raise Mistake("an image leaves [0, 1]; clamp it before you return it")
        if (image - photo).square().mean() < 1e-4:
            raise Mistake(
                "one of your images is the photograph, or nearly so; change both, to an MSE of 0.0001 or more"
            )
    theirs, yours = (_st_alex()(photo, image.detach()).item() for image in pair)
    if yours < theirs:
        raise Mistake(
            f"LPIPS agrees with you: {yours:.3f} for your choice, {theirs:.3f} for the other; find another pair"
        )
    if yours < 1.5 * theirs:
        raise Mistake(f"LPIPS hardly prefers the first: {theirs:.3f} against {yours:.3f}; reach a factor of 1.5")
