"""Checks of chapter 00's exercises: conventions, votes, and two images at one MSE."""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.checks import Mistake, exercise, expect_close


@exercise("0.1")
def to_images(attempt: Callable, random: torch.Generator) -> None:
    """A uint8 array (h, w, 3) becomes a float32 tensor (1, 3, h, w) in [0, 1]."""
    pixels = torch.randint(0, 256, (5, 4, 3), dtype=torch.uint8, generator=random)
    expected = pixels.permute(2, 0, 1)[None].float() / 255
    actual = attempt(pixels.numpy().copy())
    expect_close(
        actual,
        expected,
        {
            "the values are still 0 to 255; divide by 255": expected * 255,
            "you divided by 256, so white is not 1; divide by 255": expected * 255 / 256,
            "the batch axis is missing; add it with [None]": expected[0],
            "the channels are still last; permute(2, 0, 1) puts them first": pixels[None] / 255,
            "reshape keeps the memory order and scrambles the picture; use permute(2, 0, 1)": (
                pixels.reshape(1, 3, 5, 4) / 255
            ),
            "height and width are swapped; it is permute(2, 0, 1)": expected.transpose(2, 3),
        },
    )
    if actual.dtype != torch.float32:
        raise Mistake(f"the result has dtype {actual.dtype}; the course uses torch.float32")


@exercise("0.2")
def to_unit_range(attempt: Callable, random: torch.Generator) -> None:
    """Images in [-1, 1], as many networks' authors store them, become images in [0, 1]."""
    images = torch.rand(2, 3, 4, 5, generator=random) * 1.8 - 0.9
    low, high = images.min(), images.max()
    expect_close(
        attempt(images.clone()),
        (images + 1) / 2,
        {
            "you shifted but did not scale: the range is now [0, 2]; divide by 2": images + 1,
            "you scaled but did not shift: the range is now [-0.5, 0.5]; add 1 first": images / 2,
            "you divided before adding 1: the range is now [0.5, 1.5]": images / 2 + 1,
            "clamping throws the darker half away; it has to be mapped: (x + 1) / 2": images.clamp(0, 1),
            "you stretched this batch to its own minimum and maximum; -1 always has to become 0": (
                (images - low) / (high - low)
            ),
        },
    )


@exercise("0.3")
def perturbation_size(attempt: Callable, random: torch.Generator) -> None:
    """L2 norm of each image's change, (n,), on the [0, 1] scale."""
    images, changed = torch.rand(2, 3, 3, 8, 8, generator=random)
    change = (changed - images).flatten(1)
    expect_close(
        attempt(images.clone(), changed.clone()),
        change.norm(dim=1),
        {
            "this is the *mean* of the squares; an L2 norm is the root of their *sum*": change.square().mean(1),
            "you took one norm over the whole batch; every image has its own": change.norm(),
            "this is the squared norm; take the square root": change.square().sum(1),
            "this is the root of the *mean* square; an L2 norm sums": change.square().mean(1).sqrt(),
            "this is the L1 norm, the sum of absolute changes": change.abs().sum(1),
            "this is the L-infinity norm, the largest change": change.abs().amax(1),
            "this is in 0-255 units; the course's eps is on the [0, 1] scale": 255 * change.norm(dim=1),
            "you summed over one axis only; flatten(1) first": lambda actual: actual.ndim > 1,
        },
    )


@exercise("0.4")
def judge(attempt: Callable, random: torch.Generator) -> None:
    """Votes (n, observers), 1 for p1 and 0 for p0, become the fraction of votes for p1, (n,)."""
    votes = torch.randint(0, 2, (7, 5), generator=random)
    votes[0], votes[1] = 1, 0
    share = votes.float().mean(1)
    try:
        actual = attempt(votes.clone())
    except NotImplementedError as error:
        if "could not infer output dtype" not in str(error):
            raise
        raise Mistake("votes are whole numbers; .float() before the mean") from error
    expect_close(
        actual,
        share,
        {
            "this is the fraction for p0; judge counts the votes for p1": 1 - share,
            "this is a majority vote; keep the fraction, it says how sure people were": share.round(),
            "this is the number of votes; divide by the number of observers": votes.sum(1),
            "you averaged over the triplets; average over the observers, dim=1": votes.float().mean(0),
            "this is one number for everything; every triplet has its own": share.mean(),
        },
    )


