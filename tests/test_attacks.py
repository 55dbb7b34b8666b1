"""Gradient attacks: never outside the ball, as good as the closed form, and step by step what was published."""

from dataclasses import replace
from functools import partial

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import torchattacks
from pyautoattack.autopgd_base import APGDAttack
from torch.nn.functional import cross_entropy, softplus

from course_lib.attacks import NORMS, Ball, apgd, checkpoints, direction, fgm, misclassify, pgd, push, reach, sizes
from course_lib.judgments import Metric
from tests.known_optima import bowl, generator, linear, middling, pictures, steepest

some = hypothesis.settings(max_examples=60)
norms = st.sampled_from(NORMS)
radii = st.sampled_from([1e-12, 1e-7, 1e-6, 2 / 255, 0.5, 3.0, 1e30])
both_norms = pytest.mark.parametrize("norm", NORMS)
one_or_more_images = pytest.mark.parametrize("parts", [(), (3,)], ids=["one image", "three images"])


def norm_of(delta, norm):
    """Per image, by numpy in float64."""
    flat = delta.reshape(*delta.shape[:-3], -1)
    return np.linalg.norm(flat, axis=-1) if norm == "l2" else np.abs(flat).max(-1)


def outside(images, center, norm):
    """The largest distance of an image from its centre, and how far the worst pixel is outside [0, 1]."""
    images, center = images.double().numpy(), center.double().numpy()
    return norm_of(images - center, norm).max(), max(images.max() - 1, -images.min())


@st.composite
def centers(draw):
    """One image per example or several, of any size; some pixels at 0, at 1, or tiny."""
    shape = draw(st.sampled_from([(1, 3, 1, 1), (2, 3, 4, 3), (2, 3, 3, 5, 5), (1, 1, 20, 20)]))
    center = torch.rand(shape, generator=generator(draw(st.integers(0, 10**6))))
    low, high = draw(st.sampled_from([(0.0, 1.0), (0.3, 0.7), (0.5, 0.5)]))
    return torch.where(center < low, center * 1e-30 if draw(st.booleans()) else 0.0, center.where(center <= high, 1.0))


# The ball


@some
@hypothesis.given(centers(), norms, radii, st.sampled_from([1e-8, 1e-3, 1.0, 1e20]), st.integers(0, 99))
def test_nothing_projected_or_drawn_is_outside_the_ball_or_the_limits_of_pixels(center, norm, eps, scale, seed):
    ball = Ball(norm, eps)
    far = center + scale * torch.randn(center.shape, generator=generator(seed))
    for images in (ball.project(far, center), ball.random(center, generator(seed))):
        distance, beyond = outside(images, center, norm)
        assert distance <= eps
        assert beyond <= 0


@some
@hypothesis.given(st.sampled_from([(), (2,)]), norms, st.sampled_from([1e-6, 0.03, 0.4]), st.integers(0, 99))
def test_projecting_leaves_what_is_inside_and_brings_the_rest_to_the_nearest_point(parts, norm, eps, seed):
    center = (
        middling(3, parts=parts, seed=seed) if eps > 0.1 else pictures(3, parts=parts, seed=seed, low=0.1, high=0.9)
    )
    change = torch.randn(center.shape, generator=generator(seed), dtype=torch.float64)
    change /= torch.from_numpy(norm_of(change.numpy(), norm))[..., None, None, None]
    ball = Ball(norm, eps)
    inside = (center.double() + 0.9 * eps * change).float()
    if outside(inside, center, norm)[0] < eps:  # rounding can move so tiny a change
        assert torch.equal(ball.project(inside, center), inside)
    nearest = eps * change if norm == "l2" else (2 * eps * change).clamp(-eps, eps)
    found = ball.project(center.double() + 2 * eps * change, center).double() - center.double()
    assert (found - nearest).abs().max() <= 6e-8 + 1e-9 * eps  # a float32 next to 1 is 6e-8 from the next


