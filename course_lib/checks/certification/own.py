"""Exercise 12.8, open-ended: a metric with a proof that pixel L2 cannot beat."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from course_lib.certification import cosine_2afc_radius, euclidean_2afc_radius, labels
from course_lib.checks import Mistake, exercise
from course_lib.lipschitz import upper_bound

EPS = (0.0, 36 / 255, 72 / 255, 108 / 255, 0.5, 1.0)
AHEAD = {36 / 255: 0.08, 108 / 255: 0.06}


@functools.cache
def _exam(split: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    data = labels.simulated(split)
    every = torch.arange(500) * len(data) // 500
    return data.ref[every], data.p0[every], data.p1[every], data.judge[every]


@torch.no_grad()
def scores(
    network: Callable[[Tensor], Tensor], split: str = "val", *, kind: str = "euclidean", constant: float = 1.0
) -> dict[float, float]:
    """Share of 500 held-out triplets that a metric decides as st-alex does, certified at each eps.

    Args:
        network: images (n, 3, 64, 64) in [0, 1] -> embeddings (n, d).
        split: of photographs, "val" or "test".
        kind: of distance between embeddings, "euclidean" or "cosine".
        constant: a Lipschitz constant of the network.
    """
    *images, judge = _exam(split)
    e, f, g = (torch.cat([network(some.float() / 255) for some in part.split(50)]).double() for part in images)
    radius = (cosine_2afc_radius if kind == "cosine" else euclidean_2afc_radius)(e, f, g) / constant
    radius = torch.where(judge > 0.5, -radius, radius)[judge != 0.5]
    return {eps: (radius > eps).double().mean().item() for eps in EPS}


@functools.cache
def _pixels() -> dict[float, float]:
    return scores(nn.Flatten())


@exercise("12.8")
def metric(attempt: Callable, random: torch.Generator) -> None:
    """Open-ended: a trained 1-Lipschitz network whose distance beats pixel L2 at every eps."""
    network = attempt()
    if network is None:
        raise Mistake("your function returns nothing; did you forget `return`?")
    if not isinstance(network, nn.Module):
        raise Mistake(f"your function returns a {type(network).__name__}; return a network, an nn.Module")
    network.eval()
    images = _exam("val")[0][:6].float() / 255
    with torch.no_grad():
        found = network(images)
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != 6:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise Mistake(f"the network gives {shape} for 6 images; an embedding is (n, d): end with nn.Flatten()")
        if not torch.allclose(network(images[:1]), found[:1], atol=1e-4):
            raise Mistake("an image alone has another embedding than in a batch, so no distance is its own")
    try:
        bound = upper_bound(network)
    except (TypeError, ValueError) as error:
        raise Mistake(f"no bound from above, no certificate: {' '.join(str(error).split())}") from None
    if bound > 1 + 1e-4:
        raise Mistake(f"the bound from above is {bound:.3g}, so it is not 1-Lipschitz; use layers whose bound is 1")
    _expect_slow(network, images, bound)
    yours, pixels = scores(network, constant=max(bound, 1.0)), _pixels()
    if yours[0.0] < 0.5:
        raise Mistake(f"natural accuracy {yours[0.0]:.0%}: worse than a coin; are p0 and p1, or the labels, swapped?")
    for eps in reversed(EPS):
        if yours[eps] < pixels[eps]:
            raise Mistake(
                f"{yours[eps]:.1%} certified at eps {eps:.2f}, {yours[0.0]:.1%} right; pixel L2 has {pixels[eps]:.1%} "
                "there: the radii are short; which loss asks for longer ones?"
            )
    for eps, ahead in AHEAD.items():
        if yours[eps] < pixels[eps] + ahead:
            raise Mistake(
                f"{yours[eps]:.1%} certified at eps {eps:.2f}, {yours[0.0]:.1%} right; reach {pixels[eps] + ahead:.1%},"
                f" {100 * ahead:.0f} points above pixel L2: what does st-alex see that pixels do not?"
            )


def _expect_slow(network: nn.Module, images: Tensor, bound: float) -> None:
    """Raise :class:`Mistake` if images and their neighbours are further apart in the embedding than in pixels."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for other in (images + 0.001 * torch.randn(images.shape, generator=random), 0.9 * images, images.roll(1, 0)):
            other = other.clamp(0, 1)
            moved = (network(other) - network(images)).norm(dim=1) / (other - images).flatten(1).norm(dim=1)
            if moved.max() > max(bound, 0) * (1 + 1e-3):
                raise Mistake(
                    f"upper_bound() of the network says {bound:.3g}, but between two images it moves by "
                    f"{moved.max():.3g}; a bound has to be true"
                )
