"""The one training loop of the course: progress bar, metrics log, atomic checkpoints, exact resume.

A chapter brings the model, the loss of a batch and the order of the data; :func:`train` does the rest, the same way
everywhere. A run that was killed at any moment and is started again ends with the same weights, on the CPU bit for
bit, because everything that a step depends on is in the checkpoint: weights, optimiser, schedule, random state, and
the position in an epoch whose order follows from the seed alone.

In several processes (torch.distributed) each calls :func:`train` alike. They have to agree on every loss, which the
caller sees to; only the process of rank 0 validates, shows progress and writes.
"""

import io
import itertools
import json
import math
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from course_lib.paths import write_atomically

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}


class TrainingError(ValueError):
    """Training cannot go on: the loss is not a number, or the folder belongs to another run."""


def train(
    model: nn.Module,
    loss: Callable[[Any], Tensor],
    batches: Callable[[torch.Generator], Iterable[Any]],
    optimizer: Optimizer,
    *,
    epochs: int,
    schedule: LRScheduler | None = None,
    load: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
    clip: float | None = None,
    after_step: Callable[[], object] | None = None,
    validate: Callable[[], dict[str, Any]] | None = None,
    best: str | None = None,
    patience: int | None = None,
    folder: str | Path | None = None,
    settings: dict[str, Any] | None = None,
    checkpoint_steps: int = 500,
    seed: int = 0,
    device: str | torch.device = "cpu",
    precision: str = "fp32",
    progress: str | None = None,
) -> list[dict[str, Any]]:
    """Train `model` in place; return one record of metrics per epoch.

    Args:
        model: holds everything that is trained; put into training mode, and back as it was at the end.
        loss: mean loss of a batch, a scalar; it closes over the model.
        batches: yields one epoch of batches, in an order that depends on the generator it is given and on nothing else.
        optimizer: over the model's parameters.
        epochs: how many.
        schedule: stepped after every step, not every epoch.
        load: makes what `loss` takes out of what `batches` yields, for example by reading images in worker processes.
            When a run is continued inside an epoch, only what is left of it goes through here.
        clip: a gradient whose norm, over all parameters, is larger is shortened to it.
        after_step: called after every step, for example to keep weights non-negative.
        validate: called after every epoch in evaluation mode without gradients; its metrics join the record.
        best: the metric, larger is better, whose best epoch is kept in ``best.pt``.
        patience: stop when `best` has not improved for so many epochs.
        folder: receives ``last.pt``, ``best.pt`` and ``metrics.jsonl``. A run that is there is continued.
        settings: what else decides the result (learning rate, data, ...). Stored in every checkpoint; a folder whose
            run had other settings is refused instead of mixed.
        checkpoint_steps: ``last.pt`` is written after so many steps, and after every epoch.
        seed: of the order of the data and of the global random state (dropout).
        device: where model and batches go.
        precision: "fp32", or "bf16" for a loss computed under autocast; weights stay fp32.
        progress: what to write before the progress bar, which is shown on a terminal; None shows none.

    Raises:
        TrainingError: if the loss is NaN or infinite, or `folder` holds a run with other settings or is damaged, or is
            not the same folder for all processes.
        ValueError: for an unknown precision or a `best` that `validate` does not return.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; choose {' or '.join(PRECISIONS)}")
    if (best or patience) and not (best and validate):
        raise ValueError("best and patience need validate=, and best= names one of its metrics")
    settings = {**(settings or {}), "epochs": epochs, "seed": seed, "precision": precision}
    model.to(device)
    kind, low = torch.device(device).type, PRECISIONS[precision]
    parts = {"model": model, "optimizer": optimizer, **({"schedule": schedule} if schedule else {})}
    run = _Run(parts, Path(folder) if folder else None, settings)
    was_training = model.training
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers are not ours to move
        torch.manual_seed(seed)
        run.resume()
        hidden = True if progress is None or not is_first() else None  # None: shown on a terminal
        bar = tqdm(total=epochs, initial=run.epoch, desc=progress, unit="epoch", disable=hidden)
        while run.epoch < epochs and not run.stopped:
            model.train()
            order = torch.Generator().manual_seed(seed * 1_000_003 + run.epoch)
            left = itertools.islice(batches(order), run.step_in_epoch, None)
            for batch in load(left) if load else left:
                with torch.autocast(kind, low, enabled=low is not None):
                    value = loss(to_device(batch, device))
                if not math.isfinite(value.item()):
                    raise TrainingError(
                        f"the loss is {value.item()} at epoch {run.epoch + 1}, step {run.step_in_epoch + 1}; lower the "
                        f"learning rate or look at that batch{run.kept()}"
                    )
                optimizer.zero_grad(set_to_none=True)
                value.backward()
                if clip is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                if schedule:
                    schedule.step()
                if after_step:
                    after_step()
                run.step_in_epoch += 1
                run.loss_sum += value.item()
                if run.step_in_epoch % checkpoint_steps == 0:
                    run.save("last.pt")
            if run.step_in_epoch == 0:
                raise TrainingError("there is no batch to train on; the data is empty")
            record = {"epoch": run.epoch + 1, "loss": run.loss_sum / run.step_in_epoch}
            record["learning_rate"] = optimizer.param_groups[0]["lr"]
            if validate:
                model.eval()
                with torch.no_grad():
                    record |= from_first(validate)
            improved = run.end_epoch(record, best, patience)
            if improved:
                run.save("best.pt")
            run.save("last.pt")
            bar.set_postfix({key: f"{value:.3g}" for key, value in record.items() if key != "epoch"})
            bar.update()
        bar.close()
    model.train(was_training)
    return run.history


class _Run:
    """Where a run stands, and its files."""

    def __init__(self, parts: dict[str, Any], folder: Path | None, settings: dict[str, Any]):
        self.parts, self.folder, self.settings = parts, folder, settings
        self.epoch = self.step_in_epoch = self.epochs_without_gain = 0
        self.loss_sum, self.best_value, self.stopped = 0.0, -math.inf, False
        self.history: list[dict[str, Any]] = []

    POSITION = ("epoch", "step_in_epoch", "epochs_without_gain", "loss_sum", "best_value", "stopped", "history")

    def end_epoch(self, record: dict[str, Any], best: str | None, patience: int | None) -> bool:
        self.epoch, self.step_in_epoch, self.loss_sum = self.epoch + 1, 0, 0.0
        self.history.append(record)
        if best is None:
            return False
        if best not in record:
            raise ValueError(f"best={best!r} is not a metric; validate returns {', '.join(record)}")
        improved = record[best] > self.best_value
        self.best_value = max(self.best_value, record[best])
        self.epochs_without_gain = 0 if improved else self.epochs_without_gain + 1
        self.stopped = patience is not None and self.epochs_without_gain >= patience
        return improved

    def save(self, name: str) -> None:
        if self.folder is None or not is_first():
            return
        state = {key: part.state_dict() for key, part in self.parts.items()}
        position = {key: getattr(self, key) for key in self.POSITION}
        content = io.BytesIO()
        torch.save({**state, **position, "random": torch.get_rng_state(), "settings": self.settings}, content)
        write_atomically(self.folder / name, content.getvalue())
        lines = "".join(json.dumps(record) + "\n" for record in self.history)
        write_atomically(self.folder / "metrics.jsonl", lines.encode())

    def resume(self) -> None:
        self._load()
        here = (self.epoch, self.step_in_epoch)
        if here != from_first(lambda: here):
            raise TrainingError(f"another process sees another checkpoint in {self.folder}; use a disk that all share")

    def _load(self) -> None:
        if self.folder is None or not (self.folder / "last.pt").exists():
            return
        stored = load_checkpoint(self.folder / "last.pt")
        theirs = stored["settings"]
        different = [key for key in {**theirs, **self.settings} if theirs.get(key) != self.settings.get(key)]
        if different:
            changes = ", ".join(f"{key}: {theirs.get(key)} there, {self.settings.get(key)} now" for key in different)
            raise TrainingError(f"{self.folder} holds a run with other settings ({changes}); name another folder")
        for key, part in self.parts.items():
            part.load_state_dict(stored[key])
        for key in self.POSITION:
            setattr(self, key, stored[key])
        torch.set_rng_state(stored["random"])

    def kept(self) -> str:
        return f"; the last good state is in {self.folder / 'last.pt'}" if self.folder and self.epoch else ""


def rank_and_world() -> tuple[int, int]:
    """Number of this process, and how many there are; (0, 1) where there is no process group."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def is_first() -> bool:
    """Whether this is the process that writes: that of rank 0."""
    return rank_and_world()[0] == 0


def from_first(compute: Callable[[], Any]) -> Any:
    """What `compute` returns in the process of rank 0, in every process. The others wait and do not compute."""
    if rank_and_world()[1] == 1:
        return compute()
    box = [compute() if is_first() else None]
    distributed.broadcast_object_list(box)
    return box[0]


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Content of a checkpoint, tensors on the CPU, without running code that it might hold.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or not a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}; train one first, or correct the path")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError):
        raise ValueError(f"{path} is damaged or not a checkpoint; delete it or name another one") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a checkpoint of this course: it holds a {type(content).__name__}")
    return content


def to_device(batch: Any, device: str | torch.device) -> Any:
    """Move a tensor, or the tensors of a tuple (named or not), to `device`."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, tuple):
        moved = [to_device(part, device) for part in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else tuple(moved)
    return batch