@both_norms
@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1.0, 1e30])
def test_direction_has_norm_one_and_is_where_a_linear_function_rises_fastest(norm, scale):
    gradient = torch.randn(2, 2, 3, 4, 4, generator=generator()) * scale
    gradient[1, 1] = 0
    step = direction(gradient, norm).double()
    assert norm_of(step.numpy(), norm).ravel().tolist() == pytest.approx([1, 1, 1, 0])
    rise = (step * gradient.double()).flatten(2).sum(2)
    assert torch.allclose(rise, steepest(gradient, norm), rtol=1e-5, atol=0)


@both_norms
def test_random_points_fill_the_ball_evenly(norm):
    center = torch.full((4000, 1, 3, 1, 1), 0.5)
    length = norm_of((Ball(norm, 0.4).random(center, generator()) - center).numpy(), norm).ravel()
    for share in (0.5, 0.8):  # of the radius; the volume in three dimensions is its cube
        assert (length < 0.4 * share).mean() == pytest.approx(share**3, abs=0.03)


@both_norms
def test_no_images_at_all_are_no_problem(norm):
    ball, nothing = Ball(norm, 0.1), torch.zeros(0, 3, 4, 4)
    for images in (ball.project(nothing, nothing), ball.random(nothing), direction(nothing, norm)):
        assert images.shape == nothing.shape
    assert sizes(nothing, norm).shape == (0,)
    for attack in (fgm, pgd, apgd):
        assert attack(linear(nothing, nothing), ball).success.shape == (0,)


@pytest.mark.parametrize(
    ("norm", "eps", "message"),
    [("l1", 1.0, "unknown norm 'l1'"), ("l2", 0.0, "eps is 0.0"), ("l2", -1.0, "eps"), ("l2", np.nan, "eps")],
)
def test_an_impossible_ball_is_refused(norm, eps, message):
    with pytest.raises(ValueError, match=message):
        Ball(norm, eps)


# As good as the closed form


def momentum(objective, ball, **options):
    return pgd(objective, ball, momentum=1.0, **options)


def long_steps(objective, ball, **options):
    return pgd(objective, ball, step_size=ball.eps / 4, **options)


ATTACKS = [fgm, long_steps, partial(momentum, random_start=False), apgd]


@pytest.mark.parametrize("attack", ATTACKS, ids=["fgm", "pgd", "momentum", "apgd"])
@both_norms
@one_or_more_images
def test_a_linear_function_rises_by_eps_times_the_dual_norm(attack, norm, parts):
    start, slope = middling(3, parts=parts), pictures(3, parts=parts, seed=1) - 0.5
    eps = 0.35 if norm == "l2" else 0.05
    found = attack(linear(start, slope), Ball(norm, eps))
    best = (start * slope).flatten(1).sum(1) + eps * steepest(slope, norm).reshape(3, -1).sum(1)
    assert torch.allclose(found.value.double(), best, rtol=1e-4)


@pytest.mark.parametrize("attack", ATTACKS, ids=["fgm", "pgd", "momentum", "apgd"])
def test_a_linear_function_is_largest_in_the_corner_of_the_box_within_an_l_infinity_ball(attack):
    start, slope = pictures(3), pictures(3, seed=1) - 0.5
    corner = torch.where(slope > 0, (start + 0.3).clamp(max=1), (start - 0.3).clamp(min=0))
    found = attack(linear(start, slope), Ball("linf", 0.3))
    assert torch.allclose(found.images, corner, atol=1e-6)


@pytest.mark.parametrize("attack", [partial(pgd, step_size=0.03), apgd], ids=["pgd", "apgd"])
@pytest.mark.parametrize("inside", [True, False], ids=["top inside", "top outside"])
@one_or_more_images
def test_the_top_of_a_bowl_is_found_or_the_point_of_the_ball_nearest_to_it(attack, inside, parts):
    start, top = middling(2, parts=parts), middling(2, parts=parts, seed=1)
    away = (top - start).flatten(-3).norm(dim=-1)
    eps = 0.1 if not inside else 1.0
    best = -(away - eps).clamp_min(0).square().reshape(2, -1).sum(1)
    found = attack(bowl(start, top), Ball("l2", eps), steps=100)
    assert torch.allclose(found.value, best, atol=2e-3)


