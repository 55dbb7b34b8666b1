"""Triplets that a metric has decided: what a certified metric learns from, and is scored on, where no person voted.

The decisions of shift-tolerant LPIPS-AlexNet on the simulated triplets come with the course
(``st_alex_distances.npz``, made by ``tools/decide_triplets.py``, provenance beside it). :func:`fresh` makes more
triplets of the training photographs, with distortions that no other triplet has.
"""

import dataclasses
import hashlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from course_lib.data import SPLITS, check_split, photos, triplets
from course_lib.data.triplets import Triplets
from course_lib.judgments import Metric, load
from course_lib.paths import cache_dir, write_atomically

TEACHER = "lpips-st-alex"
DISTANCES = Path(__file__).with_name("st_alex_distances.npz")
PROVENANCE = DISTANCES.with_suffix(".json")
FIRST_FRESH = triplets.SIZES["train"] // triplets.PART  # the parts before it are the simulated training triplets


def decisions(d0: Float[Tensor, "n"], d1: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """1 where p1 is closer, 0 where p0 is, 0.5 for a tie: what a judge of no doubts would vote."""
    return torch.where(d0 == d1, 0.5, (d0 > d1).float())


def simulated(split: str) -> Triplets:
    """The simulated triplets with the decisions of shift-tolerant LPIPS-AlexNet, as shipped, for votes.

    Raises:
        ValueError: for an unknown split.
    """
    check_split(split, (*SPLITS, "all"))
    wanted = SPLITS if split == "all" else (split,)
    with np.load(DISTANCES, allow_pickle=False) as arrays:
        d0, d1 = (torch.from_numpy(np.concatenate([arrays[f"{name}_{d}"] for name in wanted])) for d in ("d0", "d1"))
    data = triplets.simulated(split)
    return dataclasses.replace(data, name=f"{data.name} decided by {TEACHER}", judge=decisions(d0, d1))


def decided(data: Any, metric: str | Metric = TEACHER, *, device: str | torch.device = "cpu", progress: bool = False):
    """The same triplets, with a metric's decisions in the place of votes. Distances in memory are kept in the cache.

    Args:
        data: triplets, in memory or in files.
        metric: a name or file that :func:`course_lib.judgments.load` knows, or what it returns.
        device: where to compute.
        progress: show a progress bar.

    Returns:
        Data of the same kind, whose `judge` is 0, 1 or, for ties, 0.5.

    Raises:
        ValueError, FileNotFoundError: if there is no such metric, or it gives no distances.
    """
    metric = load(metric, device) if isinstance(metric, str) else metric
    path = _cache_file(data, metric)
    stored = None if path is None else _stored(path, len(data))
    if stored is None:
        parts = []
        with torch.no_grad():
            for batch in tqdm(data.batches(50), total=-(-len(data) // 50), desc=f"{metric.name} decides",
                              disable=None if progress else True):  # fmt: skip
                on_device = (images.to(device) for images in batch[:3])
                parts.append(torch.stack(metric.triplet_distances(*on_device)).float().cpu())
        stored = torch.cat(parts, 1)
        if path is not None:
            content = io.BytesIO()
            np.save(content, stored.numpy())
            write_atomically(path, content.getvalue())
    return dataclasses.replace(data, name=f"{data.name} decided by {metric.name}", judge=decisions(*stored))


def fresh(parts: Iterable[int], metric: str | Metric = TEACHER, *, progress: bool = False) -> Triplets:
    """More triplets of the training photographs, 500 for each part, with a metric's decisions for votes.

    Args:
        parts: their numbers; the same number always gives the same triplets. Part 0 is the first one that is not
            among the simulated training triplets.
        metric: that decides.
        progress: show a progress bar.

    Raises:
        ValueError: for a negative number or no parts, and as :func:`decided`.
    """
    numbers = list(parts)
    if not numbers or min(numbers) < 0:
        raise ValueError(f"parts is {numbers}; give at least one number, none of them negative")
    metric = load(metric) if isinstance(metric, str) else metric
    made = []
    for number in tqdm(numbers, desc="making triplets", disable=None if progress else True):
        ref, p0, p1, photo, how = triplets.make_part("train", FIRST_FRESH + number)
        part = Triplets(f"part {number}", ref, p0, p1, torch.zeros(len(ref)), photo, photos.PHOTOGRAPHS, how)
        made.append(decided(part, metric))
    n = len(numbers) * triplets.PART
    return joined(f"{n} fresh triplets (parts {numbers[0]} to {numbers[-1]}) decided by {metric.name}", made)


def joined(name: str, parts: Iterable[Triplets]) -> Triplets:
    """Several sets of triplets as one."""
    parts = list(parts)
    ref, p0, p1, judge, photo = (
        torch.cat([getattr(part, key) for part in parts]) for key in ("ref", "p0", "p1", "judge", "photo")
    )
    return Triplets(name, ref, p0, p1, judge, photo, parts[0].photographs)


def _cache_file(data: Any, metric: Metric) -> Path | None:
    """Where the distances are kept: changes with every pixel and every weight. None if that cannot be said."""
    if not isinstance(data, Triplets) or not isinstance(metric.distance, nn.Module):
        return None
    key = hashlib.sha256(f"{metric.name} {torch.__version__}".encode())
    for tensor in (data.ref, data.p0, data.p1, *metric.distance.state_dict().values()):
        key.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return cache_dir() / f"decided-{key.hexdigest()[:24]}.npy"


def _stored(path: Path, n: int) -> Tensor | None:
    """Distances (2, n) in a cache file, or None where it is not there or damaged."""
    try:
        stored = torch.from_numpy(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError):
        return None
    return stored if stored.shape == (2, n) and stored.isfinite().all() else None
