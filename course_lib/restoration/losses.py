"""What "close to the truth" means in training. Every loss takes (restored, truth) and gives one number per image.

Perceptual losses belong to later chapters; they are passed in like any other function of two image batches.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]


def l2(restored: Float[Tensor, "n 3 h w"], truth: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n"]:
    """Mean squared error. Its best guess among several possible pictures is their mean, which is blurred."""
    return (restored - truth).square().mean((1, 2, 3))


def l1(restored: Float[Tensor, "n 3 h w"], truth: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n"]:
    """Mean absolute error. Its best guess is the median of every pixel."""
    return (restored - truth).abs().mean((1, 2, 3))


def charbonnier(
    restored: Float[Tensor, "n 3 h w"], truth: Float[Tensor, "n 3 h w"], eps: float = 1e-3
) -> Float[Tensor, "n"]:
    """Mean of sqrt(error² + eps²) - eps: L1 far from zero, L2 near it, smooth everywhere.

    Source: Charbonnier et al., Two deterministic half-quadratic regularization algorithms, ICIP 1994; here shifted
    so that equal images have loss 0.
    """
    return ((restored - truth).square().add(eps**2).sqrt() - eps).mean((1, 2, 3))


def clamped(distance: Loss) -> Loss:
    """A distance that accepts only images in [0, 1], made usable in training, where restored pixels may leave it."""
    return lambda restored, truth: distance(restored.clamp(0, 1), truth)


def weighted_sum(*terms: tuple[float | int, Loss]) -> Loss:
    """The loss sum_i weight_i * loss_i, from (weight, loss) pairs.

    Raises:
        ValueError: for no term, or a weight that is negative or not finite.
    """
    if not terms:
        raise ValueError("a sum of no losses teaches nothing; give (weight, loss) pairs")
    for weight, _ in terms:
        if not 0 <= weight < float("inf"):
            raise ValueError(f"a loss has weight {weight}; weights are finite and not negative")
    return lambda restored, truth: torch.stack([weight * loss(restored, truth) for weight, loss in terms]).sum(0)


class PatchDiscriminator(nn.Module):
    """One score per patch of 26 x 26 pixels, every 4 pixels: above 0 it looks real, below 0 restored.

    Source: Isola, Zhu, Zhou, Efros, Image-to-image translation with conditional adversarial networks, CVPR 2017.
    """

    def __init__(self, width: int = 32):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 3, padding=1),
        )  # fmt: skip

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 h2 w2"]:
        """Scores, any real number."""
        return self.layers(images)


def fooling_loss(discriminator: nn.Module, restored: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n"]:
    """Adversarial loss of the restorer: minus the mean score. Gradients reach `restored`, not the discriminator."""
    frozen = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
    return -functional_call(discriminator, frozen, restored).mean((1, 2, 3))


def hinge_loss(
    discriminator: nn.Module, restored: Float[Tensor, "n 3 h w"], truth: Float[Tensor, "n 3 h w"]
) -> Float[Tensor, "n"]:
    """Loss of the discriminator: real scores below 1 and restored ones above -1 cost. `restored` gets no gradient.

    Source: Lim and Ye, Geometric GAN, 2017, equation (15).
    """
    real, fake = discriminator(truth), discriminator(restored.detach())
    return (F.relu(1 - real) + F.relu(1 + fake)).mean((1, 2, 3))
