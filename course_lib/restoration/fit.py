"""Training a restorer with any loss, at a budget that is the same for all: the same crops, steps and damage."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from course_lib.restoration.degradations import Degrade, Degraded, psnr
from course_lib.restoration.losses import Loss, fooling_loss, hinge_loss
from course_lib.restoration.networks import restore
from course_lib.training import train

WARM_UP = 50  # steps


def fit(
    network: nn.Module,
    degrade: Degrade,
    crops: UInt8[Tensor, "n 3 h w"],
    loss: Loss,
    *,
    epochs: int,
    batch_size: int = 16,
    learning_rate: float = 1e-3,
    discriminator: nn.Module | None = None,
    adversarial_weight: float | int = 0.005,
    held_out: tuple[Degraded, Float[Tensor, "m 3 h2 w2"]] | None = None,
    folder: str | Path | None = None,
    settings: dict[str, Any] | None = None,
    seed: int = 0,
    precision: str = "fp32",
    progress: str | None = None,
) -> list[dict[str, Any]]:
    """Train `network` in place to undo `degrade`; return one record of metrics per epoch.

    With a discriminator the same step trains both: the restorer's loss gets `adversarial_weight` times
    :func:`~.losses.fooling_loss`, whose gradient stops before the discriminator, and the discriminator learns from
    :func:`~.losses.hinge_loss`, whose gradient stops before the restorer. So one sum serves two players, and the
    loss in the record is that sum.

    Args:
        network: takes ``Degraded.network_input()``.
        degrade: draws new damage in every epoch.
        crops: clean photographs, uint8; turned and mirrored at random.
        loss: of (restored, truth), one number per image.
        epochs: passes over the crops; the budget is epochs x (n // batch_size) steps.
        batch_size: images per step.
        learning_rate: of Adam, after a warm-up, before it falls to 0 along a cosine.
        discriminator: for adversarial training.
        adversarial_weight: how much fooling it counts.
        held_out: (degraded, truth); their mean PSNR joins every record.
        folder: receives checkpoints and metrics; a part of this run that is there is continued.
        settings: what else decides the result, such as the names of task and loss: a folder with others is refused.
        seed: of order, turns, damage.
        precision: "fp32" or "bf16".
        progress: what to write before the progress bar.

    Raises:
        ValueError: if there are fewer crops than one batch.
        TrainingError: as :func:`course_lib.training.train`.
    """
    if len(crops) < batch_size:
        raise ValueError(f"{len(crops)} crops do not fill a batch of {batch_size}; cut more, or make batches smaller")
    players = nn.ModuleDict({"network": network} | ({"discriminator": discriminator} if discriminator else {}))
    optimizer = torch.optim.Adam(players.parameters(), lr=learning_rate, betas=(0.9, 0.99))

    def batch_loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, truth = batch
        restored = network(inputs)
        if inputs.shape[1] == 4:  # what is known will be pasted: only what was missing is to be learned
            restored = torch.where(inputs[:, 3:] > 0.5, restored, inputs[:, :3])
        value = loss(restored, truth)
        if discriminator:
            value = value + adversarial_weight * fooling_loss(discriminator, restored)
            value = value + hinge_loss(discriminator, restored, truth)
        return value.mean()

    def batches(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(len(crops), generator=generator).split(batch_size):
            if len(rows) == batch_size:
                truth = turned(crops[rows], generator).float() / 255
                yield degrade(truth, generator).network_input(), truth

    validate = (lambda: {"psnr": psnr(restore(network, held_out[0]), held_out[1]).mean().item()}) if held_out else None
    return train(
        players, batch_loss, batches, optimizer, epochs=epochs, validate=validate, folder=folder, seed=seed,
        schedule=cosine(optimizer, epochs * (len(crops) // batch_size)), precision=precision, progress=progress,
        settings={"learning_rate": learning_rate, "batch_size": batch_size, "crops": len(crops)} | (settings or {}),
    )  # fmt: skip


def cosine(optimizer: Optimizer, steps: int) -> LambdaLR:
    """Learning rate that rises linearly for `WARM_UP` steps and falls to 0 along a cosine over `steps`."""
    return LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * min(1, step / steps))) / 2
    )


def turned(images: UInt8[Tensor, "n 3 h w"], generator: torch.Generator) -> Tensor:
    """One of the eight rotations and reflections of a square, the same for the whole batch."""
    which = int(torch.randint(8, (1,), generator=generator))
    images = images.mT if which & 1 else images
    return images.flip([axis for axis, bit in ((2, 2), (3, 4)) if which & bit])
