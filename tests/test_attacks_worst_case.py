"""The ensemble: each attack on what the earlier ones left, the worst images, and the smallest change."""

from dataclasses import replace

import pytest
import torch

from course_lib.attacks import NORMS, Ball, sizes, worst_case
from tests.known_optima import bowl, generator, linear, middling, pictures, steepest

both_norms = pytest.mark.parametrize("norm", NORMS)
QUICK = {"steps": 12, "queries": 60}
SLOPE = pictures(4, seed=1) - 0.5


def needing(changes, norm, start=None):
    """A linear objective whose examples need changes of exactly these sizes."""
    start = middling(len(changes)) if start is None else start
    slope = SLOPE[: len(changes)]
    at_start = (start * slope).flatten(1).sum(1)
    gap = torch.tensor(changes) * steepest(slope, norm).float()
    return replace(linear(start, slope), threshold=at_start + gap)


def radius(norm):
    return 0.3 if norm == "l2" else 0.03


@both_norms
def test_it_succeeds_where_a_change_within_the_ball_suffices_and_finds_the_smallest(norm):
    eps = radius(norm)
    needed = torch.tensor([-0.5, 0.4, 0.9, 2.0]) * eps
    task = needing(needed.tolist(), norm)
    found = worst_case(task, Ball(norm, eps), **QUICK)
    assert found.first == ("start", "apgd-margin", "apgd-margin", None)
    assert found.success.tolist() == [True, True, True, False]
    assert torch.equal(task.succeeded(task.value(found.images)), found.success)
    assert (sizes(found.images.double() - task.start.double(), norm) <= eps).all()
    assert found.smallest[0] == 0
    assert (found.smallest[1:] >= needed[1:] * (1 - 1e-5)).all()
    assert found.smallest[1] <= needed[1] * 1.25  # on the line to where APGD stopped
    assert found.smallest[3] <= needed[3] * 1.01  # outside the ball, by FAB
    assert task.succeeded(task.value(found.nearest)).all()
    assert torch.allclose(sizes(found.nearest.double() - task.start.double(), norm), found.smallest)


@both_norms
def test_later_attacks_cost_nothing_where_an_earlier_one_succeeded(norm):
    eps = radius(norm)
    found = worst_case(needing([-0.5 * eps, 0.5 * eps, 3 * eps], norm), Ball(norm, eps), **QUICK)
    assert found.backwards[0] == 0
    assert found.backwards[1] < QUICK["steps"]
    assert found.backwards[2] == 3 * QUICK["steps"]  # twice APGD, and FAB
    assert found.forwards[2] > found.backwards[2] + QUICK["queries"]


def masked(task):
    """The same value, with a gradient that leads the wrong way."""

    def value(images, *fixed):
        honest = task.function(images, *fixed)
        return 2 * honest.detach() - honest

    return replace(task, function=value)


@both_norms
def test_square_finds_what_a_masked_gradient_hides(norm):
    task = masked(needing([0.1 * radius(norm), 3 * radius(norm)], norm))
    found = worst_case(task, Ball(norm, radius(norm)), steps=12, queries=300)
    assert found.first == ("square", None)
    assert found.success.tolist() == [True, False]
    assert not worst_case(task, Ball(norm, radius(norm)), steps=12, attacks=("apgd-margin", "apgd-ce")).success.any()


def test_apgd_ce_begins_at_another_random_point():
    asked = []
    task = bowl(middling(1), middling(1, seed=1))
    recording = replace(task, function=lambda *a: (asked.append(a[0].detach().clone()), task.function(*a))[1])
    worst_case(recording, Ball("l2", 0.3), steps=1, attacks=("apgd-margin", "apgd-ce"))
    starts = [images for images in asked if sizes(images - task.start, "l2").item() > 0.2]
    assert not torch.equal(starts[0], starts[2])


@both_norms
def test_without_a_threshold_the_largest_value_of_all_attacks_is_kept(norm):
    task, ball = linear(middling(2), SLOPE[:2]), Ball(norm, radius(norm))
    found = worst_case(task, ball, **QUICK)
    best = task.value(task.start) + ball.eps * steepest(SLOPE[:2], norm)
    assert torch.allclose(found.value.double(), best, rtol=1e-3)
    assert found.first == (None, None)
    assert found.smallest.isinf().all()
    assert torch.equal(found.nearest, task.start)
    assert found.backwards.tolist() == [2 * QUICK["steps"]] * 2  # FAB has no boundary to look for


@both_norms
def test_an_example_is_attacked_as_if_others_were_not_there(norm):
    eps = radius(norm)
    start = middling(3)
    found = worst_case(needing([0.5 * eps, 0.98 * eps, 3 * eps], norm, start), Ball(norm, eps), **QUICK)
    other = torch.cat((middling(1, seed=5), start[1:]))
    again = worst_case(needing([4 * eps, 0.98 * eps, 3 * eps], norm, other), Ball(norm, eps), **QUICK)
    assert found.success[0] != again.success[0]
    assert torch.equal(found.images[1:], again.images[1:])
    assert torch.equal(found.nearest[1:], again.nearest[1:])
    assert found.first[1:] == again.first[1:]


def test_the_generator_alone_decides():
    task, ball = linear(middling(2), SLOPE[:2]), Ball("l2", 0.3)
    once, again, other = (worst_case(task, ball, steps=2, queries=3, generator=generator(s)).images for s in (0, 0, 1))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_three_images_of_an_example_each_have_a_ball():
    start, slope = middling(2, parts=(3,)), pictures(2, parts=(3,), seed=1) - 0.5
    most = 0.3 * steepest(slope, "l2").sum(1).float()
    at_start = (start * slope).flatten(1).sum(1)
    task = replace(linear(start, slope), threshold=at_start + most * torch.tensor([0.95, 1.05]))
    found = worst_case(task, Ball("l2", 0.3), **QUICK)
    assert found.success.tolist() == [True, False]
    assert sizes(found.images - start, "l2").max() <= 0.3
    assert (found.smallest < 0.5).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attacks": ("apgd-dlr",)}, r"unknown attacks in \['apgd-dlr'\]; choose from apgd-margin, apgd-ce"),
        ({"attacks": ()}, "unknown attacks"),
        ({"queries": 0}, "queries is 0"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        worst_case(linear(middling(1), SLOPE[:1]), Ball("l2", 0.3), **options)
