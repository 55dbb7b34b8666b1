"""The certified metric that comes with the course: its card is true, and no attack gets inside its radii."""

import pytest
import torch

from course_lib.certification import CertifiedMetric, certify, labels, load_shipped, pixel_l2, shipped
from tests.small_certified import attacked

RADII = (36 / 255, 72 / 255, 108 / 255, 0.5, 1.0)


@pytest.fixture(scope="module")
def metric():
    return load_shipped()


@pytest.fixture(scope="module")
def triplets():
    """320 of the test triplets, of photographs that nothing was trained on, with the teacher's decisions."""
    return labels.simulated("test").select(torch.arange(320) * 2000 // 320)


def test_its_network_is_1_lipschitz_and_its_file_small(metric):
    assert 0.5 < metric.lipschitz <= 1 + 1e-5
    assert shipped.SHIPPED.stat().st_size <= 16 * 2**20
    assert metric.card["command"].startswith("python -m course_lib finetune ")
    assert "/" not in metric.card["command"].replace("runs/", "")  # no path of a machine


def test_its_scores_are_those_on_its_card(metric):
    data = labels.simulated("val")
    found = certify(metric, data.select(torch.arange(0, 1000, 4)), RADII)
    assert found.accuracy() == pytest.approx(metric.card["scores"]["natural"], abs=0.06)  # a quarter of the triplets
    for eps in RADII:
        assert found.accuracy(eps) == pytest.approx(metric.card["scores"][f"certified {eps:.3g}"], abs=0.07)


def test_it_beats_pixel_l2_at_every_radius_up_to_one(metric, triplets):
    ours, pixels = certify(metric, triplets, RADII), certify(pixel_l2(), triplets, RADII)
    assert ours.accuracy() > pixels.accuracy() + 0.1
    assert ours.accuracy(1 / 255) > pixels.accuracy(1 / 255) + 0.1
    for eps, gain in zip(RADII, (0.08, 0.06, 0.04, 0.03, 0.0), strict=True):
        assert ours.accuracy(eps) > pixels.accuracy(eps) + gain, eps


@pytest.mark.parametrize(("kind", "n"), [("euclidean", 320), ("cosine", 64)])
def test_no_decision_is_overturned_inside_its_radius(kind, n, metric, triplets):
    metric = CertifiedMetric(metric.network, kind)
    ref, p0, p1, _ = triplets.select(torch.arange(n))[:]
    decision, radius, _ = metric.assess(ref, p0, p1)
    moved = attacked(metric, ref, p0, p1, radius.abs() * (1 - 1e-6), steps=8)
    assert (moved - ref).flatten(1).norm(dim=1).median() > 0.5 * radius.abs().median()
    assert torch.equal(metric.decide(moved, p0, p1)[radius != 0], decision[radius != 0])


def test_the_attack_does_overturn_decisions_beyond_the_radius(metric, triplets):
    ref, p0, p1, _ = triplets.select(torch.arange(64))[:]
    decision, radius, _ = metric.assess(ref, p0, p1)
    moved = attacked(metric, ref, p0, p1, 3 * radius.abs(), steps=20)
    assert (metric.decide(moved, p0, p1) != decision).float().mean() > 0.3
