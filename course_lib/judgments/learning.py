"""Training LPIPS on judgments: only the heads ("lin"), trunk and heads ("tune"), or everything anew ("scratch")."""

import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from course_lib.judgments.ranking import (
    DROPOUT,
    RANKINGS,
    CachedDifferences,
    Heads,
    Ranker,
    TripletData,
    cache_differences,
    check_not_empty,
    fingerprint,
)
from course_lib.judgments.scores import two_afc_score
from course_lib.lpips import LPIPS
from course_lib.paths import write_atomically
from course_lib.training import load_checkpoint, to_device, train
from course_lib.trunks import Trunk

MODES = ("lin", "tune", "scratch")
DROPOUTS = ("channel", "element", "none")
NEEDS_IMAGES = "element-wise dropout needs the images in every step; set fast=False or dropout='channel'"


@dataclass(frozen=True)
class Recipe:
    """How LPIPS is trained. The defaults are the published ones, except that dropout drops whole channels.

    Attributes:
        learning_rate: of Adam with betas (0.5, 0.999).
        trunk_learning_rate: of the trunk's weights; None: the same. With few steps the heads need a much higher rate
            than the trunk: at 1e-4 they hardly move from their random start.
        batch_size: triplets per step.
        epochs, decay_epochs: at the constant rate, and then falling linearly to 0.
        ranking: "network", the published small network on both distances, or "sigmoid" of their difference.
        dropout: "channel" drops channels after averaging over positions; "element", as published, drops elements
            before it, which needs the images; "none".
        seed: of weights, order and dropout.

    Raises:
        ValueError: for an unknown ranking or dropout, or numbers that make no sense.

    Source: Zhang et al., CVPR 2018, appendix B (of arXiv 1801.03924v2), and their training script.
    """

    learning_rate: float = 1e-4
    batch_size: int = 50
    epochs: int = 5
    decay_epochs: int = 5
    ranking: str = "network"
    dropout: str = "channel"
    seed: int = 0
    trunk_learning_rate: float | None = None

    def __post_init__(self):
        if self.ranking not in RANKINGS:
            raise ValueError(f"unknown ranking {self.ranking!r}; choose one of {', '.join(RANKINGS)}")
        if self.dropout not in DROPOUTS:
            raise ValueError(f"unknown dropout {self.dropout!r}; choose one of {', '.join(DROPOUTS)}")
        rates = (self.learning_rate, self.trunk_learning_rate)
        if not (all(rate is None or rate > 0 for rate in rates) and self.batch_size >= 1):
            raise ValueError(f"learning rates are {rates}, batch_size {self.batch_size}; all of them are positive")
        if min(self.epochs, self.decay_epochs) < 0 or self.epochs + self.decay_epochs < 1:
            raise ValueError(f"epochs is {self.epochs}, decay_epochs {self.decay_epochs}; train for at least one epoch")

    def rate(self, epoch: float) -> float:
        """Share of the learning rate at a time in epochs: 1, then linearly down to 0."""
        left = self.epochs + self.decay_epochs - epoch
        return 1.0 if epoch <= self.epochs else max(0.0, left) / max(1, self.decay_epochs)


@dataclass
class Trained:
    """A metric that was trained, and its history.

    Attributes:
        metric: LPIPS with the trained weights.
        mode: "lin", "tune" or "scratch".
        recipe: how it was trained.
        data: name of the data set.
        history: one dict per epoch: loss, learning_rate, and val_2afc when there were validation triplets.
    """

    metric: LPIPS
    mode: str
    recipe: Recipe
    data: str
    history: list[dict[str, Any]] = field(default_factory=list)

    def save(self, path: str | Path) -> None:
        """Write the metric to a file that :func:`load_metric` reads, atomically."""
        network, content = self.metric.network, io.BytesIO()
        trunk = {f"features.{key}": value for key, value in network.trunk.features.state_dict().items()}
        heads = [head.detach() for head in network.heads]
        about = {"mode": self.mode, "data": self.data, **vars(self.recipe), "history": self.history}
        torch.save({"net": self.metric.net, "heads": heads, "trunk": trunk, "about": about}, content)
        write_atomically(path, content.getvalue())


