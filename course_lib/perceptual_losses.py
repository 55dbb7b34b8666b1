"""Distances between images, from pixels to features: MSE, PSNR, SSIM, MS-SSIM, feature and style losses.

MSE and the losses are distances: 0 for equal images. PSNR, SSIM and MS-SSIM are similarities: larger is better.
All give one number per image, and have finite gradients where x equals y.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.trunks import Trunk
from course_lib.validation import check_images, check_pair

WINDOW, SIGMA = 11, 1.5  # pixels
K1, K2 = 0.01, 0.03
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # from fine to coarse
MS_SSIM_MIN_SIZE = (WINDOW - 1) * 2 ** (len(SCALE_WEIGHTS) - 1) + 1  # 161: the window has to fit after four halvings


def mse(x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n"]:
    """Mean squared error over channels and pixels, in [0, 1].

    Raises:
        TypeError, ValueError: if x or y is not a batch of images in [0, 1], or their shapes differ.
    """
    check_pair(x, y)
    return (x - y).square().mean((1, 2, 3))


def psnr(x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n"]:
    """Peak signal-to-noise ratio, -10 log10(MSE) decibels for values in [0, 1]: the MSE on another scale.

    Equal images have infinite PSNR, and there the gradient is 0. Raises as :func:`mse`.
    """
    error = mse(x, y)
    positive = torch.where(error > 0, error, 1)  # log(0) would make the gradient NaN
    return torch.where(error > 0, -10 * positive.log10(), torch.inf)


def ssim(x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n"]:
    """Structural similarity, in [-1, 1]; 1 only for equal images.

    The mean of :func:`ssim_map`, so of the positions where the whole window fits, and of the RGB channels. This is
    the authors' convention and piq's (with ``downsample=False``). torchmetrics also averages a border of mirrored
    pixels, which changes the third digit on small images.

    Raises:
        TypeError, ValueError: as :func:`mse`, and for images smaller than 11 x 11 pixels.

    Source: Wang, Bovik, Sheikh, Simoncelli, Image quality assessment: from error visibility to structural
    similarity, IEEE Transactions on Image Processing 13, 2004, equation (13).
    """
    return ssim_map(x, y).mean((1, 2, 3))


def ssim_map(x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h2 w2"]:
    """SSIM of the 11 x 11 windows around each position and in each channel; h2 = h - 10, w2 = w - 10.

    Raises as :func:`ssim`.
    """
    check_pair(x, y, min_size=WINDOW)
    luminance, contrast = _ssim_terms(x, y)
    return luminance * contrast


def ms_ssim(x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n"]:
    """Multi-scale structural similarity, in [0, 1]: contrast and structure at five scales, luminance at the coarsest.

    Each channel is an image of its own, and the three results are averaged, as in piq; a negative term counts as 0.
    Between scales 2 x 2 pixels are averaged; an odd size is rounded up, repeating the last row or column, as in
    the authors' code. Where a size is odd at some scale, other libraries differ from this, and from one another,
    by up to 0.01.

    Raises:
        TypeError, ValueError: as :func:`mse`, and for images smaller than 161 x 161 pixels, because the window
            has to fit into an image that was halved four times.

    Source: Wang, Simoncelli, Bovik, Multi-scale structural similarity for image quality assessment, Asilomar 2003,
    equation (7).
    """
    check_pair(x, y)
    if min(x.shape[2:]) < MS_SSIM_MIN_SIZE:
        raise ValueError(
            f"x is {x.shape[2]} x {x.shape[3]} pixels; the five scales of MS-SSIM need at least "
            f"{MS_SSIM_MIN_SIZE} x {MS_SSIM_MIN_SIZE}: use larger images, or ssim"
        )
    result = x.new_ones(x.shape[:2])
    for scale, weight in enumerate(SCALE_WEIGHTS, start=1):
        luminance, contrast = _ssim_terms(x, y)
        last = scale == len(SCALE_WEIGHTS)
        term = (luminance * contrast if last else contrast).mean((2, 3))
        positive = torch.where(term > 0, term, 1)  # the power of 0 has an infinite gradient
        result = result * torch.where(term > 0, positive**weight, 0)
        x, y = (F.avg_pool2d(image, 2, ceil_mode=True) for image in (x, y))
    return result.mean(1)


def gram(features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c c"]:
    """Gram matrices: how strongly each pair of channels is active at the same places, wherever these are.

    G_ij = sum over positions of f_i f_j, divided by c h w, so that images of different sizes can be compared.

    Source: Gatys, Ecker, Bethge, CVPR 2016, equation (3); divided by c h w as in Johnson, Alahi, Fei-Fei,
    ECCV 2016, equation (3).
    """
    _, channels, height, width = features.shape
    flat = features.flatten(2)
    return flat @ flat.mT / (channels * height * width)


class FeatureLoss(nn.Module):
    """Content loss: weighted sum over layers of the mean squared difference of their features.

    Args:
        trunk: the feature network; it is used as it is and stays frozen if it was.
        layers: names from ``trunk.layer_names``, or name -> weight; without weights every layer weighs 1.

    Raises:
        ValueError: for no layer, an unknown or repeated one, or a negative or infinite weight.

    Source: Johnson, Alahi, Fei-Fei, Perceptual losses for real-time style transfer and super-resolution, ECCV 2016,
    equation (2).
    """

    def __init__(self, trunk: Trunk, layers: Sequence[str] | Mapping[str, float]):
        super().__init__()
        self.trunk, self.layers = trunk, _layer_weights(trunk, layers)

    def forward(self, x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "n 3 h2 w2"]) -> Float[Tensor, "n"]:
        """Loss of every x against its y; 0 for equal images.

        Raises:
            TypeError, ValueError: as :func:`mse`, and for images smaller than the trunk's minimum.
        """
        return self.per_layer(x, y).sum(1)

    def per_layer(self, x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "n 3 h2 w2"]) -> Float[Tensor, "n layers"]:
        """What each layer contributes, already weighted, in network order. Raises as :meth:`forward`."""
        check_pair(x, y, min_size=self.trunk.min_size)
        return self._weighted(lambda a, b: (a - b).square().mean((1, 2, 3)), x, y)

    def _weighted(self, compare: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
        ours, theirs = (self.trunk.stream(images, tuple(self.layers)) for images in (x, y))
        weights = self.layers.values()
        return torch.stack([w * compare(a, b) for w, a, b in zip(weights, ours, theirs, strict=True)], 1)


class StyleLoss(FeatureLoss):
    """Style loss: weighted sum over layers of the squared Frobenius distance of their Gram matrices.

    With this :func:`gram` a layer's term is 4 times the one of Gatys et al. Arguments and errors are those of
    :class:`FeatureLoss`, except that x and y may differ in height and width.

    Source: Johnson, Alahi, Fei-Fei, ECCV 2016, equation (4).
    """

    def per_layer(self, x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "n 3 h2 w2"]) -> Float[Tensor, "n layers"]:
        """What each layer contributes, already weighted, in network order. Raises as :meth:`forward`."""
        check_images(x, "x", min_size=self.trunk.min_size)
        check_images(y, "y", min_size=self.trunk.min_size)
        if len(x) != len(y):
            raise ValueError(
                f"x has {len(x)} images but y has {len(y)}; one style for all: y.expand({len(x)}, -1, -1, -1)"
            )
        return self._weighted(lambda a, b: (gram(a) - gram(b)).square().sum((1, 2)), x, y)


def _layer_weights(trunk: Trunk, layers: Sequence[str] | Mapping[str, float]) -> dict[str, float]:
    """Layer -> weight, in network order."""
    if isinstance(layers, str):
        raise ValueError(f"layers is the text {layers!r}; give a list: [{layers!r}]")
    names = list(layers)
    if not names:
        raise ValueError(f"no layers given; choose from {', '.join(trunk.layer_names)}")
    if unknown := [name for name in names if name not in trunk.layer_names]:
        raise ValueError(f"{trunk.net!r} has no layer {unknown[0]!r}; it has {', '.join(trunk.layer_names)}")
    if len(set(names)) != len(names):
        raise ValueError(f"a layer is named twice in {names}; give a weight instead: {{'layer': 2.0}}")
    weights = {name: float(layers[name]) if isinstance(layers, Mapping) else 1.0 for name in names}
    for name, weight in weights.items():
        if not 0 <= weight < float("inf"):
            raise ValueError(f"layer {name!r} has weight {weight}; weights are finite and not negative")
    return {name: weights[name] for name in trunk.layer_names if name in weights}


def _ssim_terms(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance term, and contrast-structure term, at every position where the window fits."""
    offset = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    row = torch.softmax(-(offset**2) / (2 * SIGMA**2), 0).expand(3, 1, 1, WINDOW)

    def local_mean(images: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(images, row, groups=3), row.mT, groups=3)

    mean_x, mean_y = local_mean(x), local_mean(y)
    variances = local_mean(x.square()) - mean_x.square() + local_mean(y.square()) - mean_y.square()
    covariance = local_mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + K1**2) / (mean_x.square() + mean_y.square() + K1**2)
    return luminance, (2 * covariance + K2**2) / (variances + K2**2)
