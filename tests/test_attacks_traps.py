"""Known traps of attack libraries on metrics: each is shown to be one, beside the attack of ours that is not caught."""

import foolbox
import pytest
import torch
import torchattacks

from course_lib.attacks.balls import Ball, sizes
from course_lib.attacks.gradient import pgd, reach
from course_lib.attacks.minimum_norm import carlini_wagner
from course_lib.attacks.objectives import flip, push
from course_lib.attacks.worst_case import worst_case
from tests.benchmarks import attack_peers as peers
from tests.small_attacks import BENT, ROOTED, SQUARED, random_triplets, triplets_at


def bent_decision(n=10, negative=False):
    """A decision of BENT, its triplets and the answers it gives."""
    ref, p0, p1, judge = random_triplets(n)[:]
    return peers.Decision(BENT, ref, p0, p1, negative), (ref, p0, p1), (judge > 0.5).long()


def standing(images, p0, p1, label, metric=BENT):
    return int(((metric(images, p1) < metric(images, p0)).long() == label).sum())


# The decision that the libraries attack is ours


@pytest.mark.parametrize("negative", [False, True])
def test_the_two_logits_are_the_decision_and_its_margin_is_our_objective(negative):
    decision, (ref, p0, p1), label = bent_decision(negative=negative)
    logits = decision(ref)
    assert torch.equal(logits.argmax(1), label)
    margin = (logits.gather(1, 1 - label[:, None]) - logits.gather(1, label[:, None]))[:, 0]
    torch.testing.assert_close(margin, flip(BENT, ref, p0, p1, label=label).value(ref))
    assert (logits < 0).all() == negative


def test_rows_of_a_part_of_the_batch_are_recognised_and_strangers_refused():
    decision, (ref, *_), _ = bent_decision()
    chosen = torch.tensor([7, 2, 5])
    torch.testing.assert_close(decision(ref[chosen] + 0.01), decision(ref + 0.01)[chosen])
    with pytest.raises(RuntimeError, match="cannot be recognised"):
        decision((ref[:2] + ref[2:4]) / 2)


def test_passes_are_counted_by_image():
    decision, (ref, *_), _ = bent_decision()
    images = ref.clone().requires_grad_()
    decision(images)[:, 0].sum().backward()
    decision(ref[:3])
    assert (decision.forwards, decision.backwards) == (13, 10)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("name", [*peers.IN_THE_BALL, *peers.BLACK_BOX])
def test_every_peer_returns_images_in_the_ball_and_uses_no_more_than_its_budget(name, norm):
    decision, (ref, *_), label = bent_decision()
    eps = {"l2": 0.3, "linf": 0.03}[norm]
    images = {**peers.IN_THE_BALL, **peers.BLACK_BOX}[name](decision, label, norm, eps, 12)
    assert sizes(images - ref, norm).max() <= eps * 1.001
    assert decision.backwards <= 12 * len(ref)
    assert decision.backwards > 0 or name in peers.BLACK_BOX


@pytest.mark.parametrize("name", sorted(set(peers.NEAREST) - {"foolbox Brendel-Bethge"}))  # which takes 20 s to compile
def test_every_minimum_norm_peer_overturns_decisions_and_uses_no_more_than_its_budget(name):
    decision, (_, p0, p1), label = bent_decision()
    images = peers.NEAREST[name](decision, label, "l2", 40)
    assert standing(images, p0, p1, label) <= 1
    assert decision.backwards <= 40 * len(label)


# Traps


def test_standard_autoattack_crashes_on_two_classes_where_ours_runs_to_the_end():
    decision, (ref, p0, p1), label = bent_decision()
    with pytest.raises(IndexError):  # its DLR loss divides by the gap between the largest and the third largest logit
        peers.autoattack(decision, "l2", 0.01, version="standard").run_standard_evaluation(ref, label)
    with pytest.raises(IndexError):
        peers.autoattack(decision, "l2", 0.01, version="custom", attacks=["apgd-dlr"]).run_standard_evaluation(
            ref, label
        )
    only = peers.autoattack(decision, "l2", 0.01, version="custom", attacks=["apgd-ce"])
    assert only.run_standard_evaluation(ref, label)[0].shape == ref.shape
    found = worst_case(flip(BENT, ref, p0, p1, label=label), Ball("l2", 0.01), steps=5, queries=5)
    assert not found.success.all() and found.smallest.isfinite().all()