def load_metric(path: str | Path) -> LPIPS:
    """The metric that :meth:`Trained.save` wrote.

    Raises:
        FileNotFoundError, ValueError: if there is no such file, it is damaged, or something else.
    """
    stored = load_checkpoint(path)
    if not {"net", "heads", "trunk"} <= stored.keys():
        raise ValueError(f"{path} holds no trained LPIPS but {', '.join(map(str, stored))}; name a metric.pt")
    metric = LPIPS(stored["net"], weights=None, calibrated=False)
    metric.load_trunk(stored["trunk"])
    metric.set_heads(stored["heads"])
    return metric


def train_lpips(
    mode: str,
    data: TripletData,
    *,
    val: TripletData | None = None,
    net: str = "st-alex",
    recipe: Recipe | None = None,
    weights: str | None = "pretrained",
    trunk: dict[str, Tensor] | None = None,
    fast: bool = True,
    folder: str | Path | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Trained:
    """Train LPIPS on judgments.

    Args:
        mode: "lin" learns the heads on a frozen trunk, "tune" changes the trunk as well, "scratch" starts both at
            random values.
        data: triplets to learn from.
        val: triplets to score after every epoch, as ``val_2afc``.
        net: network of the trunk.
        recipe: how to train; default: as published.
        weights: of the trunk at the start: "pretrained", or None for random ones; "scratch" always starts at random.
        trunk: a state dict to start the trunk with instead, with torchvision's ``features.*`` names; not for "scratch".
        fast: in mode "lin", send each image through the trunk once, and train on the channel differences. The result
            is that of the slow way up to rounding. Not with element-wise dropout, which is drawn anew for every step.
        folder: for checkpoints, metrics and cached differences; a run that is there is continued.
        device: where to compute.
        progress: show progress bars.

    Raises:
        ValueError: for an unknown mode or net, empty data, a trunk for "scratch", element-wise dropout with `fast`, or
            a folder with another run.
        ConnectionError: if the trunk must be downloaded and there is no network.
    """
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode!r}; choose one of {', '.join(MODES)}")
    if mode == "scratch" and trunk:
        raise ValueError("mode 'scratch' starts at random weights; leave trunk= out, or choose mode 'tune'")
    recipe = recipe or Recipe()
    fast = fast and mode == "lin"
    if fast and recipe.dropout == "element":
        raise ValueError(NEEDS_IMAGES)
    for part in (data, val):
        if part is not None:
            check_not_empty(part)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        metric = LPIPS(net, weights=None if mode == "scratch" or trunk else weights, calibrated=False).to(device)
    if trunk:
        metric.load_trunk(trunk)
    network = metric.network
    network.trunk.requires_grad_(mode != "lin")
    ranker = _ranker(recipe, network.trunk.widths, None if fast else network.trunk)
    settings = {"mode": mode, "fast": fast, "net": net, "data": data.name, "triplets": len(data), **vars(recipe)}
    settings["trunk and triplets"] = fingerprint(network.trunk, data)[:12]
    learn: Any = data
    check: Any = val
    if fast:
        keep = Path(folder) if folder else None
        learn, check = (
            part and cache_differences(metric, part, folder=keep and keep / name, progress=progress)
            for name, part in (("differences", data), ("differences-val", val))
        )
    history = _fit(ranker, learn, check, recipe, folder=folder, settings=settings, device=device, progress=progress)
    network.trunk.requires_grad_(False)
    metric.set_heads(ranker.heads.per_layer())
    trained = Trained(metric.eval(), mode, recipe, data.name, history)
    if folder:
        trained.save(Path(folder) / "metric.pt")
    return trained


