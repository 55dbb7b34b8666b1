"""How many decisions are right, and certified: accuracy at any radius, beside the strongest attack at the same radii.

Accuracy under attack lies between the two. What a certificate says cannot be attacked and an attack overturns all the
same is a bug, in the proof or in the code, and is reported as one.
"""

import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, distributed
from tqdm import tqdm

from course_lib.attacks import RobustAccuracy, attack_2afc
from course_lib.certification.metric import Assessment, CertifiedMetric
from course_lib.certification.radii import check_eps
from course_lib.judgments import Metric, bootstrap_interval
from course_lib.training import is_first, rank_and_world

EPS = (36 / 255, 72 / 255, 108 / 255)


class SoundnessError(ValueError):
    """An attack did what was certified to be impossible; `examples` are the numbers of the triplets."""

    def __init__(self, message: str, examples: list[int]):
        super().__init__(message)
        self.examples = examples


@dataclass
class Certified:
    """A metric's decisions on triplets, how far each is certified, and which of them are right.

    Attributes:
        metric, data, formula: what was certified, and by which formula.
        eps: radii of the table, ascending, without 0.
        decision: (n,) 0 for p0, 1 for p1, -1 for a tie.
        radius: (n,) signed, as :meth:`CertifiedMetric.radius` gives it.
        norm: (n,) length of the reference's embedding.
        labels: (n,) fraction of votes for p1; the right answer is that of the majority, and 0.5 has none.
        groups: (n,) what is resampled together for intervals, such as the photograph; None resamples single triplets.
        attacked: what an attack at the same radii left, if there was one.
    """

    metric: str
    data: str
    formula: str
    eps: tuple[float, ...]
    decision: Int64[Tensor, "n"]
    radius: Float[Tensor, "n"]
    norm: Float[Tensor, "n"]
    labels: Float[Tensor, "n"]
    groups: Int64[Tensor, "n"] | None = None
    attacked: RobustAccuracy | None = None

    @property
    def decided(self) -> Bool[Tensor, "n"]:
        """Where there is a right answer."""
        return self.labels != 0.5

    def natural(self) -> Bool[Tensor, "n"]:
        """Where the decision is right, without any attack. A tie is not."""
        return self.decided & (self.decision == (self.labels > 0.5).long())

    def certified(self, eps: float | int) -> Bool[Tensor, "n"]:
        """Where the decision is right and no change of the reference up to `eps` can make it another.

        Raises:
            ValueError: for an eps that is negative or not a number.
        """
        check_eps(eps)
        return self.natural() & (self.radius.double().abs() > eps)

    def accuracy(self, eps: float | int | None = None) -> float:
        """Share of the triplets with a right answer that are certified at `eps`; None: that are right."""
        right = self.natural() if eps is None else self.certified(eps)
        return right[self.decided].double().mean().item()

    def score(self, eps: float | int = 0) -> float:
        """2AFC score that is left at least: votes agreed with where certified, those of the minority elsewhere.

        It counts all triplets, and all their votes; at eps 0 it is the 2AFC score of the decisions.
        """
        for_p1 = self.labels.double()
        minority = torch.minimum(for_p1, 1 - for_p1)
        agreed = torch.where(self.decision == 0, 1 - for_p1, torch.where(self.decision == 1, for_p1, 0.5))
        stands = self.radius.double().abs() > eps if eps else torch.ones_like(self.decided)
        return torch.where(stands, agreed, minority).mean().item()

    def table(self, resamples: int = 1000) -> pd.DataFrame:
        """One row for the images as they are (eps 0) and one for each eps.

        Columns: metric, data, formula, eps; n, and undecided: how many of them have no right answer and are left out;
        certified: share of the others whose decision is right and certified (at eps 0: right), with its 95 % bootstrap
        interval (low, high); attacked: share that an attack left right, if there was one; score: of all votes, what is
        certain to be left of the 2AFC score.
        """
        about = {"metric": self.metric, "data": self.data, "formula": self.formula}
        chosen = self.decided.nonzero()[:, 0]
        groups = None if self.groups is None else self.groups[chosen]
        rows = []
        for number, eps in enumerate((0.0, *self.eps)):
            values = (self.certified(eps) if eps else self.natural())[chosen].double()
            share = functools.partial(_mean, values)
            low, high = bootstrap_interval(share, len(chosen), groups, resamples=resamples)
            row = {**about, "eps": eps, "n": len(self.labels), "undecided": len(self.labels) - len(chosen)}
            row |= {"certified": values.mean().item(), "low": low, "high": high}
            if self.attacked is not None:
                row["attacked"] = self.attacked.standing()[number][chosen].double().mean().item()
            rows.append({**row, "score": self.score(eps)})
        return pd.DataFrame(rows)

    def curve(self, eps: Sequence[float | int] | None = None) -> pd.DataFrame:
        """Certified accuracy against eps, columns eps and certified; by default 201 eps up to the largest radius."""
        if eps is None:
            eps = torch.linspace(0, self.radius.abs().max().item(), 201, dtype=torch.float64).tolist()
        return pd.DataFrame({"eps": list(eps), "certified": [self.accuracy(one) for one in eps]})


