"""Restoration without learning, from scikit-image, behind one interface: degraded images in, restored images out."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle, inpaint_biharmonic
from torch import Tensor

from course_lib.restoration.degradations import Degraded, bicubic

Restore = Callable[[Degraded], Tensor]


def total_variation(degraded: Degraded, weight: float | int = 0.08) -> Float[Tensor, "n 3 h w"]:
    """The picture with little total variation near the noisy one; a larger `weight` smooths more.

    Source: Chambolle, An algorithm for total variation minimization and applications, JMIV 2004.
    """
    return _each(degraded, lambda image, _: denoise_tv_chambolle(image, weight, channel_axis=-1))


def non_local_means(degraded: Degraded, sigma: float = 0.1, strength: float = 0.5) -> Float[Tensor, "n 3 h w"]:
    """Mean of pixels whose 5 x 5 surroundings look alike, within 13 x 13 pixels; `sigma` is the noise's deviation.

    Source: Buades, Coll, Morel, A non-local algorithm for image denoising, CVPR 2005.
    """
    return _each(
        degraded,
        lambda image, _: denoise_nl_means(
            image, patch_size=5, patch_distance=6, h=strength * sigma, sigma=sigma, channel_axis=-1
        ),
    )


def anscombe_non_local_means(
    degraded: Degraded, photons: float | int = 40, strength: float = 0.6
) -> Float[Tensor, "n 3 h w"]:
    """Non-local means of 2 sqrt(counts + 3/8), in which photon noise has deviation 1 at every brightness, and back.

    Source: Anscombe, The transformation of Poisson, binomial and negative-binomial data, Biometrika 1948.
    """
    largest = 2 * (photons + 3 / 8) ** 0.5
    root = 2 * (photons * degraded.images + 3 / 8).sqrt() / largest
    smooth = non_local_means(degraded._replace(images=root), sigma=1 / largest, strength=strength)
    return (((largest * smooth / 2).square() - 1 / 8) / photons).clamp(0, 1)


def biharmonic(degraded: Degraded) -> Float[Tensor, "n 3 h w"]:
    """Fill holes with the smoothest surface that meets their borders in value and slope.

    Raises:
        ValueError: if there is no mask.

    Source: Damelin and Hoang, On surface completion and image inpainting by biharmonic functions, 2018.
    """
    if degraded.mask is None:
        raise ValueError("there is no mask, so nothing to fill; biharmonic inpainting needs one")
    return _each(degraded, lambda image, mask: inpaint_biharmonic(image, mask, channel_axis=-1))


# strengths with the best PSNR on crops of the validation photographs
BASELINES: dict[str, dict[str, Restore]] = {
    "gaussian": {"total variation": partial(total_variation, weight=0.08), "non-local means": non_local_means},
    "poisson": {
        "total variation": partial(total_variation, weight=0.08),
        "non-local means": anscombe_non_local_means,
    },
    **{f"inpainting-{kind}": {"biharmonic": biharmonic} for kind in ("random", "block", "text")},
    "sr2": {"bicubic": bicubic},
    "sr4": {"bicubic": bicubic},
}


def _each(degraded: Degraded, method: Callable[[np.ndarray, np.ndarray | None], np.ndarray]) -> Tensor:
    """Apply a scikit-image function to every image of a batch."""
    images = degraded.images.permute(0, 2, 3, 1).double().cpu().numpy()
    masks = [None] * len(images) if degraded.mask is None else list(degraded.mask[:, 0].cpu().numpy())
    restored = np.stack([method(image, mask) for image, mask in zip(images, masks, strict=True)])
    return torch.from_numpy(restored).permute(0, 3, 1, 2).to(degraded.images).clamp(0, 1).contiguous()
