"""What an autoencoder learned: its error, what it copies, and what its code is like."""

import math

import torch
from jaxtyping import Float, Int64
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from course_lib.autoencoders.models import Autoencoder
from course_lib.autoencoders.regularisers import gaussian_noise, hutchinson


@torch.no_grad()
def reconstruction_error(model: Autoencoder, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n"]:
    """Mean squared error per pixel of every image."""
    return (model(images) - images).square().mean((1, 2, 3))


@torch.no_grad()
def explained(model: Autoencoder, images: Float[Tensor, "n c h w"]) -> float:
    """Share of the images' variance that the reconstruction has right: 1 is perfect, 0 as good as their mean image.

    On images of another kind than it was trained on, a copier is as good as on its own.

    Raises:
        ValueError: if all images are the same.
    """
    if (images == images[:1]).all():
        raise ValueError("all images are the same; there is no variance to explain")
    variance = (images - images.mean(0)).square().sum()
    return 1 - ((model(images) - images).square().sum() / variance).item()


@torch.no_grad()
def copied_noise(
    model: Autoencoder, images: Float[Tensor, "n c h w"], sigma: float = 0.1, generator: torch.Generator | None = None
) -> float:
    """Share of added noise that comes out again: <f(x + e) - f(x), e> / |e|^2, over all images.

    1 for the identity; k/d on average for a projection onto k of d dimensions. As sigma goes to 0 it is the trace of
    the Jacobian of the whole autoencoder, divided by d.

    Args:
        model: the autoencoder.
        images: clean ones.
        sigma: standard deviation of the noise, on the scale of the pixels.
        generator: of the noise.

    Raises:
        ValueError: if `sigma` is not positive.
    """
    noisy = gaussian_noise(images, positive(sigma), generator)
    noise = noisy - images
    return (((model(noisy) - model(images)) * noise).sum() / noise.square().sum()).item()


@torch.no_grad()
def active_share(code: Float[Tensor, "n k"], threshold: float = 0.1) -> Float[Tensor, "n"]:
    """Share of the units that are on: |h_j| above `threshold` times the largest |h_j| of the image."""
    size = code.abs()
    return (size > threshold * size.amax(1, keepdim=True)).float().mean(1)


@torch.no_grad()
def hoyer(code: Float[Tensor, "n k"]) -> Float[Tensor, "n"]:
    """Sparseness of every code: 0 where all units are equally strong, 1 where a single one is on. Blind to scale.

    (sqrt(k) - |h|_1 / |h|_2) / (sqrt(k) - 1)

    Raises:
        ValueError: if a code has fewer than two units, or all of them are 0.

    Source: Hoyer, JMLR 5, 2004, section 3.1.
    """
    k = code.shape[1]
    length = code.norm(dim=1)
    if k < 2 or (length == 0).any():
        raise ValueError("sparseness needs codes of two units or more, not all 0")
    return (math.sqrt(k) - code.abs().sum(1) / length) / (math.sqrt(k) - 1)


def jacobian_norm(
    model: Autoencoder, images: Float[Tensor, "n c h w"], probes: int = 8, generator: torch.Generator | None = None
) -> float:
    """Root mean square over images of |J|_F, the encoder's Jacobian, estimated by :func:`hutchinson`."""
    return math.sqrt(hutchinson(model, images, probes, generator).mean().item())


@torch.no_grad()
def code_movement(
    model: Autoencoder, images: Float[Tensor, "n c h w"], sigma: float = 0.1, generator: torch.Generator | None = None
) -> float:
    """How far noise moves a code, as a share of the distance between the codes of two images. Smaller is more robust.

    Both distances are root mean squares, so a code that is merely scaled down gains nothing.

    Raises:
        ValueError: if `sigma` is not positive, or all codes are the same.
    """
    code = model.encode(images)
    moved = (model.encode(gaussian_noise(images, positive(sigma), generator)) - code).square().sum(1).mean()
    if (code == code[:1]).all():
        raise ValueError("all codes are the same; the code has collapsed")
    between = 2 * code.var(0).sum()
    return (moved / between).sqrt().item()


def linear_accuracy(
    code: Float[Tensor, "n k"], labels: Int64[Tensor, "n"], test_code: Float[Tensor, "m k"],
    test_labels: Int64[Tensor, "m"],
) -> float:  # fmt: skip
    """Share of the test labels that a linear (ridge) classifier on the codes gets right."""
    scale = code.std(0).mean().clamp_min(1e-12)  # the penalty on the weights means the same for a code of any scale
    probe = RidgeClassifier().fit((code / scale).double().numpy(), labels.numpy())
    return float(probe.score((test_code / scale).double().numpy(), test_labels.numpy()))


def knn_accuracy(
    code: Float[Tensor, "n k"], labels: Int64[Tensor, "n"], test_code: Float[Tensor, "m k"],
    test_labels: Int64[Tensor, "m"], neighbours: int = 5,
) -> float:  # fmt: skip
    """Share of the test labels that the vote of the nearest training codes gets right."""
    knn = KNeighborsClassifier(neighbours, algorithm="brute").fit(code.numpy(), labels.numpy())
    return float(knn.score(test_code.numpy(), test_labels.numpy()))


def positive(sigma: float) -> float:
    """Return `sigma`, or raise ValueError if it is not positive."""
    if sigma <= 0:
        raise ValueError(f"sigma is {sigma}; noise has a positive standard deviation")
    return sigma
