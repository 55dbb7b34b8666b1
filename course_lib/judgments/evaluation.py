"""Any metric on any judgments: distances once through the data, then scores, ceilings and intervals in one table."""

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from tqdm import tqdm

from course_lib.judgments.learning import load_metric
from course_lib.judgments.scores import bootstrap_interval, human_ceiling, jnd_map, majority_ceiling, two_afc_score
from course_lib.lpips import LPIPS
from course_lib.paths import write_atomically
from course_lib.perceptual_losses import ms_ssim, psnr, ssim
from course_lib.trunks import NETS
from course_lib.validation import check_pair

Distance = Callable[[Tensor, Tensor], Tensor]


def l2(x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n"]:
    """Euclidean distance of pixels, on the [0, 1] scale; its gradient is 0, not NaN, where x equals y.

    Raises:
        TypeError, ValueError: if x or y is not a batch of images in [0, 1], or their shapes differ.
    """
    check_pair(x, y)
    return torch.linalg.vector_norm((x - y).flatten(1), dim=1)


PIXEL_METRICS: dict[str, Distance] = {
    "l2": l2,
    "psnr": lambda x, y: -psnr(x, y),
    "ssim": lambda x, y: 1 - ssim(x, y),
    "ms-ssim": lambda x, y: 1 - ms_ssim(x, y),
}
LPIPS_KINDS: dict[str, dict[str, Any]] = {
    "": {},
    "-uncalibrated": {"calibrated": False},
    "-random": {"calibrated": False, "weights": None},
}
METRICS = (*PIXEL_METRICS, *(f"lpips-{net}{kind}" for net in NETS for kind in LPIPS_KINDS))


@dataclass(frozen=True)
class Metric:
    """A distance between images, and what to call it: ``metric(x, y)`` gives (n,), smaller means more alike."""

    name: str
    distance: Any

    def __call__(self, x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n"]:
        """Distances of a batch of pairs.

        Raises:
            ValueError: if the metric does not return one number for each pair.
        """
        return self._checked(self.distance(x, y), len(x))

    def triplet_distances(self, ref: Tensor, p0: Tensor, p1: Tensor) -> tuple[Tensor, Tensor]:
        """(d(ref, p0), d(ref, p1)), in one go where the metric can. Raises as calling it does."""
        if hasattr(self.distance, "triplet_distances"):
            d0, d1 = self.distance.triplet_distances(ref, p0, p1)
            return self._checked(d0, len(ref)), self._checked(d1, len(ref))
        return self(ref, p0), self(ref, p1)

    def _checked(self, distance: Any, n: int) -> Tensor:
        if not isinstance(distance, Tensor) or distance.shape != (n,):
            found = tuple(distance.shape) if isinstance(distance, Tensor) else type(distance).__name__
            raise ValueError(f"metric {self.name!r} returned {found} for {n} pairs; return a tensor ({n},)")
        if distance.isnan().any():
            at = int(distance.isnan().nonzero()[0])
            raise ValueError(f"metric {self.name!r} returned NaN for pair {at} of a batch of {n}; it has no distance")
        return distance


def load(metric: str | Path | Distance, device: str | torch.device = "cpu", seed: int = 0) -> Metric:
    """A metric by name, from a file, or from a function.

    Args:
        metric: one of :data:`METRICS`; a ``metric.pt`` that was trained here; ``module:function``, any callable that
            takes two batches of images in [0, 1] and returns distances (n,); or that callable itself.
            ``-uncalibrated`` weighs all channels 1, ``-random`` has a random trunk as well.
        device: where its weights go.
        seed: of random weights.

    Raises:
        ValueError, FileNotFoundError: if there is no such metric; the message lists the names.
        ConnectionError: if weights must be downloaded and there is no network.
    """
    if callable(metric):
        return Metric(getattr(metric, "__name__", type(metric).__name__), metric)
    name = str(metric)
    if name in PIXEL_METRICS:
        return Metric(name, PIXEL_METRICS[name])
    if name in METRICS:
        net = max((net for net in NETS if name.startswith(f"lpips-{net}")), key=len)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Metric(name, LPIPS(net, **LPIPS_KINDS[name.removeprefix(f"lpips-{net}")]).to(device))
    if name.endswith(".pt"):
        return Metric(name, load_metric(name).to(device))
    module, colon, function = name.partition(":")
    if not colon:
        raise ValueError(f"unknown metric {name!r}; choose {', '.join(METRICS)}, a metric.pt, or module:function")
    try:
        distance = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"metric {name!r} cannot be imported ({error}); name a function as module:function") from None
    if not callable(distance):
        raise ValueError(f"metric {name!r} is a {type(distance).__name__}; name a function of two batches of images")
    return Metric(name, distance)


@dataclass
class Evaluation:
    """Distances of one metric on one data set of judgments, and what they score.

    Attributes:
        metric, data: names.
        kind: "2afc" or "jnd".
        distances: (d0, d1) of triplets, or (d,) of pairs; each (n,).
        votes: (n,) judge, or same.
        subset: name of the part that each belongs to, where the data set has parts.
        groups: (n,) what is resampled together for intervals, such as the photograph; None resamples single ones.
    """

    metric: str
    data: str
    kind: str
    distances: tuple[Float[Tensor, "n"], ...]
    votes: Float[Tensor, "n"]
    subset: Sequence[str] | None = None
    groups: Int64[Tensor, "n"] | None = None

    @property
    def score(self) -> float:
        """2AFC score, or mean average precision of JND, over everything."""
        return self._score(torch.arange(len(self.votes)))

    def interval(self, resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
        """95 % bootstrap interval of the score; with fewer than about ten groups it is too narrow."""
        return self._interval(torch.arange(len(self.votes)), resamples, seed)

    def table(self, resamples: int = 1000) -> pd.DataFrame:
        """One row per subset, then "all", then, where there are subsets, their "macro average".

        Columns: metric, data, subset, n, score, low, high (95 % bootstrap interval), and for 2AFC human, the score of
        one random person, and majority, the largest possible one.
        """
        everything = torch.arange(len(self.votes))
        parts = {}
        if self.subset is not None and len(set(self.subset)) > 1:
            for name in dict.fromkeys(self.subset):
                parts[name] = torch.tensor([s == name for s in self.subset]).nonzero().flatten()
        rows = [self._row(name, chosen, resamples) for name, chosen in {**parts, "all": everything}.items()]
        table = pd.DataFrame(rows)
        if parts:
            means = table[:-1].mean(numeric_only=True).drop(["low", "high"])
            macro = {"metric": self.metric, "data": self.data, "subset": "macro average", **means, "n": len(everything)}
            table = pd.concat([table, pd.DataFrame([macro])], ignore_index=True)
        return table

    def _row(self, name: str, chosen: Tensor, resamples: int) -> dict[str, Any]:
        low, high = self._interval(chosen, resamples, 0)
        row = {"metric": self.metric, "data": self.data, "subset": name, "n": len(chosen)}
        row |= {"score": self._score(chosen), "low": low, "high": high}
        if self.kind == "2afc":
            row |= {"human": human_ceiling(self.votes[chosen]), "majority": majority_ceiling(self.votes[chosen])}
        return row

    def _score(self, chosen: Tensor) -> float:
        score: Callable[..., float] = two_afc_score if self.kind == "2afc" else jnd_map
        return score(*(d[chosen] for d in self.distances), self.votes[chosen])

    def _interval(self, chosen: Tensor, resamples: int, seed: int) -> tuple[float, float]:
        groups = None if self.groups is None else self.groups[chosen]

        def resampled(i: Tensor) -> float:
            nobody = self.kind == "jnd" and not self.votes[chosen[i]].any()  # said "same": it has no average precision
            return float("nan") if nobody else self._score(chosen[i])

        return bootstrap_interval(resampled, len(chosen), groups, resamples=resamples, seed=seed)


@torch.no_grad()
def evaluate(
    metric: str | Path | Distance | Metric,
    data: Any,
    *,
    batch_size: int = 50,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Evaluation:
    """Distances of `metric` on all of `data`, one batch at a time: only numbers are kept, never the images.

    Args:
        metric: as :func:`load` takes it.
        data: triplets (2AFC) or pairs (JND), in memory or in files.
        batch_size: triplets or pairs at a time.
        device: where to compute.
        progress: show a progress bar, on a terminal.

    Raises:
        ValueError: for empty data, a metric that returns something else than one number per pair, or NaN.
    """
    measure = metric if isinstance(metric, Metric) else load(metric, device)
    kind = "2afc" if hasattr(data, "judge") else "jnd"
    if not len(data):
        raise ValueError(f"{data.name} is empty; there is nothing to score")
    collected = []
    for batch in tqdm(
        data.batches(batch_size),
        total=-(-len(data) // batch_size),
        desc=measure.name,
        disable=None if progress else True,
    ):
        *images, _ = (part.to(device) for part in batch)
        measured = measure.triplet_distances(*images) if kind == "2afc" else (measure(*images),)
        collected.append([d.float().cpu() for d in measured])
    distances = tuple(torch.cat(parts) for parts in zip(*collected, strict=True))
    votes = data.judge if kind == "2afc" else data.same
    return Evaluation(measure.name, data.name, kind, distances, votes, data.subset, data.photo)


def write_tables(path: str | Path, table: pd.DataFrame, about: dict[str, Any]) -> None:
    """Write a table of scores and what it is about to a .json or .csv file, atomically.

    Raises:
        ValueError: for another extension.
    """
    path = Path(path)
    if path.suffix == ".json":
        content = json.dumps({**about, "rows": json.loads(table.to_json(orient="records"))}, indent=2) + "\n"
    elif path.suffix == ".csv":
        content = table.to_csv(index=False, lineterminator="\n")
    else:
        raise ValueError(f"{path} ends in neither .json nor .csv; rename it")
    write_atomically(path, content.encode())
