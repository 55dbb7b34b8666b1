"""Exercise 11.8, open-ended: a student that sees as its teacher does and still moves slowly."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.checks import Mistake, exercise
from course_lib.data import triplets
from course_lib.distillation import CountSketch, embedded, whole_teacher
from course_lib.judgments.scores import spearman
from course_lib.lipschitz import upper_bound

SIZE, IMAGES, TRIPLETS, NUMBERS = 32, 1024, 250, 1024
EPSILON = 0.2
PERCEPTION, CERTIFIED = 0.53, 0.70


class Scores(NamedTuple):
    """How an embedding does on held-out triplets.

    Attributes:
        perception: Spearman correlation of its distances, of references to their distortions, with the teacher's.
        same: share of the triplets that it decides as the teacher does.
        certified: share that it decides so, and would still decide so however the reference is moved by 0.2 in L2,
            if it is 1-Lipschitz.
    """

    perception: float
    same: float
    certified: float


@functools.cache
def _teacher() -> Callable[[Tensor], Tensor]:
    whole = whole_teacher("st-alex", size=SIZE)
    sketch = CountSketch(whole.dim, NUMBERS)
    return lambda images: torch.cat([sketch(whole.embed(part)) for part in images.split(64)])


def _halved(images: Tensor) -> Tensor:
    return F.avg_pool2d(images, 2)


@functools.cache
def lesson() -> tuple[Tensor, Tensor]:
    """Crops of the training photographs, every second one the one before it, distorted, and what st-alex says of them.

    Returns:
        Images (1024, 3, 32, 32) in [0, 1], and embeddings (1024, 1024), sketched.
    """
    images = _halved(embedded("train", IMAGES).images.float() / 255)
    return images, _teacher()(images)


@functools.cache
def _exam(split: str) -> tuple[Tensor, Tensor]:
    """References and both distortions (3, n, 3, 32, 32) of a split, and the teacher's distances (2, n) to them."""
    data = triplets.simulated(split)
    chosen = torch.arange(TRIPLETS) * len(data) // TRIPLETS
    images = torch.stack([_halved(part) for part in data[chosen][:3]])
    ref, p0, p1 = map(_teacher(), images)
    return images, torch.stack([(ref - p0).norm(dim=1), (ref - p1).norm(dim=1)])


@torch.no_grad()
def scores(embed: Callable[[Tensor], Tensor], split: str = "val") -> Scores:
    """Scores of an embedding (n, 3, 32, 32) in [0, 1] -> (n, d) on photographs of `split`, "val" or "test"."""
    images, theirs = _exam(split)
    e, f, g = (embed(part) for part in images)
    own = torch.stack([(e - f).norm(dim=1), (e - g).norm(dim=1)])
    # distance of the reference's embedding to the plane between the other two
    radius = (own[1].square() - own[0].square()) / (2 * (f - g).norm(dim=1).clamp_min(1e-12))
    radius = radius * (theirs[1] - theirs[0]).sign()
    certified = (radius > EPSILON).double().mean().item()
    return Scores(spearman(own.flatten(), theirs.flatten()), (radius > 0).double().mean().item(), certified)


@exercise("11.8")
def student(attempt: Callable, random: torch.Generator) -> None:
    """Open-ended: a trained 1-Lipschitz student, close to the teacher and certified."""
    images, targets = lesson()
    network = attempt(images.clone(), targets.clone())
    if network is None:
        raise Mistake("your function returns nothing; did you forget `return`?")
    if not isinstance(network, nn.Module):
        raise Mistake(f"your function returns a {type(network).__name__}; return a network, such as nn.Sequential(...)")
    network.eval()
    held_out = _exam("val")[0][0]
    some = held_out[:4]
    with torch.no_grad():
        found = network(some)
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != 4:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise Mistake(f"the network gives {shape} for 4 images; an embedding is (n, d): end with nn.Flatten()")
        if not found.isfinite().all():
            raise Mistake(
                "the network gives NaN: one step with an infinite gradient is enough, such as of log 0, where an image "
                "and its distortion are equal"
            )
        if not torch.allclose(network(some[:1]), found[:1], atol=1e-4):
            raise Mistake("an image alone has another embedding than in a batch, so no distance is its own")
    try:
        bound = upper_bound(network)
    except (TypeError, ValueError) as error:
        raise Mistake(f"no bound from above: {' '.join(str(error).split())}") from None
    if bound > 1 + 1e-4:
        raise Mistake(f"the bound from above is {bound:.3g}, so it is not 1-Lipschitz; use layers whose bound is 1")
    _expect_slow(network, held_out, bound)
    if next(network.parameters(), None) is None:
        raise Mistake("the network has no parameters, so it has not learnt from anybody")
    perception, _, certified = scores(network)
    if perception < PERCEPTION and certified < CERTIFIED:
        raise Mistake(
            f"correlation {perception:.2f} with the teacher, {certified:.0%} certified; reach {PERCEPTION} and "
            f"{CERTIFIED:.0%}"
        )
    if perception < PERCEPTION:
        raise Mistake(
            f"{certified:.0%} certified, but correlation {perception:.2f} with the teacher; reach {PERCEPTION}: what "
            "does the teacher tell apart that pixels do not?"
        )
    if certified < CERTIFIED:
        raise Mistake(
            f"correlation {perception:.2f} with the teacher, but only {certified:.0%} decided like it and certified at "
            f"{EPSILON}; reach {CERTIFIED:.0%}: the distances have become too short"
        )


def _expect_slow(network: nn.Module, images: Tensor, bound: float) -> None:
    """Raise :class:`Mistake` if images and their neighbours are further apart in the embedding than in pixels."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for size in (0.01, 1.0):
            near = (images + size * torch.randn(images.shape, generator=random) / 50).clamp(0, 1)
            for other in (near, images.roll(1, 0)):
                moved = (network(other) - network(images)).norm(dim=1) / (other - images).flatten(1).norm(dim=1)
                if moved.max() > max(bound, 0) * (1 + 1e-3):
                    raise Mistake(
                        f"upper_bound() of the network says {bound:.3g}, but between two images it moves by "
                        f"{moved.max():.3g}; a bound has to be true"
                    )
