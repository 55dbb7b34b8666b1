"""Fine-tuning a 1-Lipschitz network on triplets: for its decisions, as published, or for their certified radii."""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.certification.radii import append_one, check_kind, cosine_2afc_radius, euclidean_2afc_radius
from course_lib.data.triplets import Triplet
from course_lib.judgments.ranking import TripletData, check_not_empty
from course_lib.training import PRECISIONS, train

LOSSES = ("radius", "hinge")


@dataclass(frozen=True)
class Recipe:
    """How a network is fine-tuned.

    Attributes:
        loss: "radius": :func:`radius_hinge`, on the certified radius itself; "hinge": the published
            :func:`distance_hinge`, on the difference of two cosine distances.
        kind: which certified radius, "euclidean" or "cosine". The published hinge is always about angles.
        margins: the loss is the mean over these, in the units of what it is about: L2 of images for "radius", 1 -
            cosine for "hinge". A small one asks for right decisions, a large one for large radii.
        appended: append a constant 1 to embeddings before the published hinge, an option of the published code.
        flips: mirror whole batches at random, left-right and upside down.
        learning_rate, betas: of Adam; the rate rises over `warmup_steps`, then falls to 0 along a cosine.
        warmup_steps: at most a tenth of all steps.
        batch_size: triplets per step.
        epochs: how often each triplet is seen.
        average: if above 0, the result is a moving average of the weights, with so much of it kept in each step.
        precision: "fp32", or "bf16" for forward and backward passes under autocast.
        seed: of order and mirroring.

    Raises:
        ValueError: for unknown names, or numbers that make no sense.

    Source: "hinge": Ghazanfari et al., LipSim, ICLR 2024, section 4.2. "radius": this course.
    """

    loss: str = "radius"
    kind: str = "euclidean"
    margins: tuple[float, ...] = (1.0,)
    appended: bool = False
    flips: bool = True
    learning_rate: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_steps: int = 50
    batch_size: int = 64
    epochs: int = 6
    average: float = 0.0
    precision: str = "fp32"
    seed: int = 0

    def __post_init__(self):
        check_kind(self.kind)
        for name, value, known in (("loss", self.loss, LOSSES), ("precision", self.precision, PRECISIONS)):
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}; choose {' or '.join(known)}")
        if self.appended and self.loss != "hinge":
            raise ValueError("appended belongs to the published loss; choose loss='hinge', or leave it out")
        positive = {"margin": min(self.margins, default=0), "learning_rate": self.learning_rate}
        positive |= {"batch_size": self.batch_size, "epochs": self.epochs}
        for name, value in positive.items():
            if not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; it has to be positive")
        if self.warmup_steps < 0 or not all(0 <= share < 1 for share in (*self.betas, self.average)):
            raise ValueError(
                f"warmup_steps is {self.warmup_steps}, betas {self.betas}, average {self.average}; use >= 0 and [0, 1)"
            )

    def rate(self, step: int, steps: int) -> float:
        """Share of the learning rate in step `step` of `steps`, counted from 0."""
        warmup = min(self.warmup_steps, steps // 10)
        return min(1.0, (step + 1) / (warmup + 1)) * (1 + math.cos(math.pi * step / steps)) / 2


@dataclass
class Finetuned:
    """A network that was fine-tuned, in evaluation mode, and how.

    Attributes:
        network: the one that was given, or the average of its weights.
        data: name of the triplets.
        recipe: how it was trained.
        history: a record for each epoch.
    """

    network: nn.Module
    data: str
    recipe: Recipe
    history: list[dict[str, Any]] = field(default_factory=list)


def radius_hinge(
    e_ref: Float[Tensor, "n d"],
    e_p0: Float[Tensor, "n d"],
    e_p1: Float[Tensor, "n d"],
    judge: Float[Tensor, "n"],
    margins: float | Sequence[float],
    kind: str = "euclidean",
) -> Float[Tensor, ""]:
    """Mean of max(0, margin - r), r the certified radius of the right decision, negative where another one is made.

    What is rewarded is what will be certified, in the units of the image, so an embedding cannot win by growing the
    angle and shrinking its length. Votes that are not unanimous count for both sides, each with its share.

    Args:
        e_ref: embeddings of references, not normalised.
        e_p0: of first candidates.
        e_p1: of second candidates.
        judge: share of votes for p1, in [0, 1].
        margins: radius above which nothing more is gained, L2 of images in [0, 1]; of several, the mean is taken.
        kind: "euclidean" or "cosine".
    """
    check_kind(kind)
    radius = euclidean_2afc_radius if kind == "euclidean" else cosine_2afc_radius
    return _hinge(radius(e_ref, e_p0, e_p1), judge, margins)


def distance_hinge(
    e_ref: Float[Tensor, "n d"],
    e_p0: Float[Tensor, "n d"],
    e_p1: Float[Tensor, "n d"],
    judge: Float[Tensor, "n"],
    margins: float | Sequence[float],
    appended: bool = False,
) -> Float[Tensor, ""]:
    """The published loss: mean of max(0, margin - (d1 - d0)) where p0 is right, d = 1 - cosine; mirrored where p1 is.

    It sees angles only. An embedding may become as short as it likes, and with it the radius that can be certified.

    Args:
        e_ref: embeddings of references.
        e_p0: of first candidates.
        e_p1: of second candidates.
        judge: share of votes for p1, in [0, 1].
        margins: of d1 - d0; of several, the mean is taken.
        appended: append a constant 1 to every embedding first.

    Source: Ghazanfari et al., LipSim, ICLR 2024, section 4.2.
    """
    if appended:
        e_ref, e_p0, e_p1 = (append_one(e) for e in (e_ref, e_p0, e_p1))
    return _hinge(F.cosine_similarity(e_ref, e_p0) - F.cosine_similarity(e_ref, e_p1), judge, margins)


def _hinge(for_p0: Tensor, judge: Tensor, margins: float | Sequence[float]) -> Tensor:
    margin = torch.as_tensor(margins, dtype=for_p0.dtype, device=for_p0.device).reshape(-1, 1)
    return ((1 - judge) * (margin - for_p0).relu() + judge * (margin + for_p0).relu()).mean()


class _Averaged(nn.Module):
    """A network, and the moving average of its weights; both are in a checkpoint."""

    steps: Tensor

    def __init__(self, network: nn.Module, keep: float):
        super().__init__()
        self.network, self.keep = network, keep
        self.mean = copy.deepcopy(network).requires_grad_(False) if keep else network
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self) -> None:
        """Keep less at first, when the average consists of little but the random start."""
        if self.keep:
            done = int(self.steps)
            share = min(self.keep, (1 + done) / (10 + done)) if done else 0.0
            for mean, new in zip(self.mean.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(new, 1 - share)
            self.steps += 1


def finetune(
    network: nn.Module,
    data: TripletData,
    recipe: Recipe | None = None,
    *,
    val: Any = None,
    folder: str | Path | None = None,
    device: str | torch.device = "cpu",
    checkpoint_steps: int = 500,
    progress: bool = False,
) -> Finetuned:
    """Fine-tune a network on triplets, in place.

    Args:
        network: images -> embeddings; 1-Lipschitz if anything is to be certified afterwards.
        data: triplets; their `judge` is what is learnt. For the decisions of a metric, see
            :func:`~course_lib.certification.decided_by`.
        recipe: how.
        val: called with the network after every epoch; its scores join the history.
        folder: for checkpoints and metrics; a run that is there is continued, exactly.
        device: where to compute.
        checkpoint_steps: steps between checkpoints; there is one after every epoch, too.
        progress: show progress bars, on a terminal.

    Raises:
        ValueError: for no triplets.
        TrainingError: as the training loop does.
    """
    recipe = recipe or Recipe()
    check_not_empty(data)
    both = _Averaged(network, recipe.average)
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate, betas=recipe.betas)
    steps = recipe.epochs * math.ceil(len(data) / recipe.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: recipe.rate(step, steps))

    def loss(batch: Triplet) -> Tensor:
        # in one pass, because every pass rescales the weights
        ref, p0, p1 = network(torch.cat([batch.ref, batch.p0, batch.p1])).float().chunk(3)
        if recipe.loss == "radius":
            return radius_hinge(ref, p0, p1, batch.judge, recipe.margins, recipe.kind)
        return distance_hinge(ref, p0, p1, batch.judge, recipe.margins, recipe.appended)

    history = train(
        both, loss, lambda generator: _batches(data, recipe, generator), optimizer, epochs=recipe.epochs,
        schedule=schedule, after_step=both.update, validate=(lambda: val(both.mean)) if val else None, folder=folder,
        settings={"network": type(network).__name__, "data": data.name, "triplets": len(data), **asdict(recipe)},
        checkpoint_steps=checkpoint_steps, seed=recipe.seed, device=device, precision=recipe.precision,
        progress="fine-tuning" if progress else None,
    )  # fmt: skip
    return Finetuned(both.mean.eval(), data.name, recipe, history)


def _batches(data: TripletData, recipe: Recipe, generator: torch.Generator) -> Iterator[Triplet]:
    for batch in data.batches(recipe.batch_size, generator):
        sides = [side for side in (-1, -2) if torch.rand((), generator=generator) < 0.5]
        if recipe.flips and sides:
            ref, p0, p1 = (images.flip(sides) for images in batch[:3])
            batch = Triplet(ref, p0, p1, batch.judge)
        yield batch
