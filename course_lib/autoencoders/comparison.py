"""Every regulariser on the same overcomplete autoencoder, at an equal number of steps and of parameters."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from course_lib.autoencoders.fitting import fit
from course_lib.autoencoders.initialisation import initialise
from course_lib.autoencoders.measures import (
    active_share,
    code_movement,
    copied_noise,
    hoyer,
    jacobian_norm,
    knn_accuracy,
    linear_accuracy,
    reconstruction_error,
)
from course_lib.autoencoders.models import Autoencoder, DeepDense, Dense, parameter_count
from course_lib.autoencoders.regularisers import (
    Corruption,
    Penalty,
    contractive,
    kl_sparsity,
    l1,
    masking_noise,
    objective,
    weight_decay,
)

Labelled = tuple[Float[Tensor, "n c h w"], Int64[Tensor, "n"]]
Others = tuple[Float[Tensor, "m c h w"], Int64[Tensor, "m"]]


@dataclass(frozen=True)
class Variant:
    """An autoencoder and what it is trained to do.

    Attributes:
        build: makes the model.
        penalties, corrupt: of its :func:`objective`.
    """

    build: Callable[[], Autoencoder]
    penalties: tuple[tuple[float, Penalty], ...] = ()
    corrupt: Corruption | None = None


def halved(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h/2 w/2"]:
    """Half as high and wide: the mean of every 2 x 2 pixels. Digits stay legible, and train ten times faster."""
    return F.avg_pool2d(images, 2)


def variants(
    shape: tuple[int, int, int] = (1, 14, 14), code_size: int = 256, bottleneck: int = 16
) -> dict[str, Variant]:
    """No regulariser, and each of the seven: bottleneck, L1, KL, contractive, denoising, dropout, weight decay.

    All but the bottleneck are one overcomplete layer of sigmoid units with tied weights, without which L1 and the
    contractive penalty mean nothing (:func:`rescaled`). The bottleneck is a deeper network with as many parameters.

    Args:
        shape: (c, h, w) of an image.
        code_size: at least as many units as pixels.
        bottleneck: code size of the bottleneck.

    Raises:
        ValueError: if the code is smaller than the image, so not overcomplete.
    """
    pixels = math.prod(shape)
    if code_size < pixels:
        raise ValueError(f"{code_size} units for {pixels} pixels are not overcomplete; take more, or halved() images")
    plain = partial(Dense, code_size, output="linear", tied=True, shape=shape)
    width = round((code_size * (pixels + 1) - bottleneck) / (2 * (pixels + bottleneck + 1)))
    return {
        "none": Variant(plain),
        "bottleneck": Variant(partial(DeepDense, (width, bottleneck), "tanh", output="linear", shape=shape)),
        "L1": Variant(plain, ((0.3, lambda at: l1(at.code)),)),
        "KL": Variant(plain, ((1.0, lambda at: kl_sparsity(at.code, rho=0.05)),)),
        "contractive": Variant(plain, ((0.3, lambda at: contractive(at.code, at.model.weight)),)),  # type: ignore[arg-type]
        "denoising": Variant(plain, corrupt=partial(masking_noise, fraction=0.3)),
        "dropout": Variant(partial(plain, dropout=0.2)),
        "weight decay": Variant(plain, ((0.01, lambda at: weight_decay(at.model)),)),
    }


def compare(
    train: Labelled, test: Others, compared: Mapping[str, Variant] | None = None, *, epochs: int = 20,
    learning_rate: float = 1e-2, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Train every variant for equally many steps and measure it on test images. One row per variant.

    Columns: parameters, error (mean squared, per pixel), copied_noise (1 is the identity), active and hoyer (sparsity
    of the codes), jacobian (its norm), movement (of a code under noise of standard deviation 0.1, as a share of the
    distance between two codes), linear and knn (accuracies of classifiers on the codes).

    Args:
        train: images (n, c, h, w) in [0, 1] and labels.
        test: others.
        compared: by name; default: :func:`variants` for these images.
        epochs: of 100 images a step.
        learning_rate: of Adam at the start.
        seed: of weights, order and noise; the same for every variant.

    Raises:
        ValueError: if the default variants are asked for and the images have more than 256 pixels.
    """
    images = train[0]
    _, c, h, w = images.shape
    rows = {}
    for name, variant in (variants((c, h, w)) if compared is None else compared).items():
        model = variant.build()
        initialise(model, "xavier", torch.Generator().manual_seed(seed))
        loss = objective(model, *variant.penalties, corrupt=variant.corrupt)
        fit(model, images, loss, epochs=epochs, learning_rate=learning_rate, seed=seed)
        rows[name] = measure(model.eval(), train, test, seed)
    return pd.DataFrame.from_dict(rows, orient="index")


def measure(model: Autoencoder, train: Labelled, test: Others, seed: int = 0) -> dict[str, int | float]:
    """One row of :func:`compare`, for a model in evaluation mode."""
    (images, labels), (test_images, test_labels) = train, test
    with torch.no_grad():
        code, test_code = model.encode(images), model.encode(test_images)
    noise = torch.Generator().manual_seed(seed)
    return {
        "parameters": parameter_count(model),
        "error": reconstruction_error(model, test_images).mean().item(),
        "copied_noise": copied_noise(model, test_images, generator=noise),
        "active": active_share(test_code).mean().item(),
        "hoyer": hoyer(test_code).mean().item(),
        "jacobian": jacobian_norm(model, test_images, generator=noise),
        "movement": code_movement(model, test_images, generator=noise),
        "linear": linear_accuracy(code, labels, test_code, test_labels),
        "knn": knn_accuracy(code, labels, test_code, test_labels),
    }
