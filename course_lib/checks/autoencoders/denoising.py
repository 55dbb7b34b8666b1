"""Exercise 1.4: restore what noise destroyed."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from course_lib.autoencoders import Autoencoder
from course_lib.checks import Mistake, exercise, expect_close, expect_shape

SIGMA = 0.3
SHAPE = (3, 6, 8)  # channels, too, so that a sum or noise that leaves them out shows


class Recorder(Autoencoder):
    """A linear autoencoder that remembers what it was given: the code is the image, the decoder mixes each row."""

    def __init__(self, mix: Tensor):
        super().__init__(nn.Sequential(nn.Flatten()), nn.Sequential(nn.Unflatten(1, SHAPE)), math.prod(SHAPE), SHAPE)
        self.mix = nn.Parameter(mix)
        self.seen: list[Tensor] = []

    def encode(self, images: Tensor) -> Tensor:
        """The pixels, in a row."""
        self.seen.append(images)
        return super().encode(images)

    def decode(self, code: Tensor) -> Tensor:
        """Every row of pixels, mixed."""
        return super().decode(code) @ self.mix


def _sum(difference: Tensor) -> Tensor:
    return difference.square().sum((1, 2, 3))


@exercise("1.4")
def denoising_loss(attempt: Callable, random: torch.Generator) -> None:
    """|f(x + noise) - x|^2, summed over pixels and averaged over images; without noise in evaluation mode."""
    n = 30 + int(torch.randint(10, (), generator=random))
    images = torch.rand(n, *SHAPE, generator=random)
    width = SHAPE[2]
    model = Recorder(torch.eye(width) + 0.2 * torch.randn(width, width, generator=random))
    found = _run(attempt, model, images)
    if len(model.seen) != 1:
        raise Mistake(f"you called the model {len(model.seen)} times; once, with the noisy images")
    seen = model.seen[0]
    expect_shape(seen, tuple(images.shape), "the model takes the images, as they are")
    _expect_noise(seen, images)
    _expect_loss(found, model, seen, images)
    _expect_seeded(attempt, model, images, seen)
    (slope,) = torch.autograd.grad(found, model.mix, allow_unused=True) if found.requires_grad else (None,)
    if slope is None:
        raise Mistake("right, but without a gradient, so nothing can be trained: no .detach(), .item() or no_grad()")
    model.eval()
    model.seen.clear()
    found = _run(attempt, model, images)
    if model.training:
        raise Mistake("right, but you put the model back into training mode; look at model.training and leave it")
    if not torch.allclose(model.seen[-1], images):
        raise Mistake("right in training, but in evaluation mode (model.training is False) no noise is added")
    expect_close(found, _sum(model(images) - images).mean())


def _run(attempt: Callable, model: Recorder, images: Tensor, seed: int = 1) -> Tensor:
    given = images.clone()
    found = attempt(model, given, SIGMA, torch.Generator().manual_seed(seed))
    if not torch.equal(given, images):
        raise Mistake("you added the noise in place, so that the clean images are lost: images + noise")
    if found is None:
        raise Mistake("your function returns nothing; did you forget `return`?")
    if not isinstance(found, Tensor):
        raise Mistake(f"your function returns a {type(found).__name__}; a torch.Tensor was expected")
    if not model.seen:
        raise Mistake("you never called the model; its reconstruction is model(noisy)")
    return found


def _expect_noise(seen: Tensor, images: Tensor) -> None:
    noise = (seen - images).detach()
    size, mean = noise.square().mean().sqrt().item(), noise.mean().item()
    if size == 0:
        raise Mistake("the model sees clean images; it should see noisy ones in training, and aim at the clean ones")
    if seen.min() >= 0 and seen.max() <= 1:
        raise Mistake("the noisy images were clamped to [0, 1]; the noise is then no longer Gaussian: leave them")
    _expect_own_noise(noise, images)
    if noise.min() >= 0:
        raise Mistake("the noise is torch.rand's, between 0 and 1 and never negative; Gaussian noise is torch.randn")
    if noise.abs().max() < 2.5 * size:
        raise Mistake("the noise is uniform; Gaussian noise is torch.randn")
    kinds = {
        "the noise has standard deviation 1; multiply it by sigma": 1,
        "sigma is the standard deviation, not the variance: no square": SIGMA**2,
        "sigma is the standard deviation, not the variance: no root": SIGMA**0.5,
    }
    for message, wrong in kinds.items():
        if abs(size / wrong - 1) < 0.04:
            raise Mistake(message)
    if abs(mean) > 0.1 * size:
        raise Mistake(f"the noise has mean {mean:.2f}; Gaussian noise of mean 0 is sigma * torch.randn")
    if abs(size / SIGMA - 1) > 0.04:
        raise Mistake(f"the noise has standard deviation {size:.3f}, and sigma is {SIGMA}")


def _expect_own_noise(noise: Tensor, images: Tensor) -> None:
    """Noise of its own for every number, whatever that number is."""
    shared: dict[str, tuple[int, ...]] = {"image": (0,), "channel": (1,), "pixel of an image": (2, 3)}
    for what, axes in shared.items():
        if torch.allclose(noise, noise.mean(axes, keepdim=True), atol=1e-4):
            raise Mistake(f"every {what} got the same noise; draw it in the shape of all the images: images.shape")
    bright = images > 0.5
    if noise[bright].square().mean() > 2 * noise[~bright].square().mean():
        raise Mistake("the noise grows with the pixel; do not multiply by the image: images + sigma * torch.randn(...)")


def _expect_loss(found: Tensor, model: Recorder, seen: Tensor, images: Tensor) -> None:
    with torch.no_grad():
        output = model(seen)
        clean = model(images)
    model.seen.pop(), model.seen.pop()
    difference, true = output - images, _sum(output - images).mean()
    n, pixels = len(images), images[0].numel()
    mistakes = {
        "the target is noisy; it is the clean image, or the model learns to copy noise": _sum(output - seen).mean(),
        "that compares with the clean image's reconstruction; the target is the clean image": (
            _sum(output - clean).mean()
        ),
        "that compares the input with its target; the model's output is missing": _sum(seen - images).mean(),
        "you averaged over the pixels; the chapter's error is their sum, averaged over the images": true / pixels,
        "you averaged over the channels; sum over (1, 2, 3), average over the images only": true / len(images[0]),
        "you summed over the images; average over them": true * n,
        "the square is missing: |difference|^2": [
            difference.abs().sum((1, 2, 3)).mean(),
            difference.sum((1, 2, 3)).mean(),
        ],
        "that is the length of the difference; take its square": [
            _sum(difference).sqrt().mean(),
            _sum(difference).mean().sqrt(),
        ],
        "there is a 1/2 in front; the chapter's error has none": true / 2,
        "one number for every image; average over them": _sum(difference),
        # noise of the same size that is independent of what the model saw adds its own variance
        "noise was added to the target as well; the target is the clean image": lambda loss: (
            loss.numel() == 1 and abs(loss - true - pixels * SIGMA**2) < 0.1 * pixels * SIGMA**2
        ),
    }
    expect_close(found, true, mistakes)


def _expect_seeded(attempt: Callable, model: Recorder, images: Tensor, seen: Tensor) -> None:
    for seed, same in ((1, True), (2, False)):
        model.seen.clear()
        torch.manual_seed(seed)
        _run(attempt, model, images, seed)
        if torch.equal(model.seen[-1], seen) != same:
            raise Mistake(
                "right, but the noise does not follow the generator: torch.randn(images.shape, generator=generator)"
                if same
                else "right, but every seed gives the same noise; use the generator as it is, and do not seed it again"
            )
