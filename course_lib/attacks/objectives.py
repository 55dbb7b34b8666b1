"""What an adversary wants, as one number per example that it makes as large as it can."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from course_lib.judgments import Metric
from course_lib.validation import TOLERANCE, check_images, check_pair

PERTURBED = ("ref", "p0", "p1", "all")


@dataclass(frozen=True)
class Objective:
    """A number per example to be made large by changing images; the attack has succeeded above `threshold`.

    Attributes:
        start: in [0, 1]; (n, 3, h, w), or (n, k, 3, h, w) where k images of an example are changed together.
        function: ``function(images, *fixed)`` gives (n,).
        fixed: what belongs to each example and does not change, such as embeddings of the other images; each (n, ...).
        threshold: (n,); infinity where the number is simply to become as large as possible.
    """

    start: Float[Tensor, "n *parts c h w"]
    function: Callable[..., Tensor]
    fixed: tuple[Tensor, ...]
    threshold: Float[Tensor, "n"]

    def __len__(self) -> int:
        return len(self.start)

    def value(self, images: Float[Tensor, "n *parts c h w"]) -> Float[Tensor, "n"]:
        """The number to be made large, for images that replace `start`.

        Raises:
            ValueError: if it is not one number for each, or NaN.
        """
        if not len(images):
            return self.threshold  # metrics refuse empty batches
        value = self.function(images, *self.fixed)
        if value.shape != (len(images),):
            raise ValueError(f"the objective is {tuple(value.shape)} for {len(images)} examples; it has to be (n,)")
        if value.isnan().any():
            raise ValueError(f"the objective is NaN for example {int(value.isnan().nonzero()[0])} of {len(images)}")
        return value

    def succeeded(self, value: Float[Tensor, "n"]) -> Tensor:
        """Where a value is above the threshold, (n,) bool. A tie is not."""
        return value > self.threshold

    def select(self, which: Int64[Tensor, "m"]) -> "Objective":
        """The same for some of the examples."""
        if len(which) == len(self) and torch.equal(which, torch.arange(len(self), device=which.device)):
            return self  # embeddings are large to copy
        return Objective(
            self.start[which], self.function, tuple(part[which] for part in self.fixed), self.threshold[which]
        )


def flip(
    metric: Metric,
    ref: Float[Tensor, "n 3 h w"],
    p0: Float[Tensor, "n 3 h w"],
    p1: Float[Tensor, "n 3 h w"],
    *,
    label: Tensor | None = None,
    perturb: str = "ref",
) -> Objective:
    """Make a metric choose the wrong one of p0 and p1.

    The value is d(ref, right) - d(ref, wrong): negative while the metric is right, positive once it is fooled. It is
    also the margin z_wrong - z_right of the two logits (d1, d0).

    Args:
        metric: as :func:`course_lib.judgments.load` gives it.
        ref: reference images in [0, 1].
        p0: first candidates.
        p1: second candidates.
        label: (n,) 0 where p0 is the right answer and 1 where p1 is; None takes the metric's own decision.
        perturb: "ref", "p0", "p1", or "all" three, each in a ball of its own; then images are (n, 3, 3, h, w).

    Raises:
        ValueError: for images that do not fit together, labels other than 0 and 1, or an unknown `perturb`.
    """
    check_pair(ref, p0, ("ref", "p0"))
    check_pair(ref, p1, ("ref", "p1"))
    if perturb not in PERTURBED:
        raise ValueError(f"unknown perturb={perturb!r}; choose {', '.join(PERTURBED)}")
    if label is None:
        with torch.no_grad():
            d0, d1 = metric.triplet_distances(ref, p0, p1)
        label = (d1 < d0).long()
    elif label.shape != (len(ref),) or not ((label == 0) | (label == 1)).all():
        raise ValueError(f"label has to hold 0 (p0 is right) or 1 for each of {len(ref)} triplets: (judge > 0.5)")
    sign = 1 - 2 * label.to(ref)

    if perturb == "all":

        def of_all(images: Tensor, sign: Tensor) -> Tensor:
            d0, d1 = metric.triplet_distances(*images.unbind(1))
            return sign * (d0 - d1)

        return Objective(_start(torch.stack((ref, p0, p1), 1)), of_all, (sign,), torch.zeros_like(sign))

    if perturb == "ref":
        distance = _Distances(metric)

        def of_reference(images: Tensor, first: Tensor, second: Tensor, sign: Tensor) -> Tensor:
            d0, d1 = distance(images, first, second)
            return sign * (d0 - d1)

        return Objective(_start(ref), of_reference, (*distance.prepare(p0, p1), sign), torch.zeros_like(sign))

    start, other = (p0, p1) if perturb == "p0" else (p1, p0)
    sign = sign if perturb == "p0" else -sign
    distance = _Distances(metric, changing="second")
    (reference,) = distance.prepare(ref)
    with torch.no_grad():
        fixed_distance = metric(ref, other)

    def of_candidate(images: Tensor, reference: Tensor, fixed_distance: Tensor, sign: Tensor) -> Tensor:
        return sign * (distance(images, reference)[0] - fixed_distance)

    return Objective(_start(start), of_candidate, (reference, fixed_distance, sign), torch.zeros_like(sign))


def push(metric: Metric, images: Float[Tensor, "n 3 h w"], threshold: float = float("inf")) -> Objective:
    """Make the metric call a hardly changed image different: the value is d(images, changed images).

    At the start x == y, where the distance has its minimum, the gradient is 0 or, behind a square root, NaN: an
    attack on this objective has to begin at a random point.

    Raises:
        ValueError: if `images` is not a batch of images in [0, 1].
    """
    check_images(images)
    distance = _Distances(metric, changing="second")
    return Objective(
        _start(images),
        lambda changed, original: distance(changed, original)[0],
        distance.prepare(images),
        images.new_full((len(images),), threshold),
    )


def pull(
    metric: Metric,
    images: Float[Tensor, "n 3 h w"],
    target: Float[Tensor, "n 3 h w"],
    threshold: float = 0.0,
) -> Objective:
    """Make the metric call two different images the same: the value is -d(changed images, target).

    Succeeds where the distance falls below `threshold`.

    Raises:
        ValueError: for images that do not fit together.
    """
    check_pair(images, target, ("images", "target"))
    distance = _Distances(metric)
    return Objective(
        _start(images),
        lambda changed, aim: -distance(changed, aim)[0],
        distance.prepare(target),
        images.new_full((len(images),), -threshold),
    )


def retrieve(
    metric: Metric,
    query: Float[Tensor, "n 3 h w"],
    gallery: Float[Tensor, "m 3 h w"],
    target: Int64[Tensor, "n"],
) -> Objective:
    """Make a search in `gallery` return the image number `target` first for every query.

    The value is the smallest distance to any other image of the gallery minus the distance to the target: positive
    once the target is the nearest.

    Raises:
        ValueError: for images that do not fit together, fewer than two in the gallery, or targets that are not there.
    """
    check_images(query, "query")
    check_images(gallery, "gallery")
    if len(gallery) < 2 or target.shape != (len(query),) or not ((target >= 0) & (target < len(gallery))).all():
        raise ValueError(f"give one target in 0..{len(gallery) - 1} per query, and a gallery of at least two images")
    distance = _Distances(metric)
    (prepared,) = distance.prepare(gallery)

    def value(images: Tensor, target: Tensor) -> Tensor:
        distances = torch.stack(distance(images, *(one.expand(len(images), *one.shape) for one in prepared)), 1)
        others = distances.scatter(1, target[:, None], torch.inf).amin(1)
        return others - distances.gather(1, target[:, None])[:, 0]

    return Objective(_start(query), value, (target,), query.new_zeros(len(query)))


def misclassify(
    classifier: Callable[[Tensor], Tensor], images: Float[Tensor, "n *parts c h w"], label: Int64[Tensor, "n"]
) -> Objective:
    """Make a classifier with logits (n, classes) wrong: the value is the largest wrong logit minus the right one.

    Raises:
        ValueError: for images outside [0, 1], or labels that are not one class for each.

    Source: the margin loss of Carlini, Wagner, Towards evaluating the robustness of neural networks, S&P 2017, f_6.
    """
    if not ((images >= -TOLERANCE) & (images <= 1 + TOLERANCE)).all():
        raise ValueError("images have values outside [0, 1], or NaN; scale inside the classifier instead")
    if label.shape != (len(images),) or label.dtype != torch.int64:
        raise ValueError(f"label is {tuple(label.shape)} of {label.dtype}; give one class (int64) per image")

    def value(changed: Tensor, label: Tensor) -> Tensor:
        logits = classifier(changed)
        right = logits.gather(1, label[:, None])[:, 0]
        return logits.scatter(1, label[:, None], -torch.inf).amax(1) - right

    return Objective(_start(images), value, (label,), images.new_zeros(len(images)))


def _start(images: Tensor) -> Tensor:
    """Without what the tolerance of the checks lets through, so that [0, 1] is exact for the attacks."""
    return images.detach().clamp(0, 1)


class _Distances:
    """Distances between changing images and fixed ones; a metric that embeds does so once for those that are fixed.

    For LPIPS on triplets this saves two of three trunk passes at every step, forward and backward.

    Args:
        metric: also one that is not symmetric.
        changing: whether the changing images are its "first" or its "second" argument.
    """

    def __init__(self, metric: Metric, changing: str = "first"):
        self.metric, self.changing = metric, changing
        self.network: Any = metric.distance if hasattr(metric.distance, "between") else None

    @torch.no_grad()
    def prepare(self, *fixed: Tensor) -> tuple[Tensor, ...]:
        """What to give in place of the fixed images."""
        return tuple(self.network.embed(images) for images in fixed) if self.network else fixed

    def __call__(self, images: Tensor, *prepared: Tensor) -> tuple[Tensor, ...]:
        """Distances (n,) to each of the prepared batches."""
        between = self.network.between if self.network else self.metric
        changing = self.network.embed(images) if self.network else images
        if self.changing == "second":
            return tuple(between(fixed, changing) for fixed in prepared)
        return tuple(between(changing, fixed) for fixed in prepared)
