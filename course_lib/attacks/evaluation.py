"""Any metric under any attack: how much of its 2AFC score is left, and how far d(x, x + change) can be pushed.

An attack bounds robust accuracy from *above*: the decisions that stand did so against this attack and this many
steps, and a stronger one may still overturn them. Only a proof
bounds it from below: the formula of chapter 09 for pixel L2, a certificate (chapter 12) for others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from course_lib.attacks.balls import Ball, sizes
from course_lib.attacks.names import NamedAttack, named
from course_lib.attacks.objectives import PERTURBED, flip, push
from course_lib.attacks.resuming import Arrays, Store
from course_lib.attacks.search import Attacked
from course_lib.judgments import Metric, bootstrap_interval, load, two_afc_agreement
from course_lib.judgments.evaluation import Distance

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
SLACK = 1e-5  # of the distances: go this far beyond a tie, so that rounding does not turn a decision back


@dataclass
class RobustAccuracy:
    """What is left of a metric's 2AFC decisions under attack.

    Row 0 of the arrays is the metric on the images as they are, row i is `eps[i - 1]`.

    Attributes:
        metric, data, attack, norm, perturb: what was attacked, and how.
        eps: radii, ascending.
        distances: (d0, d1), each (rows, n): of the attacked images where the metric was fooled, else of the originals.
        sizes: (rows, n) size of the change that fooled the metric, in `norm`; 0 where it is wrong without one,
            infinite where its decision stands or there is no majority.
        votes: (n,) fraction of votes for p1.
        groups: (n,) what is resampled together for intervals, such as the photograph; None resamples single triplets.
    """

    metric: str
    data: str
    attack: str
    norm: str
    perturb: str
    eps: tuple[float, ...]
    distances: tuple[Float32[Tensor, "rows n"], Float32[Tensor, "rows n"]]
    sizes: Float64[Tensor, "rows n"]
    votes: Float[Tensor, "n"]
    groups: Int64[Tensor, "n"] | None = None

    def standing(self) -> Float32[Tensor, "rows n"]:
        """1 where the metric agrees with the majority, 0 where it does not or has a tie, NaN without a majority."""
        d0, d1 = self.distances
        right = torch.where(self.votes > 0.5, d1 < d0, d0 < d1).float()
        return torch.where(self.votes == 0.5, torch.nan, right)

    def agreement(self) -> Float32[Tensor, "rows n"]:
        """Share of the votes of each triplet that the metric agrees with; its mean is the 2AFC score."""
        rows = [two_afc_agreement(d0, d1, self.votes.float()) for d0, d1 in zip(*self.distances, strict=True)]
        return torch.stack(rows)

    def table(self, resamples: int = 1000) -> pd.DataFrame:
        """One row for the images as they are (eps 0) and one per eps.

        Columns: metric, data, attack, norm, perturb, eps; n, and undecided: how many of them have votes of exactly
        one half, which no attack can make better or worse, and which robust accuracy leaves out; robust_accuracy, the
        share of the others where the metric agrees with the majority, and score, the 2AFC score of all n, each with
        its 95 % bootstrap interval (_low, _high); median_size of the changes that fooled it (NaN for none).
        """
        about = {key: getattr(self, key) for key in ("metric", "data", "attack", "norm", "perturb")}
        decided = (self.votes != 0.5).nonzero()[:, 0]
        rows = []
        for row, eps in enumerate((0.0, *self.eps)):
            fooled = self.sizes[row][self.sizes[row].isfinite() & (self.sizes[row] > 0)]
            rows.append(
                {**about, "eps": eps, "n": len(self.votes), "undecided": len(self.votes) - len(decided)}
                | self._mean("robust_accuracy", self.standing()[row], decided, resamples)
                | self._mean("score", self.agreement()[row], torch.arange(len(self.votes)), resamples)
                | {"median_size": fooled.quantile(0.5).item() if len(fooled) else float("nan")}
            )
        return pd.DataFrame(rows)

    def _mean(self, name: str, values: Tensor, chosen: Tensor, resamples: int) -> dict[str, float]:
        values = values[chosen].double()
        groups = None if self.groups is None else self.groups[chosen]
        low, high = bootstrap_interval(lambda i: values[i].mean().item(), len(chosen), groups, resamples=resamples)
        return {name: values.mean().item(), f"{name}_low": low, f"{name}_high": high}


@dataclass
class PushedDistances:
    """How far a metric says that hardly changed images are from the originals.

    Attributes:
        metric, data, attack, norm: what was attacked, and how.
        eps: radii, ascending.
        distances: (radii, n) the largest d(x, x + change) found inside each ball.
    """

    metric: str
    data: str
    attack: str
    norm: str
    eps: tuple[float, ...]
    distances: Float32[Tensor, "radii n"]

    def table(self) -> pd.DataFrame:
        """One row per eps: n, mean, quantiles (q05 to q95) and largest distance."""
        about = {key: getattr(self, key) for key in ("metric", "data", "attack", "norm")}
        rows = []
        for eps, values in zip(self.eps, self.distances.double(), strict=True):
            quantiles = {f"q{round(100 * q):02}": values.quantile(q).item() for q in QUANTILES}
            spread = {"mean": values.mean().item(), **quantiles, "largest": values.max().item()}
            rows.append({**about, "eps": eps, "n": len(values), **spread})
        return pd.DataFrame(rows)


def attack_2afc(
    metric: str | Path | Distance | Metric,
    triplets: Any,
    *,
    eps: Sequence[float | int],
    attack: str = "worst-case",
    norm: str | None = None,
    perturb: str = "ref",
    batch_size: int = 16,
    device: str | torch.device = "cpu",
    seed: int = 0,
    progress: bool = False,
    folder: str | Path | None = None,
    **options: Any,
) -> RobustAccuracy:
    """Attack a metric's 2AFC decisions inside balls of growing radius, and judge the attacked images anew.

    The result bounds robust accuracy from *above*: a stronger attack can only lower it. A triplet that was fooled at
    one radius stays fooled at the larger ones, so the curve falls. Only decisions that agree with the majority are
    attacked; triplets whose votes are exactly one half have none. Whether an image fools the metric is decided by
    calling the metric on it, not by the attack, and it counts only inside the ball.

    Args:
        metric: as :func:`course_lib.judgments.load` takes it.
        triplets: 2AFC judgments, in memory or in files.
        eps: radii, in units of pixel values.
        attack: as :func:`course_lib.attacks.names.named` takes it: "worst-case", "pgd", "AA-L2", ...
        norm: "l2" or "linf"; None takes that of the name, else "l2".
        perturb: "ref", "p0", "p1" or "all" three, each in a ball of its own.
        batch_size: triplets at a time; random numbers are drawn per batch, so it has a small influence.
        device: where to compute.
        seed: of the random numbers.
        progress: show a progress bar, on a terminal.
        folder: keep finished batches there; the same call goes on with what is missing.
        **options: of the attack, such as steps, restarts, queries.

    Raises:
        ValueError: for empty data, data without any majority, unknown names, options that the attack does not take, or
            a folder that holds the results of another call.
    """
    measure = metric if isinstance(metric, Metric) else load(metric, device)
    chosen, radii = _checked(attack, norm, eps, options)
    if perturb not in PERTURBED:
        raise ValueError(f"unknown perturb={perturb!r}; choose {', '.join(PERTURBED)}")
    if not len(triplets):
        raise ValueError(f"{triplets.name} is empty; there is nothing to attack")
    if (triplets.judge == 0.5).all():
        raise ValueError(f"{triplets.name}: all votes are one half; without a majority there is nothing to attack")

    def work(batch: Any, generator: torch.Generator) -> Arrays:
        return _fool(measure, [part.to(device) for part in batch], chosen, radii, perturb, generator, options)

    def probe(batch: Any) -> Tensor:
        return torch.stack(_judged(measure, *(part.to(device) for part in batch[:3])))

    asked = {"mode": "2afc", "metric": measure.name, "data": triplets.name, "n": len(triplets), "perturb": perturb}
    asked |= {"attack": chosen.name, "norm": chosen.norm, "eps": list(radii), **options}
    asked |= {"batch_size": batch_size, "seed": seed}
    parts = Store(folder, asked, probe).run(
        triplets.batches(batch_size), len(triplets), batch_size, seed, work, progress
    )
    d0, d1, size = (torch.from_numpy(np.concatenate([part[key] for part in parts], 1)) for key in ("d0", "d1", "size"))
    return RobustAccuracy(
        measure.name, triplets.name, chosen.name, chosen.norm, perturb, radii, (d0, d1), size, triplets.judge,
        triplets.photo,
    )  # fmt: skip


def attack_distance(
    metric: str | Path | Distance | Metric,
    images: Any,
    *,
    eps: Sequence[float | int],
    attack: str = "apgd-margin",
    norm: str | None = None,
    batch_size: int = 16,
    device: str | torch.device = "cpu",
    seed: int = 0,
    progress: bool = False,
    folder: str | Path | None = None,
    **options: Any,
) -> PushedDistances:
    """Change images a little so that the metric calls them as different from the originals as possible.

    The distances are bounds from *below* of the largest that there are inside each ball. What was found inside a
    smaller ball counts for the larger ones as well. The metric itself measures the final images.

    Args:
        metric: as :func:`course_lib.judgments.load` takes it.
        images: (n, 3, h, w), uint8 or floats in [0, 1]; or triplets, whose references are taken.
        eps: radii, in units of pixel values.
        attack: "pgd", "momentum", "apgd-margin", "apgd-ce", "square" or "worst-case".
        norm: this and everything below as :func:`attack_2afc` takes it.
        batch_size: images at a time.
        device: where to compute.
        seed: of the random numbers.
        progress: show a progress bar, on a terminal.
        folder: keep finished batches there.
        **options: of the attack.

    Raises:
        ValueError: as :func:`attack_2afc`; also for attacks that stop at a success, or begin at the image itself,
            where the distance has its minimum and no gradient.
    """
    measure = metric if isinstance(metric, Metric) else load(metric, device)
    chosen, radii = _checked(attack, norm, eps, options)
    if chosen.nearest or chosen.name == "fgm":
        why = "looks for the smallest change that succeeds" if chosen.nearest else "begins where there is no gradient"
        raise ValueError(f"the attack {chosen.name} {why}, so it cannot push a distance; take apgd-margin or pgd")
    if not len(images):
        raise ValueError("there are no images to attack")
    name = "images" if isinstance(images, Tensor) else images.name

    def pixels(batch: Any) -> Tensor:
        batch = batch if isinstance(batch, Tensor) else batch.ref
        return (batch.float() / 255 if batch.dtype == torch.uint8 else batch).to(device)

    def work(batch: Any, generator: torch.Generator) -> Arrays:
        return _push(measure, pixels(batch), chosen, radii, generator, options)

    @torch.no_grad()
    def probe(batch: Any) -> Tensor:
        return measure(pixels(batch), 1 - pixels(batch))

    asked = {"mode": "distance", "metric": measure.name, "data": name, "n": len(images)}
    asked |= {"attack": chosen.name, "norm": chosen.norm, "eps": list(radii), **options}
    asked |= {"batch_size": batch_size, "seed": seed}
    batches = images.split(batch_size) if isinstance(images, Tensor) else images.batches(batch_size)
    parts = Store(folder, asked, probe).run(batches, len(images), batch_size, seed, work, progress)
    distances = torch.from_numpy(np.concatenate([part["d"] for part in parts], 1))
    return PushedDistances(measure.name, name, chosen.name, chosen.norm, radii, distances)


def _checked(
    attack: str, norm: str | None, eps: Sequence[float | int], options: dict[str, Any]
) -> tuple[NamedAttack, tuple[float, ...]]:
    """The attack, and its radii in ascending order."""
    chosen = named(attack, norm)
    chosen.check_options(options)
    radii = tuple(sorted({Ball(chosen.norm, float(radius)).eps for radius in eps}))
    if not radii:
        raise ValueError("give at least one eps, such as 0.5 for l2 or 8 / 255 for linf")
    return chosen, radii


@torch.no_grad()
def _judged(measure: Metric, ref: Tensor, p0: Tensor, p1: Tensor) -> tuple[Tensor, Tensor]:
    return measure(ref, p0).float(), measure(ref, p1).float()


def _fool(
    measure: Metric, batch: list[Tensor], attack: NamedAttack, eps: tuple[float, ...], perturb: str,
    generator: torch.Generator, options: dict[str, Any],
) -> Arrays:  # fmt: skip
    """Attack one batch at all radii: d0, d1 and size of :class:`RobustAccuracy`."""
    *images, judge = batch
    natural = torch.stack(_judged(measure, *images))
    sign = torch.where(judge > 0.5, -1, 1)
    wrong = (sign * (natural[0] - natural[1]) > 0) & (judge != 0.5)
    size = torch.where(wrong, 0.0, torch.inf).double()
    fooled = natural.clone()
    attacked = (~wrong & (judge != 0.5)).nonzero()[:, 0]
    rows = [(natural, size)]

    def take(which: Tensor, changed: Tensor, found: Tensor) -> None:
        """Accept changed images that fool the metric itself and are nearer than those accepted so far."""
        parts = [part[which] for part in images]
        if perturb == "all":
            parts = list(changed.unbind(1))
        else:
            parts[PERTURBED.index(perturb)] = changed
        judged = torch.stack(_judged(measure, *parts))
        better = (sign[which] * (judged[0] - judged[1]) > 0) & (found < size[which])
        size[which[better]] = found[better]
        fooled[:, which[better]] = judged[:, better]

    if len(attacked):
        objective = flip(measure, *(part[attacked] for part in images), label=(judge > 0.5).long()[attacked],
                         perturb=perturb)  # fmt: skip
        reach = natural.abs().nan_to_num(posinf=0).sum(0)
        objective = replace(objective, threshold=SLACK * reach[attacked].to(objective.threshold))
    for number, radius in enumerate(eps):
        size = size.clone()
        left = (size[attacked] > radius).nonzero()[:, 0]
        if len(left) and not (attack.nearest and number):  # one search for the smallest change does for all radii
            task = objective.select(left)
            found = attack.run(task, radius, generator, **options)
            for changed in _candidates(found):
                take(attacked[left], changed, sizes(changed.double() - task.start.double(), attack.norm))
        rows.append((torch.where(size <= radius, fooled, natural), torch.where(size <= radius, size, torch.inf)))
    distances = torch.stack([row[0] for row in rows]).cpu().numpy()
    return {"d0": distances[:, 0], "d1": distances[:, 1], "size": torch.stack([row[1] for row in rows]).cpu().numpy()}


def _candidates(found: Attacked) -> list[Tensor]:
    """The images of an attack; those of the ensemble also after they were moved as near as they go."""
    nearest = getattr(found, "nearest", None)
    return [found.images] if nearest is None else [found.images, nearest]


def _push(
    measure: Metric, images: Tensor, attack: NamedAttack, eps: tuple[float, ...], generator: torch.Generator,
    options: dict[str, Any],
) -> Arrays:  # fmt: skip
    """Largest distances found for one batch, one row per radius."""
    objective = push(measure, images)
    largest, rows = torch.zeros(len(images), device=images.device), []
    for radius in eps:
        found = attack.run(objective, radius, generator, **options)
        inside = sizes(found.images.double() - objective.start.double(), attack.norm) <= radius
        with torch.no_grad():
            distance = measure(images, found.images).float()
        largest = torch.maximum(largest, torch.where(inside, distance, 0))
        rows.append(largest)
    return {"d": torch.stack(rows).cpu().numpy()}
