"""certify counts what is right and certified, once each, and stops when an attack proves a certificate wrong."""

import copy
import dataclasses
import math
import weakref

import pytest
import torch

from course_lib import judgments
from course_lib.attacks import RobustAccuracy, attack_2afc
from course_lib.certification import (
    Certified,
    CertifiedMetric,
    SoundnessError,
    certify,
    check_against_attack,
    pixel_l2,
)
from course_lib.data.triplets import Triplets
from tests.small_certified import METRICS, images, isometry, student
from tests.test_distillation_parallel import together

VOTES = torch.tensor([0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0])


def noise(n=70, seed=0, contrast=0.08):
    ref, p0, p1 = ((255 * image).round().byte() for image in images(n, seed, contrast))
    return Triplets("noise", ref, p0, p1, VOTES.repeat(n // 7 + 1)[:n], torch.arange(n) % 5)


def floats(data):
    return tuple(part.float() / 255 for part in (data.ref, data.p0, data.p1))


@pytest.mark.parametrize("name", METRICS)
def test_accuracies_are_those_counted_one_by_one(name):
    metric, data = METRICS[name](), noise()
    found = certify(metric, data, [0.05, 0.01], batch_size=16)
    radius, decision = metric.radius(*floats(data)).tolist(), metric.decide(*floats(data)).tolist()
    natural, counts = 0, {0.01: 0, 0.05: 0}
    for r, choice, vote in zip(radius, decision, data.judge.tolist(), strict=True):
        if vote == 0.5:
            continue
        right = choice == (1 if vote > 0.5 else 0)
        natural += right
        for eps in counts:
            counts[eps] += right and (r if vote < 0.5 else -r) > eps
    table = found.table(resamples=20)
    assert table.certified.tolist() == pytest.approx([natural / 60, counts[0.01] / 60, counts[0.05] / 60])
    assert (table.eps.tolist(), table.undecided.tolist(), table.n.tolist()) == ([0, 0.01, 0.05], [10] * 3, [70] * 3)
    assert (table.low <= table.certified).all() and (table.certified <= table.high).all()
    assert 0 < table.certified[2] < table.certified[1] < table.certified[0]
    assert found.accuracy() == table.certified[0] and found.accuracy(0.05) == table.certified[2]


def by_hand():
    """Seven triplets with known decisions and radii."""
    decision = torch.tensor([0, 0, 1, 0, 1, -1, 1])
    radius = torch.tensor([0.3, 0.1, -0.2, 0.9, -0.5, 0.0, -0.1], dtype=torch.float64)
    return Certified("m", "d", "exact", (0.1, 0.2), decision, radius, torch.ones(7), VOTES)


def test_a_worked_example():
    found = by_hand()
    assert found.natural().tolist() == [True, True, False, False, True, False, True]
    assert found.certified(0.1).tolist() == [True, False, False, False, True, False, False]  # 0.1 is not above 0.1
    assert found.accuracy() == pytest.approx(4 / 6) and found.accuracy(0.3) == pytest.approx(1 / 6)
    assert found.score() == pytest.approx((1 + 0.8 + 0.4 + 0.5 + 0.6 + 0.5 + 1) / 7)
    # uncertified triplets may come to agree with the minority only, the third one's certified decision does already
    assert found.score(0.15) == pytest.approx((1 + 0.2 + 0.4 + 0.5 + 0.6 + 0.2 + 0) / 7)
    curve = found.curve([0, 0.1, 0.4])
    assert curve.certified.tolist() == pytest.approx([4 / 6, 2 / 6, 1 / 6])
    assert found.curve().certified.is_monotonic_decreasing and found.curve().eps.iloc[-1] == pytest.approx(0.9)


def test_votes_give_the_score_that_the_course_has_for_any_metric():
    metric, data = CertifiedMetric(student()), noise()
    assert certify(metric, data).score() == pytest.approx(judgments.evaluate(metric, data).score)


def test_labels_take_the_place_of_votes_and_a_teacher_is_always_right_about_itself():
    metric, data = CertifiedMetric(isometry(), "cosine"), noise()
    before = data.judge.clone()
    found = certify(metric, data, labels=metric.decide(*floats(data)).float())
    assert found.accuracy() == 1 and found.table(10).undecided.tolist() == [0] * 4
    assert certify(metric, data, labels=1 - found.labels).accuracy() == 0
    assert torch.equal(data.judge, before)


def test_pixel_l2_has_the_certificate_of_the_bisector():
    data = noise(20)
    ref, p0, p1 = (part.double().flatten(1) for part in floats(data))
    exact = ((ref - p1).square().sum(1) - (ref - p0).square().sum(1)) / (2 * (p0 - p1).norm(dim=1))
    assert torch.allclose(certify(pixel_l2(), data).radius.double(), exact, atol=1e-4)


def test_attacked_accuracy_lies_between_certified_and_natural():
    for name, attack in (("isometry euclidean", "pgd"), ("student cosine", "worst-case")):
        metric, data = METRICS[name](), noise(14)
        metric.train()
        options = {"steps": 5, "batch_size": 14} | ({"queries": 10} if attack == "worst-case" else {})
        found = certify(metric, data, [0.02, 0.05], attack=attack, attack_options=options)
        assert metric.network.training
        table = found.table(10)
        assert (table.certified <= table.attacked).all() and (table.attacked <= table.certified[0]).all()
        assert table.attacked[2] < table.attacked[0]  # it can do something


def test_the_published_formula_is_caught_by_the_attack_and_the_exact_one_is_not():
    metric, data = CertifiedMetric(isometry(), "cosine"), noise(42)
    options = {"attack": "pgd", "attack_options": {"steps": 20, "batch_size": 42}}
    exact = certify(metric, data, [0.06], **options)
    with pytest.raises(
        SoundnessError, match=r"triplet \d+ of noise is certified at eps 0\.06, radius .* by the publis"
    ):
        certify(metric, data, [0.06], formula="published", **options)
    claimed = certify(metric, data, [0.06], formula="published")
    assert claimed.accuracy(0.06) > exact.table(10).attacked[1] > exact.accuracy(0.06)
    with pytest.raises(SoundnessError) as caught:
        check_against_attack(claimed, exact.attacked)
    broken = claimed.certified(0.06) & (exact.attacked.standing()[1] == 0)
    assert caught.value.examples == broken.nonzero()[:, 0].tolist() and "\n" not in str(caught.value)


def test_every_violation_is_found_and_its_triplet_named():
    found = by_hand()

    def attacked(standing):
        """An attack that left these right, at eps 0, 0.1 and 0.2."""
        d0 = ((VOTES > 0.5) == torch.tensor(standing, dtype=torch.bool)).float()
        return RobustAccuracy("m", "d", "pgd", "l2", "ref", (0.1, 0.2), (d0, 1 - d0), torch.zeros(3, 7).double(), VOTES)

    natural = found.natural().long().tolist()
    good = [natural, [1, 0, 0, 0, 1, 0, 0], [1, 0, 0, 0, 1, 0, 0]]
    check_against_attack(found, attacked(good))
    for row, column, value, message in (
        (1, 0, 0, r"triplet 0 of d is certified at eps 0\.1, radius 0\.3 by the exact formula, but pgd overturned it"),
        (2, 4, 0, r"triplet 4 of d is certified at eps 0\.2"),
        (0, 1, 0, "triplet 1 of d is certified at eps 0,"),
        (2, 2, 1, r"triplet 2 of d is decided wrongly, radius 0\.2, but right at eps 0\.2"),
    ):
        bad = copy.deepcopy(good)
        bad[row][column] = value
        with pytest.raises(SoundnessError, match=message) as caught:
            check_against_attack(found, attacked(bad))
        assert caught.value.examples == [column]
    tie = copy.deepcopy(good)
    tie[0][5] = tie[1][5] = 1  # radius 0: rounding may decide it either way
    check_against_attack(found, attacked(tie))
    other = dataclasses.replace(attacked(good), norm="linf")
    with pytest.raises(ValueError, match="the attack made linf changes of ref"):
        check_against_attack(found, other)
    other = dataclasses.replace(attacked(good), votes=1 - VOTES)
    with pytest.raises(ValueError, match="other triplets or labels"):
        check_against_attack(found, other)


class Streamed:
    """Triplets that are made when they are asked for; remembers which batches still exist."""

    name, photo = "streamed", None

    def __init__(self, n):
        self.judge, self.alive, self.most = torch.arange(n) % 2 * 1.0, [], 0

    def __len__(self):
        return len(self.judge)

    def batches(self, size):
        for start in range(0, len(self), size):
            batch = floats(noise(min(size, len(self) - start), seed=start))
            self.alive = [one for one in self.alive if one() is not None] + [weakref.ref(batch[0])]
            self.most = max(self.most, len(self.alive))
            yield *batch, self.judge[start : start + size]
            del batch


def test_no_batch_outlives_the_next_one():
    data = Streamed(200)
    found = certify(CertifiedMetric(isometry()), data, batch_size=8)
    assert len(found.radius) == 200 and data.most <= 2


def share(data):
    found = certify(CertifiedMetric(isometry(), "cosine"), data, [0.02], attack="pgd", attack_options={"steps": 5})
    return found.radius, found.decision, found.attacked.standing()[0], found.table(50).certified.tolist(), len(data)


@pytest.mark.parametrize("n", [15, 1])
def test_several_processes_look_at_every_triplet_once_and_know_the_whole(n):
    data = noise(n, seed=3)
    alone = share(data)
    for radius, decision, standing, table, _ in together(share, data):
        assert torch.allclose(radius, alone[0], atol=1e-6) and torch.equal(decision, alone[1])
        assert torch.equal(standing.nan_to_num(2), alone[2].nan_to_num(2)) and table == alone[3]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"eps": []}, "give eps above 0, such as 36/255"),
        ({"eps": [0, 1]}, "give eps above 0"),
        ({"eps": [-1.0]}, "eps is -1"),
        ({"eps": [math.nan]}, "eps is nan"),
        ({"labels": torch.ones(3)}, r"labels have shape \(3,\); give 0"),
        ({"labels": torch.full((7,), 2.0)}, "give 0 .p0., 1 .p1. or a share for 7"),
        ({"labels": torch.full((7,), 0.5)}, "without a majority no decision is right"),
        ({"formula": "guess"}, "no formula 'guess' for kind 'cosine'; choose exact, or published"),
        ({"attack": "guess"}, "guess"),
    ],
)
def test_what_makes_no_sense_is_one_clear_line(options, message, unchecked):
    with pytest.raises(ValueError, match=message) as caught:
        certify(CertifiedMetric(isometry(), "cosine"), noise(7), **options)
    assert "\n" not in str(caught.value)


def test_empty_data_is_refused():
    with pytest.raises(ValueError, match="noise is empty"):
        certify(CertifiedMetric(isometry()), noise(7).select(torch.arange(0)))


def test_the_attack_is_the_one_of_chapter_09():
    metric, data = CertifiedMetric(isometry()), noise(14)
    options = {"steps": 5, "batch_size": 7, "seed": 4}
    found = certify(metric, data, [0.03], attack="pgd", attack_options=options).attacked
    alone = attack_2afc(metric, data, eps=[0.03], attack="pgd", **options)
    assert torch.equal(found.sizes, alone.sizes)