def test_steps_that_are_too_short_make_the_same_of_every_eps():
    start, slope = torch.full((1, 3, 5, 5), 0.5), pictures(1) + 1
    task = linear(start, slope)
    assert reach(100, 0.01) == pytest.approx(1)
    stingy = {"steps": 100, "step_size": 0.01, "momentum": 1.0, "random_start": False}
    short = [pgd(task, Ball("l2", eps), **stingy) for eps in (1.0, 3.0)]
    grown = [sizes(found.images - start, "l2").item() for found in short]
    assert grown == pytest.approx([1, 1], abs=1e-4)
    long = pgd(task, Ball("l2", 3.0), steps=100, momentum=1.0, random_start=False)
    assert sizes(long.images - start, "l2").item() == pytest.approx(3, rel=1e-4)


# A small network, and what others make of it


class Network:
    """Two classes, smooth, in the dtype of its input; keeps everything that it was asked about."""

    def __init__(self, depth=1.0, offset=0.0, size=5):
        self.first = torch.randn(3 * size * size, 16, generator=generator(1)) / 6
        self.second = torch.randn(16, 2, generator=generator(2))
        self.depth, self.offset, self.asked = depth, torch.tensor([0.0, offset]), []

    def __call__(self, images):
        self.asked.append(images.detach().clone())
        hidden = torch.sin(self.depth * images.flatten(1) @ self.first.to(images))
        return hidden @ self.second.to(images) + self.offset.to(images)


def endlessly(network, images, label):
    """Wrong is not enough: attacks go on to the last step."""
    return replace(misclassify(network, images, label), threshold=images.new_full((len(images),), torch.inf))


class CorrectedAPGD(APGDAttack):
    """Its first checkpoint looks up the value before the first step at index -1, where a 0 is; give it the value."""

    def check_oscillation(self, values, last, interval, *rest, **options):
        if last == interval - 1:
            values = values.clone()
            values[-1] = self.value_at_start
        return super().check_oscillation(values, last, interval, *rest, **options)


@both_norms
@pytest.mark.parametrize("steps", [9, 47, 100])
@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_apgd_takes_the_steps_of_the_published_implementation(norm, steps, loss):
    eps = 1.0 if norm == "l2" else 0.08
    images, label = pictures(6).double(), torch.tensor([0, 1] * 3)
    theirs, ours = Network(), Network()
    start = Ball(norm, eps).random(images, generator(3))
    name = {"l2": "L2", "linf": "Linf"}[norm]
    peer = CorrectedAPGD(theirs, n_iter=steps, norm=name, eps=eps, loss="ce", device="cpu")
    peer.value_at_start = cross_entropy(Network()(start), label, reduction="none").float()
    peer.init_hyperparam(images)
    best_images, _, best_loss, _ = peer.attack_single_run(images, label, x_init=start)
    found = apgd(endlessly(ours, images, label), Ball(norm, eps), steps=steps, loss=loss, generator=generator(3))
    assert len(ours.asked) == 1 + len(theirs.asked) == steps + 2  # ours looks at the original too
    for ours_now, theirs_now in zip(ours.asked[1:], theirs.asked, strict=True):
        assert torch.allclose(ours_now, theirs_now, atol=1e-6)
    assert torch.allclose(found.images, best_images, atol=1e-6)
    assert torch.allclose(softplus(found.value), best_loss, atol=1e-6)


def test_apgd_may_halve_its_steps_when_the_paper_says():
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1) == []


