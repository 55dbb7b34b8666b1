"""Radii, intervals and what they promise, against brute force in float64. The published formula breaks its promise."""

import math

import pytest
import torch

from course_lib.certification import radii
from course_lib.certification.radii import (
    cosine_2afc_radius,
    distance_interval,
    euclidean_2afc_radius,
    published_2afc_radius,
    published_counterexample,
    three_image_certified,
)

RADIUS = {"cosine": cosine_2afc_radius, "euclidean": euclidean_2afc_radius}


def some_embeddings(n=200, d=6, seed=0, dtype=torch.float64):
    """Triples of embeddings, of lengths from 0.05 to 5, p0 and p1 near the reference or far from it."""
    generator = torch.Generator().manual_seed(seed)
    ref, away_0, away_1 = torch.randn(3, n, d, generator=generator, dtype=torch.float64)
    near = 10 ** (torch.rand(n, 1, generator=generator, dtype=torch.float64) * 2 - 1.5)
    length = 10 ** (torch.rand(n, 1, generator=generator, dtype=torch.float64) * 2 - 1.3) / d**0.5
    return tuple((length * e).to(dtype) for e in (ref, ref + near * away_0, ref + near * away_1))


def plain_distance(kind, e, f):
    """Written as in a textbook, unlike the library's."""
    if kind == "euclidean":
        return (e - f).square().sum(-1).sqrt()
    return 1 - (e * f).sum(-1) / (e.square().sum(-1) * f.square().sum(-1)).sqrt()


def gap(kind, e, e_p0, e_p1):
    """d1 - d0: positive where p0 is closer."""
    return plain_distance(kind, e, e_p1) - plain_distance(kind, e, e_p0)


def smallest_flip(kind, e, e_p0, e_p1, steps=300):
    """Length of the smallest change of e that ties its decision, found by search: it knows distances, no formula.

    Each step linearises the gap and moves to the nearest point of the linear boundary (DeepFool with a projection
    towards the start); at the end a bisection puts the point on the boundary.
    """
    start, x = e, e.clone()
    for _ in range(steps):
        x = x.detach().requires_grad_(True)
        value = gap(kind, x, e_p0, e_p1)
        (slope,) = torch.autograd.grad(value.sum(), x)
        direction = slope / slope.norm(dim=1, keepdim=True)
        offset = value / slope.norm(dim=1) + (direction * (start - x)).sum(1)
        x = x.detach() + 0.5 * ((start - offset.detach()[:, None] * direction) - x.detach())
    change = x.detach() - start
    sign = gap(kind, start, e_p0, e_p1).sign()
    low, high = torch.zeros(len(e), dtype=e.dtype), torch.full((len(e),), 2.0, dtype=e.dtype)
    flipped = sign * gap(kind, start + high[:, None] * change, e_p0, e_p1) < 0
    for _ in range(60):
        middle = (low + high) / 2
        still = sign * gap(kind, start + middle[:, None] * change, e_p0, e_p1) > 0
        low, high = torch.where(still, middle, low), torch.where(still, high, middle)
    return torch.where(flipped, high * change.norm(dim=1), torch.inf)


@pytest.mark.parametrize("kind", RADIUS)
def test_the_radius_is_the_smallest_flip_that_a_search_finds(kind):
    embeddings = some_embeddings()
    radius = RADIUS[kind](*embeddings)
    assert torch.equal(radius.sign(), gap(kind, *embeddings).sign())
    found = smallest_flip(kind, *embeddings)
    assert found.isfinite().float().mean() > 0.9
    ratio = found / radius.abs()
    assert ratio.min() > 1 - 1e-6  # sound
    assert ratio.median() < 1 + 1e-6 and (ratio < 1 + 1e-6).float().mean() > 0.9  # and exact


@pytest.mark.parametrize("kind", RADIUS)
@pytest.mark.parametrize("share", [0.999999, 1.0001])
def test_the_worst_change_of_a_given_length_flips_exactly_beyond_the_radius(kind, share):
    e_ref, e_p0, e_p1 = some_embeddings(seed=1)
    radius = RADIUS[kind](e_ref, e_p0, e_p1)
    side = e_p0 - e_p1 if kind == "euclidean" else e_p0 / e_p0.norm(dim=1)[:, None] - e_p1 / e_p1.norm(dim=1)[:, None]
    moved = e_ref - share * radius[:, None] * side / side.norm(dim=1)[:, None]
    assert ((gap(kind, moved, e_p0, e_p1).sign() == radius.sign()) == (share < 1)).all()


