"""Adversarial training changes the trunk only, lowers the attacked loss, and gives the same weights again."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from course_lib.attacks.balls import Ball
from course_lib.attacks.gradient import pgd
from course_lib.attacks.hardening import harden
from course_lib.attacks.objectives import flip
from course_lib.data import triplets
from course_lib.judgments import Metric
from course_lib.lpips import LPIPS

BALL = Ball("l2", 1.0)
SHORT = {"attack_steps": 2, "learning_rate": 1e-3, "batch_size": 4}


@pytest.fixture(scope="module")
def data():
    few = triplets.simulated("train").select(torch.tensor([0, 1000, 3000, 5000, 7000, 7900, 2000, 4000]))
    crop = {name: getattr(few, name)[..., 12:52, 12:52] for name in ("ref", "p0", "p1")}  # smaller is quicker
    return replace(few, **crop)


@pytest.fixture(scope="module")
def metric():
    return LPIPS("st-alex")


@pytest.fixture(scope="module")
def hardened(metric, data):
    before = {name: value.clone() for name, value in metric.state_dict().items()}
    result = harden(metric, data, BALL, epochs=4, **SHORT)
    for name, value in metric.state_dict().items():
        assert torch.equal(value, before[name]), f"harden changed {name} of the metric it was given"
    return result


def attacked_loss(metric, data):
    """The mean loss of all triplets, each reference attacked by a stronger attack than in training."""
    ref, p0, p1, judge = data[torch.arange(len(data))]
    objective = flip(Metric("m", metric), ref, p0, p1, label=(judge > 0.5).long())
    objective = replace(objective, threshold=torch.full_like(objective.threshold, torch.inf))
    images = pgd(objective, BALL, steps=5).images
    with torch.no_grad():
        d0, d1 = metric.triplet_distances(images, p0, p1)
        tau = torch.stack([metric(ref, p) for p in (p0, p1)]).diff(dim=0).abs().mean()
    return F.binary_cross_entropy_with_logits((d0 - d1) / tau, judge).item()


def test_adversarial_training_lowers_the_attacked_loss_on_what_it_learned(metric, hardened, data):
    assert attacked_loss(hardened[0], data) < 0.9 * attacked_loss(metric, data)


def test_adversarial_training_lowers_it_more_than_clean_training(metric, hardened, data):
    clean, _ = harden(metric, data, BALL, epochs=4, **SHORT | {"attack_steps": 0})
    assert attacked_loss(hardened[0], data) < attacked_loss(clean, data)


def test_heads_stay_and_the_trunk_changes(metric, hardened):
    after = hardened[0].network
    assert all(torch.equal(a, b) for a, b in zip(metric.network.heads, after.heads, strict=True))
    pairs = zip(metric.network.trunk.parameters(), after.trunk.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    assert not any(p.requires_grad for p in after.parameters()) and not hardened[0].training


def test_a_complete_run_is_not_repeated_and_the_same_command_gives_the_same_weights(metric, data, tmp_path):
    two, _ = harden(metric, data, BALL, epochs=2, folder=tmp_path / "whole", **SHORT)
    again, history = harden(metric, data, BALL, epochs=2, folder=tmp_path / "whole", **SHORT)  # already complete
    fresh, _ = harden(metric, data, BALL, epochs=2, **SHORT)
    assert [record["epoch"] for record in history] == [1, 2]
    for name, value in two.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]) and torch.equal(value, fresh.state_dict()[name])


def test_empty_data_is_refused(metric, data):
    with pytest.raises(ValueError, match="empty"):
        harden(metric, data.select(torch.arange(0)), BALL)