@both_norms
def test_apgd_on_the_cross_entropy_stands_still_where_it_underflows_and_on_the_margin_does_not(norm):
    images, label = pictures(2), torch.tensor([1, 1])
    ball = Ball(norm, 0.2)
    moved = {}
    for offset in (20.0, 200.0):
        task = endlessly(Network(offset=offset), images, label)
        found = {loss: apgd(task, ball, steps=10, loss=loss) for loss in ("margin", "ce")}
        first = apgd(task, ball, steps=1, loss="ce").value
        moved[offset] = [found[loss].value - first for loss in ("margin", "ce")]
    assert torch.allclose(*moved[20.0], atol=1e-4)
    assert (moved[20.0][0] > 0.1).all()
    assert (moved[200.0][0] > 0.1).all()
    assert (moved[200.0][1] == 0).all()


@pytest.mark.parametrize("peer", ["PGDL2", "PGD", "MIFGSM"])
def test_pgd_takes_the_steps_of_torchattacks(peer):
    images, label = pictures(4), torch.tensor([0, 1, 0, 1])
    norm, eps, size = ("l2", 0.8, 0.1) if peer == "PGDL2" else ("linf", 0.1, 0.02)
    options = {} if peer == "MIFGSM" else {"random_start": False}
    theirs, ours = Network(), Network()
    module = torch.nn.Linear(1, 1)  # it asks for a parameter's device
    module.forward = theirs
    attack = getattr(torchattacks, peer)(module, eps=eps, alpha=size, steps=12, **options)
    last = attack(images, label)
    mu = 1.0 if peer == "MIFGSM" else 0.0
    task = endlessly(ours, images, label)
    pgd(task, Ball(norm, eps), steps=12, step_size=size, momentum=mu, random_start=False, loss="ce")
    assert torch.allclose(ours.asked[-1], last, atol=1e-5)
    assert (last - images).abs().max() > 0.03


# Solved examples, other examples, random numbers

BALLS = [Ball("l2", 0.7), Ball("linf", 0.05)]
balls = pytest.mark.parametrize("ball", BALLS, ids=NORMS)
searching = pytest.mark.parametrize("attack", [pgd, momentum, apgd])


@searching
@balls
def test_an_attacked_network_is_worse_and_the_images_are_inside_and_the_values_theirs(attack, ball):
    images, label = pictures(6), torch.zeros(6, dtype=torch.int64)
    task = endlessly(Network(), images, label)
    found = attack(task, ball, steps=20)
    assert torch.equal(task.value(found.images), found.value)
    assert (found.value > task.value(images) + 0.2).all()
    distance, beyond = outside(found.images, images, ball.norm)
    assert distance <= ball.eps
    assert beyond <= 0


@searching
@balls
def test_an_example_is_attacked_as_if_others_were_not_there(attack, ball):
    images, others = pictures(3), pictures(3, seed=9)
    slope = pictures(3, seed=1) - 0.5
    threshold = (images * slope).flatten(1).sum(1) + torch.tensor([0.3, 0.05, torch.inf])
    task = replace(linear(images, slope), threshold=threshold)
    found = attack(task, ball, steps=10, restarts=2)
    assert found.forwards.unique().numel() > 1
    for index in range(3):
        mixed = torch.where((torch.arange(3) == index)[:, None, None, None], images, others)
        other_slope = torch.where((torch.arange(3) == index)[:, None, None, None], slope, -2 * slope)
        again = attack(replace(linear(mixed, other_slope), threshold=threshold), ball, steps=10, restarts=2)
        assert torch.equal(again.images[index], found.images[index])
        assert again.forwards[index] == found.forwards[index]