@pytest.mark.parametrize("kind", RADIUS)
def test_no_random_or_optimised_change_inside_the_radius_flips(kind):
    e_ref, e_p0, e_p1 = some_embeddings(n=100, seed=2)
    radius = RADIUS[kind](e_ref, e_p0, e_p1)
    inside = radius.abs()[:, None] * (1 - 1e-9)
    x = e_ref + inside * torch.nn.functional.normalize(torch.randn(50, *e_ref.shape, dtype=torch.float64), dim=-1)
    for _ in range(30):  # projected gradient
        assert torch.equal(gap(kind, x, e_p0, e_p1).sign(), radius.sign().expand(50, -1))
        x.requires_grad_(True)
        (slope,) = torch.autograd.grad((radius.sign() * gap(kind, x, e_p0, e_p1)).sum(), x)
        step = x.detach() - 0.3 * inside * torch.nn.functional.normalize(slope, dim=-1) - e_ref
        x = e_ref + step * (inside / step.norm(dim=-1, keepdim=True)).clamp(max=1)


def test_the_published_formula_is_the_exact_one_divided_by_the_norm_and_flips_inside_where_that_is_below_1():
    e_ref, e_p0, e_p1 = some_embeddings(seed=3)
    exact, published = cosine_2afc_radius(e_ref, e_p0, e_p1), published_2afc_radius(e_ref, e_p0, e_p1)
    length = e_ref.norm(dim=1)
    assert torch.allclose(published, exact / length, rtol=1e-12)
    broken = smallest_flip("cosine", e_ref, e_p0, e_p1) < published.abs() * (1 - 1e-6)
    assert broken.any() and (length[broken] < 1).all()
    assert broken[length < 1].float().mean() > 0.8


def test_with_an_appended_one_the_published_formula_is_sound_for_the_decision_of_the_longer_vectors():
    embeddings = some_embeddings(seed=4)
    published = published_2afc_radius(*embeddings, appended=True)
    longer = [radii.append_one(e) for e in embeddings]
    assert torch.equal(published.sign(), gap("cosine", *longer).sign())
    assert (published.abs() <= cosine_2afc_radius(*longer).abs()).all()
    # an image moves the first coordinates only, so this is even further away
    x = embeddings[0] + torch.nn.functional.normalize(torch.randn(200, *embeddings[0].shape).double(), dim=-1) * (
        published.abs()[:, None] * 0.999999
    )
    moved = torch.cat([x, torch.ones_like(x[..., :1])], -1)
    assert torch.equal(gap("cosine", moved, *longer[1:]).sign(), published.sign().expand(200, -1))


def test_the_counterexample_flips_inside_what_the_published_formula_promises():
    found = published_counterexample()
    assert gap("cosine", *found[:3]).item() > 0 > gap("cosine", found.e_moved, *found[1:3]).item()
    assert found.true < (found.e_moved - found.e_ref).norm().item() < found.claimed
    assert found.claimed == pytest.approx(found.true / found.e_ref.norm().item())
    with pytest.raises(ValueError, match=r"length is 1, angle 0\.6"):
        published_counterexample(1)


@pytest.mark.parametrize("kind", RADIUS)
def test_ties_and_what_has_no_direction_have_radius_0_and_finite_gradients(kind):
    e, f = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, -1.0]])
    zero = torch.zeros(1, 2)
    cases = [(e, f, f), (e, e, e), (zero, zero, zero), (f, e, -e), (e, 1e-30 * e, 1e-30 * e)]
    if kind == "cosine":
        cases += [(zero, e, f), (e, f, 3 * f), (e, zero, f), (e, f, zero), (e, 1e-42 * e, f)]
    for case in cases:
        inputs = [part.clone().requires_grad_(True) for part in case]
        radius = RADIUS[kind](*inputs)
        assert radius.tolist() == [0], case
        for slope in torch.autograd.grad(radius.sum(), inputs):
            assert slope.isfinite().all(), case
    assert RADIUS[kind](e * math.nan, e, f).isnan().all()  # not called a tie