@exercise("0.5")
def score(attempt: Callable, random: torch.Generator) -> None:
    """The 2AFC score of each decision, (n,): the fraction of people who agree with the closer image."""
    d0, d1, votes = torch.rand(3, 9, generator=random)
    d1[0] = d0[0]
    expected = torch.where(d0 < d1, 1 - votes, votes)
    without_tie, tie_to_p0 = expected.clone(), torch.where(d1 < d0, votes, 1 - votes)
    expected[0] = 0.5
    hard = ((d1 < d0) == (votes > 0.5)).float()
    hard_tie = torch.where(d0 == d1, 0.5, hard)
    expect_close(
        attempt(d0.clone(), d1.clone(), votes.clone()),
        expected,
        {
            "the decision is reversed: the *smaller* distance is the closer image": 1 - expected,
            "the decision is reversed, and ties are no coin toss: prefer the *smaller* distance, score ties 0.5": [
                1 - without_tie,
                1 - tie_to_p0,
            ],
            "a tie is a coin toss: where d0 == d1 the score is 0.5": without_tie,
            "the tie is decided for p0; where d0 == d1 the score is 0.5": tie_to_p0,
            "you scored against the majority; the score is the *fraction* that agrees": hard_tie,
            "you scored against the majority; the score is the *fraction* that agrees, and 0.5 for a tie": [
                hard,
                ((d1 <= d0) == (votes > 0.5)).float(),
            ],
            "this is the mean; return one score per triplet": expected.mean(),
        },
    )


@exercise("0.6")
def equal_strength(attempt: Callable, random: torch.Generator) -> None:
    """By bisection, the strength in [0, 1] at which an increasing function reaches a target."""
    calls: list[float] = []

    def mse_of(strength: float) -> float:
        if not 0 <= strength <= 1:
            raise Mistake(f"you tried strength {strength:.3g}; it has to stay between 0 and 1")
        calls.append(strength)
        if len(calls) > 200:
            raise Mistake("more than 200 calls; each one halves the interval, so 30 are enough")
        return scale * strength**power

    scale, power, share = torch.rand(3, generator=random).tolist()
    scale, power, share = scale + 0.3, power + 2, 0.2 + share / 2
    strength, target = share ** (1 / power), share * scale
    actual = attempt(mse_of, target)
    expect_close(
        float(actual) if isinstance(actual, Tensor | float | int) else actual,
        strength,
        {
            "you return the MSE that was reached; return the strength": target,
            "you ran into the end of the interval: when the MSE is too small, raise the *lower* end": (
                lambda found: min(found, 1 - found) < 1e-3
            ),
            "this assumes that the MSE grows linearly with the strength; it does not": target / scale,
            "close, but not exact; halve the interval until it is shorter than 1e-8": (
                lambda found: abs(found - strength) < 0.05
            ),
        },
        atol=1e-7,
        rtol=0.0,
    )


@exercise("0.7")
def my_pair(attempt: Callable, random: torch.Generator) -> None:
    """Open-ended: two different images at the same MSE from a photograph, between 0.001 and 0.02."""
    photo = torch.rand(1, 3, 8, 8, generator=random).mul(0.6).add(0.2)
    photo = torch.nn.functional.interpolate(photo, size=(64, 64), mode="bicubic").clamp(0, 1)
    photo[..., :8, :8], photo[..., -8:, -8:] = 0, 1  # no room below, no room above: a shift of brightness leaves [0, 1]
    pair = attempt(photo.clone())
    if pair is None:
        raise Mistake("your function returns nothing; did you forget `return`?")
    if not (isinstance(pair, tuple | list) and len(pair) == 2):
        raise Mistake("return two images: return first, second")
    for image in pair:
        if not isinstance(image, Tensor) or image.shape != photo.shape:
            raise Mistake(f"both images have to be tensors of the photograph's shape {tuple(photo.shape)}")
        if image.min() < 0 or image.max() > 1:
            raise Mistake("an image leaves [0, 1], so it cannot be shown; clamp it *before* you measure the MSE")
    first, second = ((image - photo).square().mean().item() for image in pair)
    if min(first, second) == 0:
        raise Mistake("one of your images is the photograph itself; change both")
    if abs(first - second) > 1e-3 * max(first, second):
        raise Mistake(f"the MSEs differ: {first:.3g} and {second:.3g}; make them equal to 0.1 percent")
    if not 0.001 <= first <= 0.02:
        raise Mistake(f"both have MSE {first:.3g}; choose one between 0.001 and 0.02")
    if (pair[0] - pair[1]).square().mean() < 0.1 * first:
        raise Mistake("your two images are nearly the same; find two *different* ways to spend the same MSE")
