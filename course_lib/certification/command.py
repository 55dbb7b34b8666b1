"""``python -m course_lib certify``: from names to a table of certified accuracy."""

import sys
from pathlib import Path
from typing import Any

from course_lib import judgments
from course_lib.certification import labels as decided_labels
from course_lib.certification import shipped
from course_lib.certification.evaluation import Certified, certify
from course_lib.certification.metric import CertifiedMetric, pixel_l2
from course_lib.distillation import load_student, process_group
from course_lib.training import is_first


def open_metric(checkpoint: str | Path | None = None, kind: str | None = None) -> CertifiedMetric:
    """A certified metric by name or file.

    Args:
        checkpoint: a .safetensors file or its card; a student.pt of ``distill``; "l2" for pixel L2; None for the one
            that comes with the course.
        kind: "cosine" or "euclidean" (the default), for a student.pt, which has no card that says so.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no metric, or a kind is given that the card contradicts.
    """
    if checkpoint is None:
        return shipped.load_shipped()
    path = Path(checkpoint)
    if path.suffix == ".pt":
        return CertifiedMetric(load_student(path)[0], kind or "euclidean").eval()
    metric = pixel_l2().eval() if str(path) == "l2" else CertifiedMetric.load(path)
    if kind not in (None, metric.kind):
        raise ValueError(f"{path} is a {metric.kind} metric; leave --kind out, it is for a student.pt")
    return metric


def run(
    checkpoint: str | None,
    data: Any,
    eps: list[float],
    *,
    kind: str | None = None,
    formula: str = "exact",
    labels: str = "votes",
    attack: dict[str, Any] | None = None,
    output: Path | None = None,
    batch_size: int = 64,
    device: str = "cpu",
) -> Certified:
    """Certify, in as many processes as torchrun has started, and print the table.

    Args:
        checkpoint: as :func:`open_metric` takes it.
        data: triplets.
        eps: radii, in units of pixel values.
        kind: as :func:`open_metric` takes it.
        formula: "exact" or "published".
        labels: "votes", or a metric whose decisions are the right answers.
        attack: options of the worst-case attack; None: no attack.
        output: also write a .json or .csv file.
        batch_size: triplets at a time.
        device: where to compute.

    Raises:
        ValueError, OSError: as :func:`~course_lib.certification.certify` and :func:`open_metric`.
    """
    metric = open_metric(checkpoint, kind)
    name = metric.card.get("name") or checkpoint or shipped.SHIPPED.name
    with process_group(device):
        if is_first():
            bound = f"Lipschitz bound {metric.lipschitz:.7f}"
            print(f"{name}: {metric.kind}, {bound}; {formula} formula", file=sys.stderr)
            print(f"{data.name}: {len(data)} triplets; right answers: {labels}", file=sys.stderr)
        if labels != "votes" and not data.name.endswith(f"decided by {labels}"):
            data = decided_labels.decided(data, judgments.load(labels, device), device=device, progress=is_first())
        found = certify(
            metric, data, eps, formula=formula, attack=None if attack is None else "worst-case",
            attack_options=attack, name=name, batch_size=batch_size, device=device, progress=True,
        )  # fmt: skip
        if is_first():
            _report(found, metric, labels, output)
    return found


def _report(found: Certified, metric: CertifiedMetric, labels: str, output: Path | None) -> None:
    table = found.table()
    constant = ["metric", "data", "formula"]
    print(table.drop(columns=constant).to_string(index=False, float_format="{:.4g}".format))
    short = (found.norm < 1).double().mean().item()
    print(f"\nmedian |f(ref)| {found.norm.median():.3g}; below 1: {100 * short:.1f} % of the references")
    if found.formula == "published" and short:
        print("the published formula is no certificate for these; the exact one is", file=sys.stderr)
    if output:
        about: dict[str, Any] = {"metric": found.metric, "data": found.data, "formula": found.formula, "labels": labels}
        about |= {"median_norm": found.norm.median().item(), "below_1": short, "lipschitz": metric.lipschitz}
        if found.attacked is not None:
            about["attack"] = found.attacked.attack
        judgments.write_tables(output, table, {**about, "card": metric.card})