def test_carlini_wagner_of_torchattacks_sees_nothing_when_all_logits_are_negative():
    left = {}
    for negative in (False, True):
        decision, (ref, p0, p1), label = bent_decision(negative=negative)
        images = torchattacks.CW(decision, c=10, steps=60, lr=0.01)(ref, label)
        left[negative] = standing(images, p0, p1, label)
    assert left[True] >= 9 and left[False] <= 2  # what is found all the same is where Adam follows rounding errors
    assert carlini_wagner(flip(BENT, ref, p0, p1, label=label), steps=60, search_steps=2).success.sum() >= 8


def test_the_default_step_of_foolbox_leaves_standing_what_a_sensible_one_overturns():
    reachable = torch.linspace(0.8, 0.98, 10)  # of eps = 1
    ref, p0, p1 = triplets_at(reachable)
    label, left = torch.zeros(10, dtype=torch.long), {}
    for relative in (0.025, 2.5 / 50):
        decision = peers.Decision(SQUARED, ref, p0, p1)
        images = peers.foolbox_pgd(decision, label, "l2", 1.0, 50, relative)
        left[relative] = standing(images, p0, p1, label, SQUARED)
    assert foolbox.attacks.L2PGD().rel_stepsize == 0.025 and foolbox.attacks.L2PGD().steps == 50
    assert left[0.025] >= 5 and left[2.5 / 50] == 0
    assert pgd(flip(SQUARED, ref, p0, p1, label=label), Ball("l2", 1.0), steps=50).success.all()


def test_a_hundred_momentum_steps_of_a_hundredth_never_get_further_than_one():
    ref, p0, p1 = triplets_at([0.9, 1.1, 2.0])
    label = torch.zeros(3, dtype=torch.long)
    lipsim = {"steps": 100, "step_size": 0.01, "momentum": 1.0, "random_start": False}
    assert reach(100, 0.01) == pytest.approx(1.0)
    for eps in (1.5, 3.0):
        found = pgd(flip(SQUARED, ref, p0, p1, label=label), Ball("l2", eps), **lipsim)
        assert found.success.tolist() == [True, False, False]
        assert sizes(found.images - ref, "l2").max() <= 1.0 + 1e-5
        attack = foolbox.attacks.L2MomentumIterativeFastGradientMethod(abs_stepsize=0.01, steps=100)
        images = peers.foolbox_attack(attack, peers.Decision(SQUARED, ref, p0, p1), label, eps)
        assert sizes(images - ref, "l2").max() <= 1.0 + 1e-5
        assert standing(images, p0, p1, label, SQUARED) == 2
    assert pgd(flip(SQUARED, ref, p0, p1, label=label), Ball("l2", 3.0), steps=100, momentum=1.0).success.all()


def test_a_root_at_distance_zero_has_a_nan_gradient_and_is_refused_while_a_random_start_works():
    ref = random_triplets(3)[:].ref
    with pytest.raises(ValueError, match="square root at distance 0") as caught:
        pgd(push(ROOTED, ref), Ball("l2", 0.5), steps=3, random_start=False)
    assert "\n" not in str(caught.value)
    found = pgd(push(ROOTED, ref), Ball("l2", 0.5), steps=10)
    torch.testing.assert_close(found.value, torch.full((3,), 0.5), rtol=1e-3, atol=0)


def test_foolbox_does_not_notice_the_nan_gradient():
    ref, _, p1, _ = random_triplets(3)[:]
    decision = peers.Decision(ROOTED, ref, ref, p1)
    attack = foolbox.attacks.LinfPGD(steps=3, random_start=False)
    images = peers.foolbox_attack(attack, decision, torch.zeros(3, dtype=torch.long), 0.03)
    assert images.isnan().any() or torch.equal(images, ref)
