"""Training an autoencoder with the defaults of this chapter: Adam, and a learning rate that falls along a cosine."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from course_lib.autoencoders.models import Autoencoder
from course_lib.autoencoders.optimisers import cosine
from course_lib.autoencoders.regularisers import objective
from course_lib.training import train


def fit(
    model: Autoencoder,
    images: Float[Tensor, "n c h w"],
    loss: Callable[[Tensor], Tensor] | None = None,
    *,
    epochs: int = 10,
    learning_rate: float = 1e-3,
    batch_size: int = 100,
    seed: int = 0,
    **options: Any,
) -> list[dict[str, Any]]:
    """Train `model` in place on `images`; return one record of metrics per epoch.

    Args:
        model: the autoencoder.
        images: (n, c, h, w) floating point.
        loss: of a batch; default: the plain :func:`objective`.
        epochs: how many.
        learning_rate: of Adam at the start; it falls to 0.
        batch_size: images per step.
        seed: of the order of the images, of corruptions and of dropout.
        options: of :func:`course_lib.training.train`: after_step, validate, folder, progress, ...

    Raises:
        ValueError: if `epochs` or `batch_size` is not positive.
        TrainingError: if there are no images, or the loss is not a number.
    """
    if min(epochs, batch_size) < 1:
        raise ValueError(f"epochs is {epochs}, batch_size {batch_size}; both are at least 1")
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    schedule = LambdaLR(optimizer, cosine(epochs * -(-len(images) // batch_size)))
    return train(
        model, loss or objective(model), minibatches(images, batch_size), optimizer, epochs=epochs, schedule=schedule,
        seed=seed, **options,
    )  # fmt: skip


def minibatches(images: Tensor, size: int) -> Callable[[torch.Generator], Iterable[Tensor]]:
    """What :func:`course_lib.training.train` takes as its batches: all images in random order, `size` at a time."""
    return lambda generator: images[torch.randperm(len(images), generator=generator)].split(size)
