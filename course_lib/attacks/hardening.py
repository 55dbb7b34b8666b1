"""Adversarial training of LPIPS: the empirical rival of a certificate. It resists the attacks that it has seen."""

import copy
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from course_lib.attacks.balls import Ball
from course_lib.attacks.gradient import pgd
from course_lib.attacks.objectives import flip
from course_lib.data.triplets import Triplet
from course_lib.judgments import Metric
from course_lib.judgments.ranking import TripletData, check_not_empty
from course_lib.lpips import LPIPS
from course_lib.training import train


def harden(
    metric: LPIPS,
    data: TripletData,
    ball: Ball,
    *,
    attack_steps: int = 5,
    learning_rate: float = 1e-4,
    batch_size: int = 16,
    epochs: int = 1,
    seed: int = 0,
    folder: str | Path | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> tuple[LPIPS, list[dict[str, Any]]]:
    """Train the trunk of LPIPS on triplets whose reference is attacked anew, against the current weights, every step.

    min over weights of the mean of max over delta in the ball of BCE((d0 - d1) / tau, judge), with d0, d1 at ref +
    delta. The inner maximum is approached by PGD on the margin, so from below (for split votes margin and loss need not
    rise together): what comes out resists this attack, and nothing is proven about others. The heads stay as they are;
    tau is the mean |d0 - d1| of the first batch before training, so that the votes and the distances have one scale.

    Args:
        metric: what to start from; it is left as it is.
        data: triplets in memory or in files.
        ball: where the adversary may move the reference.
        attack_steps: of PGD, for every batch; 0 trains on clean images, for comparison.
        learning_rate: of Adam, falling to 0 along a half cosine.
        batch_size: triplets per step.
        epochs: how often to go through the data.
        seed: of order and random starts.
        folder: for checkpoints; a run that is there is continued.
        device: where to compute.
        progress: show a progress bar.

    Returns:
        The hardened metric, and one record per epoch.

    Raises:
        ValueError: for empty data.
        TrainingError: if the loss becomes NaN.

    Source: Madry et al., Towards deep learning models resistant to adversarial attacks, ICLR 2018, equation 2.1;
    Ghazanfari et al., R-LPIPS, 2023, which trains LPIPS on BAPPS so; there a candidate is attacked, in L-infinity, by
    PGD on the loss.
    """
    check_not_empty(data)
    hardened = copy.deepcopy(metric).to(device)
    trunk = hardened.network.trunk.requires_grad_(True)
    measure = Metric("lpips", hardened)
    steps = epochs * -(-len(data) // batch_size)
    optimizer = torch.optim.Adam(trunk.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    first: Any = next(iter(data.batches(batch_size)))
    with torch.no_grad():
        d0, d1 = hardened.triplet_distances(*(part.to(device) for part in first[:3]))
    tau = (d0 - d1).abs().mean().item()

    def loss(batch: Triplet) -> Tensor:
        ref = attacked(batch) if attack_steps else batch.ref
        d0, d1 = hardened.triplet_distances(ref, batch.p0, batch.p1)
        return F.binary_cross_entropy_with_logits((d0 - d1) / tau, batch.judge)

    def attacked(batch: Triplet) -> Tensor:
        objective = flip(measure, batch.ref, batch.p0, batch.p1, label=(batch.judge > 0.5).long())
        further = replace(objective, threshold=torch.full_like(objective.threshold, torch.inf))  # fooled is not enough
        generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))  # follows the run's seed and resume
        return pgd(further, ball, steps=attack_steps, generator=generator).images

    def batches(generator: torch.Generator) -> Iterable[Triplet]:
        return data.batches(batch_size, generator)

    settings = {"ball": vars(ball), "attack_steps": attack_steps, "learning_rate": learning_rate, "data": data.name}
    history = train(
        trunk, loss, batches, optimizer, epochs=epochs, schedule=schedule, seed=seed, folder=folder, device=device,
        settings=settings, progress="adversarial training" if progress else None,
    )  # fmt: skip
    trunk.requires_grad_(False)
    return hardened.eval(), history
