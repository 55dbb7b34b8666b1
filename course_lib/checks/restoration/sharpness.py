"""Exercise 2.8, open-ended: a loss whose pictures look sharp, and are not made up."""

import copy
import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from course_lib.checks import Mistake, exercise, expect_shape
from course_lib.data import photos
from course_lib.lpips import LPIPS
from course_lib.restoration import Degraded, UNet, downsample, l2, psnr, restore, turned

STEPS, BATCH, RATE, SIZE = 30, 4, 2e-3, 64
FIRST_STEPS, FIRST_BATCH = 120, 8
SHARP, FAITHFUL = 0.24, 24.5  # LPIPS at most, PSNR in dB at least

Loss = Callable[[Tensor, Tensor], Tensor]


class Score(NamedTuple):
    """What :func:`score` measures, as means over the held-out crops.

    Attributes:
        psnr: in decibels, larger is better.
        lpips: of the shift-tolerant AlexNet, smaller is better.
    """

    psnr: float
    lpips: float


@functools.cache
def held_out() -> tuple[Degraded, Tensor]:
    """24 crops of the test photographs: shrunk to a quarter of their width, and the truth (24, 3, 64, 64)."""
    truth = photos.crops("test", 24, SIZE, seed=2).images.float() / 255
    return downsample(truth, factor=4), truth


@functools.cache
def _lpips() -> LPIPS:
    return LPIPS()


@functools.cache
def _crops() -> Tensor:
    return photos.crops("train", 96, SIZE, seed=1).images


@functools.cache
def _first() -> UNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = UNet(width=16, depth=1)
    return _train(network, l2, FIRST_STEPS, FIRST_BATCH, seed=1)


def start() -> UNet:
    """Where everybody begins: a U-Net of 24,000 weights that learned to enlarge four times, with L2."""
    return copy.deepcopy(_first())


def train(loss: Loss) -> UNet:
    """The network of :func:`start` after 30 more steps of 4 training crops with `loss`, the same for everybody.

    Args:
        loss: of (restored, truth), (n, 3, 64, 64) each; one number per image. Restored pixels may leave [0, 1].
    """
    return _train(start(), loss, STEPS, BATCH, seed=2)


def score(network: nn.Module) -> Score:
    """PSNR and LPIPS of the held-out crops, restored."""
    degraded, truth = held_out()
    restored = restore(network, degraded)
    with torch.no_grad():
        return Score(float(psnr(restored, truth).mean()), float(_lpips()(restored, truth).mean()))


def _train(network: UNet, loss: Loss, steps: int, batch: int, seed: int) -> UNet:
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), RATE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    network.train()
    for step in range(steps):
        truth = turned(_crops()[torch.randint(len(_crops()), (batch,), generator=random)], random).float() / 255
        value = loss(network(downsample(truth, factor=4).network_input()), truth).mean()
        if not value.isfinite():
            raise Mistake(f"the loss is {value.item()} at step {step}; where does it divide by 0?")
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


@exercise("2.8")
def sharp_loss(attempt: Callable, random: torch.Generator) -> None:
    """Open-ended: the loss with which a network's enlarged pictures come near to the truth in LPIPS, and in PSNR."""
    _expect_loss(attempt, random)
    found = score(train(attempt))
    if found.lpips > SHARP:
        raise Mistake(f"LPIPS {found.lpips:.3f}, at PSNR {found.psnr:.1f} dB; reach {SHARP} at most: sharper pictures")
    if found.psnr < FAITHFUL:
        raise Mistake(
            f"PSNR {found.psnr:.1f} dB, at LPIPS {found.lpips:.3f}; stay above {FAITHFUL} dB: too much is made up"
        )


def _expect_loss(attempt: Callable, random: torch.Generator) -> None:
    truth = torch.rand(2, 3, SIZE, SIZE, generator=random)
    restored = (1.4 * torch.rand(truth.shape, generator=random) - 0.2).requires_grad_()
    given = restored.clone(), truth.clone()  # no leaves, as in training
    try:
        value = attempt(*given)
    except ValueError as error:
        if "[0, 1]" not in str(error):
            raise
        raise Mistake(
            "a metric that accepts only images in [0, 1] was given restored pixels that leave it; clamp them for it"
        ) from error
    if not all(map(torch.equal, given, (restored, truth))):
        raise Mistake("you changed an input in place, and the caller still needs it; .clamp(0, 1), without _")
    expect_shape(value, (2,), "one number per image")
    if not value.requires_grad:
        raise Mistake("the loss has no gradient by restored: no .detach(), .item() or no_grad()")
    (slope,) = torch.autograd.grad(value.sum(), restored, allow_unused=True)
    if slope is None or not slope.any():
        raise Mistake("the loss has no gradient by restored; it does not depend on it")
    if not slope.isfinite().all():
        raise Mistake("the loss has a gradient that is NaN or infinite")
    other = attempt(restored.detach().flip(1), truth)
    both = attempt(restored.detach(), truth)
    if torch.equal(other, both):
        raise Mistake("the loss does not see colours: swapping red and blue changes nothing; is it about one channel?")