def certify(
    metric: CertifiedMetric,
    data: Any,
    eps: Sequence[float | int] = EPS,
    *,
    labels: Float[Tensor, "n"] | None = None,
    formula: str = "exact",
    attack: str | None = None,
    attack_options: Mapping[str, Any] | None = None,
    name: str = "certified",
    batch_size: int = 64,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Certified:
    """Decisions and radii of a metric on triplets, one batch at a time: only numbers are kept, never the images.

    In several processes (:func:`course_lib.distillation.process_group`) each calls this alike and takes its share, so
    that every triplet is looked at once; all of them return the whole.

    Args:
        metric: to be certified; moved to `device`.
        data: 2AFC judgments, in memory or in files.
        eps: L2 radii, in units of pixel values, positive.
        labels: (n,) right answers, 0 or 1, or fractions of votes for p1; None takes the votes of the data.
        formula: "exact", or "published", which is not sound where embeddings are shorter than 1.
        attack: attack the same decisions at the same radii, as :func:`course_lib.attacks.attack_2afc` does, for example
            "worst-case"; then check that certified <= attacked <= natural holds for every triplet.
        attack_options: of the attack, such as {"steps": 20, "batch_size": 16, "folder": ...}.
        name: of the metric, for tables.
        batch_size: triplets at a time.
        device: where to compute.
        progress: show a progress bar, on a terminal.

    Raises:
        ValueError: for empty data, data without any majority, labels or radii that make no sense, another formula.
        SoundnessError: if an attack overturned a decision that was certified against it.
    """
    radii = tuple(sorted({float(one) for one in eps}))
    for one in radii:
        check_eps(one)
    if not radii or radii[0] == 0:
        raise ValueError("give eps above 0, such as 36/255; accuracy without an attack is in the result anyway")
    judged = _labelled(data, labels)
    rank, world = rank_and_world()
    mine = torch.arange(rank, len(data), world)
    share = judged if world == 1 else judged.select(mine)
    metric.to(device)
    parts = [Assessment(torch.zeros(0, dtype=torch.int64), torch.zeros(0), torch.zeros(0))]
    bar = tqdm(
        share.batches(batch_size) if len(mine) else (),
        total=-(-len(mine) // batch_size),
        desc=f"{name} certified",
        disable=None if progress and is_first() else True,
    )
    for batch in bar:
        found = metric.assess(*(image.to(device) for image in batch[:3]), formula=formula)
        parts.append(Assessment(*(column.cpu() for column in found)))
    decision, radius, norm = (_together(torch.cat(column), len(data)) for column in zip(*parts, strict=True))
    result = Certified(name, data.name, formula, radii, decision, radius, norm, judged.judge, data.photo)
    if attack is not None:
        result.attacked = _attacked(metric, share, result, attack, dict(attack_options or {}), device, progress)
        check_against_attack(result, result.attacked)
    return result


def check_against_attack(certified: Certified, attacked: RobustAccuracy) -> None:
    """Check that certified <= attacked <= natural for every triplet and every radius of the attack.

    Raises:
        ValueError: if the two are not about the same triplets, or the attack is not about L2 changes of the reference.
        SoundnessError: naming the first triplet where it does not hold.
    """
    if len(attacked.votes) != len(certified.labels) or not torch.equal(attacked.votes, certified.labels):
        raise ValueError(f"the attack is about other triplets or labels than {certified.data}; attack the same ones")
    if (attacked.norm, attacked.perturb) != ("l2", "ref"):
        found = f"{attacked.norm} changes of {attacked.perturb}"
        raise ValueError(f"the certificate is about l2 changes of ref, the attack made {found}; attack those")
    standing = attacked.standing() == 1
    natural = certified.natural()
    # where even rounding might decide, the radius is 0, and the two may have rounded differently
    known = certified.decided & (certified.radius != 0)
    for number, eps in enumerate((0.0, *attacked.eps)):
        promised = certified.certified(eps) if eps else natural & known
        _refuse(
            (promised & ~standing[number]).nonzero()[:, 0].tolist(),
            certified,
            lambda i, row=number, eps=eps: (
                f"is certified at eps {eps:.4g}, radius {certified.radius[i].abs():.4g} by the {certified.formula} "
                f"formula, but {attacked.attack} overturned it with a change of {attacked.sizes[row, i]:.4g}"
            ),
        )
        _refuse(
            (standing[number] & known & ~natural).nonzero()[:, 0].tolist(),
            certified,
            lambda i, eps=eps: (
                f"is decided wrongly, radius {certified.radius[i].abs():.4g}, but right at eps {eps:.4g}"
            ),
        )


def _refuse(examples: list[int], certified: Certified, why: Any) -> None:
    if examples:
        more = f"; {len(examples)} such triplets" if len(examples) > 1 else ""
        raise SoundnessError(f"triplet {examples[0]} of {certified.data} {why(examples[0])}{more}", examples)


def _labelled(data: Any, labels: Tensor | None) -> Any:
    """The data with these labels for votes; never the images copied."""
    if not len(data):
        raise ValueError(f"{data.name} is empty; there is nothing to certify")
    judged = copy.copy(data)
    if labels is not None:
        if labels.shape != (len(data),) or not ((labels >= 0) & (labels <= 1)).all():
            raise ValueError(f"labels have shape {tuple(labels.shape)}; give 0 (p0), 1 (p1) or a share for {len(data)}")
        judged.judge = labels.float()
    if (judged.judge == 0.5).all():
        raise ValueError(f"{data.name}: all votes are one half; without a majority no decision is right")
    return judged


def _attacked(
    metric: CertifiedMetric, share: Any, result: Certified, attack: str, options: dict[str, Any],
    device: str | torch.device, progress: bool,
) -> RobustAccuracy:  # fmt: skip
    """What the attack leaves of all triplets; every process attacks its share."""
    n, rows = len(result.labels), len(result.eps) + 1
    rank, world = rank_and_world()
    if world > 1 and options.get("folder"):
        options["folder"] = Path(options["folder"]) / f"{rank}-of-{world}"
    d0 = d1 = torch.full((rows, len(share)), torch.inf)
    size, about = d0.double(), None
    training = metric.network.training
    if len(share) and (share.judge != 0.5).any():
        metric.network.eval()
        options |= {"eps": result.eps, "attack": attack, "device": device, "progress": progress and is_first()}
        mine = attack_2afc(Metric(result.metric, metric), share, **options)
        (d0, d1), size, about = mine.distances, mine.sizes, (mine.attack, mine.norm, mine.perturb)
        metric.network.train(training)
    d0, d1, size = (_together(part.T.contiguous(), n).T for part in (d0, d1, size))
    name, norm, perturb = next(one for one in _of_all(about) if one is not None)
    distances = (d0, d1)
    return RobustAccuracy(
        result.metric, result.data, name, norm, perturb, result.eps, distances, size, result.labels, result.groups
    )


def _mean(values: Tensor, chosen: Tensor) -> float:
    return values[chosen].mean().item()


def _of_all(mine: Any) -> list[Any]:
    """What every process has, by rank."""
    world = rank_and_world()[1]
    if world == 1:
        return [mine]
    parts: list[Any] = [None] * world
    distributed.all_gather_object(parts, mine)
    return parts


def _together(mine: Tensor, n: int) -> Tensor:
    """Rows of all processes, of which each has every so many-th, in the order of the data."""
    parts = _of_all(mine)
    whole = mine.new_empty((n, *mine.shape[1:]))
    for rank, part in enumerate(parts):
        whole[rank :: len(parts)] = part
    return whole