@searching
@pytest.mark.parametrize("restarts", [1, 3])
def test_solved_examples_cost_nothing_more_and_the_passes_are_counted(attack, restarts):
    start, slope = middling(3), pictures(3, seed=1) + 0.1
    at_start = (start * slope).flatten(1).sum(1)
    threshold = at_start + torch.tensor([-0.1, 0.4 * 0.05 * slope[1].sum(), torch.inf])
    asked = []

    def counted(images, slope):
        asked.append(len(images))
        return (images * slope).flatten(1).sum(1)

    task = replace(linear(start, slope), function=counted, threshold=threshold)
    found = attack(task, Ball("linf", 0.05), steps=10, restarts=restarts)
    assert found.success.tolist() == [True, True, False]
    assert torch.equal(found.images[0], start[0])
    assert found.forwards[0] == 1
    assert found.backwards[0] == 0
    assert 1 <= found.backwards[1] < 10
    assert found.backwards[2] == 10 * restarts
    assert found.forwards[2] == 1 + 11 * restarts
    assert sum(asked) == found.forwards.sum()


@searching
def test_reaching_the_threshold_exactly_is_no_success(attack):
    flat = linear(pictures(2), torch.zeros(2, 3, 5, 5), threshold=0.0)
    assert not attack(flat, Ball("l2", 0.3), steps=2).success.any()


@searching
def test_the_generator_alone_decides_and_none_means_seed_0(attack):
    task = bowl(pictures(2), pictures(2, seed=1))
    ball = Ball("l2", 0.3)
    torch.manual_seed(5)
    default = attack(task, ball, steps=2).images
    torch.manual_seed(6)
    assert torch.equal(attack(task, ball, steps=2, generator=generator(0)).images, default)
    assert not torch.equal(attack(task, ball, steps=2, generator=generator(1)).images, default)


@searching
def test_restarts_begin_elsewhere_and_keep_the_best(attack):
    images, label = pictures(8), torch.zeros(8, dtype=torch.int64)
    task, ball = endlessly(Network(depth=12.0), images, label), Ball("linf", 0.2)
    once, often = (attack(task, ball, steps=5, restarts=restarts).value for restarts in (1, 4))
    assert (often >= once).all()
    assert (often > once + 0.01).any()


# Where there is no gradient


def squared(x, y):
    return (x - y).square().flatten(1).sum(1)


def test_pushing_away_from_an_image_needs_a_random_start():
    task, ball = push(Metric("squared", squared), middling(2)), Ball("l2", 0.3)
    stuck = pgd(task, ball, random_start=False)
    assert torch.equal(stuck.images, task.start)
    for attack in (pgd, apgd):
        assert attack(task, ball).value.tolist() == pytest.approx([0.09, 0.09], rel=1e-4)


def test_the_nan_behind_a_square_root_at_distance_0_is_explained():
    task, ball = push(Metric("root", lambda x, y: squared(x, y).sqrt()), middling(2)), Ball("l2", 0.3)
    with pytest.raises(ValueError, match=r"square root at distance 0.*begin at a random point"):
        pgd(task, ball, random_start=False)
    assert pgd(task, ball).value.tolist() == pytest.approx([0.3, 0.3], rel=1e-4)


def test_a_metric_without_a_gradient_is_refused():
    task = push(Metric("counting", lambda x, y: (x.detach() != y).flatten(1).sum(1).float()), middling(2))
    with pytest.raises(ValueError, match="no gradient"):
        apgd(task, Ball("l2", 0.3))


@pytest.mark.parametrize(
    ("attack", "options", "message"),
    [
        (pgd, {"steps": 0}, "steps is 0"),
        (pgd, {"steps": 2.5}, "steps is 2.5"),
        (pgd, {"step_size": -0.1}, "step_size is -0.1"),
        (pgd, {"momentum": -1.0}, "momentum -1.0"),
        (pgd, {"restarts": 2, "random_start": False}, "2 restarts from the same point"),
        (pgd, {"loss": "dlr"}, "unknown loss 'dlr'; choose margin or ce"),
        (apgd, {"steps": 0}, "steps is 0"),
        (apgd, {"restarts": 0}, "restarts is 0"),
        (apgd, {"loss": "dlr"}, "unknown loss 'dlr'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(attack, options, message, unchecked):
    with pytest.raises(ValueError, match=message):
        attack(bowl(middling(1), middling(1)), Ball("l2", 0.1), **options)