@pytest.mark.parametrize("kind", RADIUS)
def test_the_gradient_of_a_radius_is_that_of_finite_differences(kind):
    inputs = [e.requires_grad_(True) for e in some_embeddings(n=5, seed=5)]
    assert torch.autograd.gradcheck(RADIUS[kind], inputs)


@pytest.mark.parametrize("kind", RADIUS)
def test_float32_loses_little_and_half_precision_is_computed_in_float32(kind):
    embeddings = some_embeddings(dtype=torch.float32)
    exact = RADIUS[kind](*(e.double() for e in embeddings))
    assert torch.allclose(RADIUS[kind](*embeddings).double(), exact, rtol=1e-3, atol=1e-4)
    rounded = [e.bfloat16() for e in embeddings]
    assert torch.equal(RADIUS[kind](*rounded), RADIUS[kind](*(e.float() for e in rounded)))


def spun(e, eps, towards):
    """Move e by eps so that its direction turns towards another vector as much as eps allows."""
    along = e / e.norm(dim=1, keepdim=True)
    across = towards - (towards * along).sum(1, keepdim=True) * along
    across = across / across.norm(dim=1, keepdim=True)
    sine = (eps / e.norm(dim=1, keepdim=True)).clamp(max=1)
    return e + eps * ((1 - sine**2).sqrt() * across - sine * along)


@pytest.mark.parametrize("eps", [0.02, (0.05, 0.01, 0.0), (0.0, 0.03, 0.02)])
@pytest.mark.parametrize("kind", RADIUS)
def test_no_change_of_all_three_images_flips_a_decision_that_is_certified_against_it(kind, eps):
    embeddings = some_embeddings(n=400, seed=6)
    certified = three_image_certified(*embeddings, eps, kind=kind)
    assert 0.1 < certified.float().mean() < 0.9
    sign = gap(kind, *embeddings).sign()
    budgets = torch.tensor(eps if isinstance(eps, tuple) else (eps,) * 3, dtype=torch.float64)
    for attempt in range(3):
        x = torch.stack(embeddings)
        x += torch.nn.functional.normalize(torch.randn_like(x), dim=-1) * budgets[:, None, None] * (attempt > 0)
        for _ in range(40):
            x.requires_grad_(True)
            (slope,) = torch.autograd.grad((sign * gap(kind, *x)).sum(), x)
            step = x.detach() - 0.2 * budgets[:, None, None] * torch.nn.functional.normalize(slope, dim=-1)
            step = step - torch.stack(embeddings)
            shrink = (budgets[:, None, None] / step.norm(dim=-1, keepdim=True).clamp_min(1e-30)).clamp(max=1)
            x = torch.stack(embeddings) + step * shrink
        flipped = gap(kind, *x).sign() != sign
        assert flipped.any() and not (flipped & certified).any()


def test_the_angle_certificate_is_tight_in_the_plane():
    """Where all vectors lie in one plane, turning each by its arcsin flips exactly what is not certified."""
    e_ref, e_p0, e_p1 = some_embeddings(n=400, d=2, seed=7)
    for eps in (0.01, 0.1):
        certified = three_image_certified(e_ref, e_p0, e_p1, eps)
        sign = gap("cosine", e_ref, e_p0, e_p1).sign()
        closer, further = (torch.where(sign[:, None] > 0, *pair) for pair in ((e_p0, e_p1), (e_p1, e_p0)))
        turned = (spun(e_ref, eps, further), spun(closer, eps, -e_ref), spun(further, eps, e_ref))
        flipped = gap("cosine", *turned) < 0
        between = (e_ref * closer).sum(1) > 0  # the closer one not behind, where turning further brings it back
        assert not (flipped & certified).any() and (flipped & between).any()


def test_a_budget_that_reaches_the_origin_certifies_nothing_where_the_clamped_arcsine_would():
    """A vector whose direction is lost can point backwards, which is 180 degrees away, not 90."""
    ref = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    p0, p1 = ref.clone(), torch.tensor([[-0.5, 0.001]], dtype=torch.float64)
    eps = (0.0, 0.0, 0.5005)  # |p1| = 0.500001
    assert not three_image_certified(ref, p0, p1, eps).item()
    theta = [math.acos(1.0), math.acos(p1[0, 0].item() / p1.norm().item())]
    assert theta[1] - theta[0] > math.asin(min(1, eps[2] / p1.norm().item()))  # the bug certifies
    moved = p1 / p1.norm() * (p1.norm() - 0.5005)  # through the origin, to the other side
    assert (moved - p1).norm().item() <= 0.5005 + 1e-12
    assert radii.angle(ref, moved).item() < 0.01 and radii.angle(ref, p1).item() > 3
    zero = torch.zeros_like(ref)
    assert not three_image_certified(zero, p0, p1, 0).any()
    assert not three_image_certified(ref, zero, p1, 0).any()