def train_heads(
    data: CachedDifferences, *, val: CachedDifferences | None = None, recipe: Recipe | None = None
) -> tuple[Heads, list[dict[str, Any]]]:
    """The fast way of mode "lin", from channel differences: trained heads and the metrics of every epoch.

    Raises:
        ValueError: for empty data, or element-wise dropout.
    """
    recipe = recipe or Recipe()
    if recipe.dropout == "element":
        raise ValueError(NEEDS_IMAGES)
    for part in (data, val):
        if part is not None:
            check_not_empty(part)
    ranker = _ranker(recipe, data.widths)
    history = _fit(ranker, data, val, recipe)
    return ranker.heads.eval(), history


def held_out_distances(
    data: CachedDifferences, recipe: Recipe | None = None, groups: Int64[Tensor, "n"] | None = None
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Distances (d0, d1) of every triplet, by heads that were trained without any triplet of its group.

    Args:
        data: the triplets.
        recipe: how each of the heads is trained.
        groups: what is left out together; default: the photograph.

    Raises:
        ValueError: if there are no groups, only one, or not one for each triplet.
    """
    groups = data.photo if groups is None else groups
    if groups is None:
        raise ValueError(f"{data.name} does not say which photographs its triplets are from; give groups=")
    if len(groups) != len(data) or len(groups.unique()) < 2:
        raise ValueError(
            f"groups names {len(groups.unique())} groups of {len(groups)} triplets; give one name to each of the "
            f"{len(data)} triplets of {data.name}, and at least two different ones"
        )
    d0, d1 = torch.empty(len(data)), torch.empty(len(data))
    for group in groups.unique():
        out = groups == group
        heads, _ = train_heads(data.select(~out), recipe=recipe)
        with torch.no_grad():
            d0[out], d1[out] = heads(data.d0[out]), heads(data.d1[out])
    return d0, d1


def _ranker(recipe: Recipe, widths: tuple[int, ...], trunk: Trunk | None = None) -> Ranker:
    """Heads and ranking as they are before the first step: the seed decides, and nothing random that came before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        heads = Heads(widths, DROPOUT if recipe.dropout == "channel" else 0.0)
        return Ranker(heads, RANKINGS[recipe.ranking](), trunk, DROPOUT if recipe.dropout == "element" else 0.0)


def _fit(
    ranker: Ranker, data: Any, val: Any, recipe: Recipe, device: str | torch.device = "cpu", progress: bool = False,
    **options: Any,
) -> list[dict[str, Any]]:  # fmt: skip
    steps = -(-len(data) // recipe.batch_size)
    trunk = [p for name, p in ranker.named_parameters() if name.startswith("trunk.") and p.requires_grad]
    rest = [p for name, p in ranker.named_parameters() if not name.startswith("trunk.")]
    groups: list[dict[str, Any]] = [{"params": rest}]
    if trunk:
        groups.append({"params": trunk, "lr": recipe.trunk_learning_rate or recipe.learning_rate})
    optimizer = torch.optim.Adam(groups, lr=recipe.learning_rate, betas=(0.5, 0.999))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: recipe.rate(step / steps))

    def batches(generator: torch.Generator) -> Iterable[Any]:
        return data.batches(recipe.batch_size, generator)

    def validate() -> dict[str, Any]:
        scored = [(*ranker(to_device(batch, device)), batch.judge) for batch in val.batches(recipe.batch_size)]
        d0, d1, judge = (torch.cat([part.cpu() for part in parts]) for parts in zip(*scored, strict=True))
        return {"val_2afc": two_afc_score(d0, d1, judge)}

    return train(
        ranker, ranker.loss, batches, optimizer, epochs=recipe.epochs + recipe.decay_epochs, schedule=schedule,
        after_step=ranker.heads.clamp, validate=validate if val else None, best="val_2afc" if val else None,
        seed=recipe.seed, device=device, progress="training" if progress else None, **options,
    )  # fmt: skip
