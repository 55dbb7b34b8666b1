"""Regularisers of autoencoders: what keeps one from merely copying its input.

Two of the seven are built into the model: the **bottleneck** is a small `code_size`, **dropout** an option of the
models. One changes the input: **denoising**, with three corruptions. Four are penalties that are added to the
reconstruction error: **L1** and **KL sparsity**, the **contractive** penalty and **weight decay**. :func:`objective`
puts them together. The KL divergence to a prior, which makes an autoencoder variational, is chapter 03's.

Errors and penalties are sums over pixels, units or weights, and means over images, as they were published.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from course_lib.autoencoders.models import Autoencoder, Dense

TINY = 1e-7


class Pass(NamedTuple):
    """What a penalty can look at.

    Attributes:
        model: the autoencoder.
        images: what the encoder saw, corrupted if the objective corrupts.
        code: what it made of them.
    """

    model: Autoencoder
    images: Tensor
    code: Tensor


Penalty = Callable[[Pass], Tensor]
Corruption = Callable[[Tensor], Tensor]


def objective(
    model: Autoencoder, *penalties: tuple[float, Penalty], corrupt: Corruption | None = None
) -> Callable[[Tensor], Tensor]:
    """Loss of a batch for :func:`course_lib.training.train`: squared error plus weighted penalties.

    ``objective(model, (0.1, lambda at: l1(at.code)), (1e-4, lambda at: weight_decay(at.model)))``

    Args:
        model: the autoencoder.
        penalties: pairs of weight and penalty; a penalty takes a :class:`Pass` and returns a scalar.
        corrupt: applied to what the encoder sees. The target is always the clean image.

    Raises:
        ValueError: if a weight is negative.
    """
    for weight, _ in penalties:
        if weight < 0:
            raise ValueError(f"a penalty has weight {weight}; weights are 0 or more, or training maximises it")

    def loss(images: Tensor) -> Tensor:
        seen = corrupt(images) if corrupt else images
        code = model.encode(seen)
        at = Pass(model, seen, code)
        return squared_error(model.decode(code), images) + sum(weight * penalty(at) for weight, penalty in penalties)

    return loss


def squared_error(y: Float[Tensor, "n c h w"], x: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
    """|y - x|^2, summed over pixels, averaged over images."""
    return (y - x).square().sum((1, 2, 3)).mean()


# Sparsity


def l1(code: Float[Tensor, "n k"]) -> Float[Tensor, ""]:
    """L1 sparsity: sum_j |h_j|, averaged over images."""
    return code.abs().sum(1).mean()


def kl_sparsity(code: Float[Tensor, "n k"], rho: float = 0.05) -> Float[Tensor, ""]:
    """KL sparsity: sum_j KL(rho || rho_hat_j), where rho_hat_j is the mean of unit j over the batch.

    KL(rho || r) = rho log(rho / r) + (1 - rho) log((1 - rho) / (1 - r)), in nats: 0 where every unit is on for a
    share rho of the images.

    Args:
        code: activations in [0, 1], so of sigmoid units.
        rho: the target, in (0, 1).

    Raises:
        ValueError: if `rho` or an activation is out of its range.

    Source: Ng, CS294A lecture notes "Sparse autoencoder", 2011.
    """
    if not 0 < rho < 1:
        raise ValueError(f"rho is {rho}; the target activation lies between 0 and 1, for example 0.05")
    check_sigmoid(code, "KL sparsity")
    mean = code.mean(0).clamp(TINY, 1 - TINY)
    return (rho * (rho / mean).log() + (1 - rho) * ((1 - rho) / (1 - mean)).log()).sum()


def check_sigmoid(code: Tensor, what: str) -> None:
    """Raise ValueError if a code cannot be that of sigmoid units, which `what` needs."""
    low, high = (value.item() for value in torch.aminmax(code.detach()))
    if low < 0 or high > 1:
        raise ValueError(f"activations lie in [{low:.3g}, {high:.3g}], not [0, 1]; {what} needs sigmoid units")


# The contractive penalty: squared Frobenius norm of the encoder's Jacobian


def contractive(code: Float[Tensor, "n k"], weight: Float[Tensor, "k d"]) -> Float[Tensor, ""]:
    """|J|_F^2 = sum_j (h_j (1 - h_j))^2 |W_j|^2 of one sigmoid layer h = sigmoid(W x + b), averaged over images.

    For any other encoder: :func:`hutchinson`.

    Raises:
        ValueError: if the activations are not in [0, 1].

    Source: Rifai et al., "Contractive auto-encoders", ICML 2011.
    """
    check_sigmoid(code, "this formula")
    return ((code * (1 - code)).square() @ weight.square().sum(1)).mean()


@torch.enable_grad()
def jacobian(model: Autoencoder, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k c h w"]:
    """dh_j / dx of every image by automatic differentiation: exact for any encoder, one backward pass per unit.

    Raises:
        ValueError: if batch normalisation is in training mode, where a code depends on the whole batch.
    """
    check_no_batch_statistics(model)
    images = images.detach().requires_grad_()
    code = model.encode(images)
    rows = [torch.autograd.grad(unit.sum(), images, retain_graph=True)[0] for unit in code.unbind(1)]
    return torch.stack(rows, 1)


@torch.enable_grad()
def hutchinson(
    model: Autoencoder, images: Float[Tensor, "n c h w"], probes: int = 1, generator: torch.Generator | None = None
) -> Float[Tensor, "n"]:
    """Unbiased estimate of |J|_F^2 for any encoder: the mean of |J^T u|^2 over random sign vectors u.

    E[u u^T] = I, so that E[u^T J J^T u] = tr(J J^T) = |J|_F^2. A probe costs one backward pass. Differentiable.

    Args:
        model: the autoencoder.
        images: where the Jacobian is taken.
        probes: sign vectors per image; more of them make the estimate less noisy.
        generator: of the sign vectors.

    Raises:
        ValueError: if batch normalisation is in training mode, where a code depends on the whole batch.

    Source: Hutchinson, Communications in Statistics 18, 1989.
    """
    check_no_batch_statistics(model)
    if probes < 1:
        raise ValueError(f"probes is {probes}; at least one is needed")
    if not images.requires_grad:
        images = images.detach().requires_grad_()
    code = model.encode(images)
    squares = torch.zeros(len(images), device=images.device, dtype=images.dtype)
    for _ in range(probes):
        signs = 2 * torch.randint(2, code.shape, generator=generator).to(code) - 1
        (back,) = torch.autograd.grad((code * signs).sum(), images, create_graph=True)
        squares = squares + back.square().sum((1, 2, 3))
    return squares / probes


def check_no_batch_statistics(model: nn.Module) -> None:
    """Raise ValueError if a code of `model` depends on the other images of its batch."""
    if any(isinstance(module, _BatchNorm) and module.training for module in model.modules()):
        raise ValueError("batch normalisation in training mode mixes images; model.eval() first, or leave it out")


# Weights


def weight_decay(model: nn.Module) -> Float[Tensor, ""]:
    """Half the sum of the squared weights, without biases: its gradient is the weights.

    Source: Ng, CS294A lecture notes, 2011, section 2.
    """
    return sum((p.square().sum() for p in model.parameters() if p.ndim > 1), torch.zeros(())) / 2


@torch.no_grad()
def unit_columns_(model: Dense) -> None:
    """Give each column of the decoder length 1, in place; call it after every step.

    Without it, or tied weights, the L1 and contractive penalties can be made as small as you like: :func:`rescaled`.
    """
    model.columns.div_(model.columns.norm(dim=0).clamp_min(TINY))


def rescaled(model: Dense, c: float) -> Dense:
    """A copy with the encoder times c and the decoder divided by c: the same reconstructions from codes c times as big.

    So L1 shrinks with c, the contractive penalty with c^2, and nothing is gained but a smaller loss.

    Raises:
        ValueError: if the weights are tied, which forbids this, if c <= 0, or if the units are not linear or ReLU,
            where the reconstructions would change (sigmoids approach it as c goes to 0, where they are linear).
    """
    if model.tied:
        raise ValueError("encoder and decoder share their weights; tied weights cannot be rescaled apart")
    if model.activation not in ("linear", "relu") or c <= 0:
        raise ValueError(f"cannot rescale {model.activation} units by {c}; it takes linear or relu units and c > 0")
    copy = deepcopy(model)
    with torch.no_grad():
        copy.weight.mul_(c)
        copy.into.bias.mul_(c)
        copy.columns.div_(c)
    return copy


# Corruptions. Source: Vincent et al., JMLR 11, 2010, section 3.3


def gaussian_noise(
    images: Float[Tensor, "n c h w"], sigma: float, generator: torch.Generator | None = None
) -> Float[Tensor, "n c h w"]:
    """Add noise of standard deviation `sigma`; the result is not clipped to [0, 1].

    Raises:
        ValueError: if `sigma` is negative.
    """
    if sigma < 0:
        raise ValueError(f"sigma is {sigma}; a standard deviation is 0 or more")
    return images + sigma * torch.randn(images.shape, generator=generator).to(images)


def masking_noise(
    images: Float[Tensor, "n c h w"], fraction: float, generator: torch.Generator | None = None
) -> Float[Tensor, "n c h w"]:
    """Set each pixel to 0 with probability `fraction`.

    Raises:
        ValueError: if `fraction` is not in [0, 1].
    """
    return torch.where(chosen(images, fraction, generator), 0.0, images)


def salt_and_pepper(
    images: Float[Tensor, "n c h w"], fraction: float, generator: torch.Generator | None = None
) -> Float[Tensor, "n c h w"]:
    """Set each pixel, with probability `fraction`, to 0 or 1 by the toss of a fair coin.

    Raises:
        ValueError: if `fraction` is not in [0, 1].
    """
    here = chosen(images, fraction, generator)
    return torch.where(here, chosen(images, 0.5, generator).to(images), images)


def chosen(images: Tensor, fraction: float, generator: torch.Generator | None) -> Tensor:
    """Each element True with probability `fraction`."""
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction is {fraction}; a share of pixels lies between 0 and 1")
    return (torch.rand(images.shape, generator=generator) < fraction).to(images.device)