def test_one_moved_reference_is_certified_by_its_radius_whenever_it_is_by_angles():
    embeddings = some_embeddings(n=500, seed=8)
    for kind in RADIUS:
        by_three = three_image_certified(*embeddings, (0.03, 0, 0), kind=kind)
        by_radius = RADIUS[kind](*embeddings).abs() > 0.03
        assert (by_radius | ~by_three).all() and (by_radius & ~by_three).any()


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("kind", RADIUS)
def test_no_change_leaves_the_interval_and_the_worst_reaches_its_ends(kind, both):
    e, f, _ = some_embeddings(n=300, seed=9)
    for eps in (0.02, 0.3):
        low, high = distance_interval(e, f, eps, kind=kind, both=both)
        for x, y in ((torch.randn_like(e), torch.randn_like(f)), (e - f, f - e), (f - e, e - f)):
            x, y = (eps * torch.nn.functional.normalize(side, dim=1) for side in (x, y))
            d = plain_distance(kind, e + x, f + both * y)
            assert (d > low - 1e-9).all() and (d < high + 1e-9).all()
        if kind == "euclidean":
            away = torch.nn.functional.normalize(e - f, dim=1)
            assert torch.allclose(plain_distance(kind, e + eps * away, f - both * eps * away), high)
            free = low > 0
            assert torch.allclose(plain_distance(kind, e - eps * away, f + both * eps * away)[free], low[free])
        else:
            keeps = (e.norm(dim=1) > eps) & ((f.norm(dim=1) > eps) | (not both))
            assert low[~keeps].eq(0).all() and high[~keeps].eq(2).all()
            ends = [plain_distance(kind, spun(e, eps, s * f), spun(f, eps, s * e) if both else f) for s in (1, -1)]
            inner = keeps & (low > 0) & (high < 2)
            assert inner.any()
            assert torch.allclose(ends[0][inner], low[inner], atol=1e-9)
            assert torch.allclose(ends[1][inner], high[inner], atol=1e-9)


def test_the_cosine_distance_keeps_its_digits_at_small_angles_and_has_no_nan_gradient():
    for angle in (1e-6, 1e-3, 1.0, math.pi):
        x = torch.tensor([[3.0, 0.0]])
        y = torch.tensor([[math.cos(angle), math.sin(angle)]])
        assert radii.distance(x, y, "cosine").item() == pytest.approx(2 * math.sin(angle / 2) ** 2, rel=1e-5)
        assert radii.angle(x, y).item() == pytest.approx(angle, rel=1e-6)
    for kind in radii.KINDS:
        x = torch.tensor([[3.0, 0.0], [0.0, 0.0]], requires_grad=True)
        d = radii.distance(x, torch.tensor([[3.0, 0.0], [1.0, 0.0]]), kind)
        (slope,) = torch.autograd.grad(d.sum(), x)
        assert d.tolist() == [0, 1] and slope.isfinite().all()


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda e: three_image_certified(e, e, e, -1), "eps is -1.0; it has to be a number of pixel units"),
        (lambda e: three_image_certified(e, e, e, math.nan), "eps is nan"),
        (lambda e: three_image_certified(e, e, e, (1, 2)), "eps has 2 numbers; give one, or three"),
        (lambda e: three_image_certified(e, e, e, 1, kind="l2"), "unknown kind 'l2'; choose cosine or euclidean"),
        (lambda e: distance_interval(e, e, math.inf), "eps is inf"),
        (lambda e: cosine_2afc_radius(e, e[:1], e), "give floating-point tensors of one shape"),
        (lambda e: euclidean_2afc_radius(e.int(), e, e), "of torch.int32"),
    ],
)
def test_what_makes_no_sense_is_one_clear_line(wrong, message, unchecked):
    with pytest.raises(ValueError, match=message) as caught:
        wrong(torch.ones(2, 3))
    assert "\n" not in str(caught.value)
