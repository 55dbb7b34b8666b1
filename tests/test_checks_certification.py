"""Answers to chapter 12's exercises that are right, but written otherwise than the solution, pass."""

import math

import pytest
import torch
from scipy.stats import binomtest, norm
from torch import nn
from torch.nn import functional as F

from course_lib import certification as library
from course_lib.checks import certification as check
from course_lib.checks.certification import own, radii
from tests.test_checks import line_of


def projects_on_the_normal(ref, p0, p1):
    return ((ref - (p0 + p1) / 2) * F.normalize(p0 - p1, dim=1)).sum(1)


def turns_inside_the_plane(ref, p0, p1):
    normal = F.normalize(F.normalize(p0, dim=1) - F.normalize(p1, dim=1), dim=1)
    return torch.einsum("nd,nd->n", ref, normal)


def clamps_with_relu(x, y, eps, constant, both):
    d, reach = torch.linalg.vector_norm(x - y, dim=1), constant * (eps + eps * both)
    return torch.relu(d - reach), d + reach


def asks_with_infinity(ref, p0, p1, eps):
    def turn(e, one):
        length = torch.linalg.vector_norm(e, dim=1)
        return torch.where(length > one, torch.asin((one / length).clamp(max=1)), torch.inf)

    theta = [library.radii.angle(ref, p) for p in (p0, p1)]
    return (theta[1] - theta[0]).abs() > 2 * turn(ref, eps[0]) + turn(p0, eps[1]) + turn(p1, eps[2])


def counts_in_a_loop(radius, judge, eps):
    pairs = [(r, j) for r, j in zip(radius.tolist(), judge.tolist(), strict=True) if j != 0.5]
    return sum(r > eps if j < 0.5 else r < -eps for r, j in pairs) / len(pairs)


def asks_image_by_image(decide, ref, sigma, n0, n, alpha, generator):
    votes = [int(decide(ref[None] + sigma * torch.randn(1, *ref.shape, generator=generator))) for _ in range(n0 + n)]
    decision = int(2 * sum(votes[:n0]) > n0)
    hits = sum(vote == decision for vote in votes[n0:])
    bound = binomtest(hits, n, alternative="greater").proportion_ci(1 - alpha, method="exact").low
    return (decision, sigma * norm.ppf(bound)) if bound > 0.5 else (-1, 0)


def asks_for_all_at_once(decide, ref, sigma, n0, n, alpha, generator):
    votes = decide(ref + sigma * torch.randn(n0 + n, *ref.shape, generator=generator))
    decision = (votes[:n0].float().mean() > 0.5).long()
    bound = library.lower_bound_of_share(int((votes[n0:] == decision).sum()), n, alpha)
    radius = sigma * torch.special.ndtri(torch.tensor(bound)) if bound > 0.5 else torch.tensor(0.0)
    return (decision if bound > 0.5 else torch.tensor(-1)), radius


def writes_out_the_hinge(ref, p0, p1, judge, margin):
    r = projects_on_the_normal(ref, p0, p1)
    return torch.stack([(1 - judge) * (margin - r).clamp_min(0), judge * (margin + r).clamp_min(0)]).sum(0).mean()


RIGHT = [
    (check.cosine_radius, library.cosine_2afc_radius),
    (check.cosine_radius, turns_inside_the_plane),
    (check.euclidean_radius, library.euclidean_2afc_radius),
    (check.euclidean_radius, projects_on_the_normal),
    (check.interval, clamps_with_relu),
    (check.three_image_certified, library.three_image_certified),
    (check.three_image_certified, asks_with_infinity),
    (check.certified_accuracy, counts_in_a_loop),
    (check.smoothed, asks_image_by_image),
    (check.smoothed, asks_for_all_at_once),
    (check.radius_hinge, library.radius_hinge),
    (check.radius_hinge, writes_out_the_hinge),
]


@pytest.mark.parametrize(("checked", "answer"), RIGHT, ids=[answer.__name__ for _, answer in RIGHT])
def test_right_answer_in_other_words_passes(checked, answer, capsys):
    assert line_of(capsys, checked, answer) == (True, f"✓ {checked.number} {checked.__name__}: passed")


@pytest.mark.parametrize(
    ("oracle", "cost"),
    [
        (radii._cosine_oracle, lambda e, p: -F.cosine_similarity(e, p)),
        (radii._euclidean_oracle, lambda e, p: (e - p).norm(dim=1)),
    ],
)
def test_oracle_of_a_radius_is_the_shortest_way_to_another_decision(oracle, cost):
    ref, p0, p1 = torch.tensor([[[0.9, 0.2]], [[1.4, 0.9]], [[0.6, -0.8]]], dtype=torch.float64)
    radius = oracle(ref, p0, p1).item()
    angles = torch.linspace(0, 2 * math.pi, 3601, dtype=torch.float64)
    ring = torch.stack([angles.cos(), angles.sin()], 1)
    closer = (cost(ref, p1) - cost(ref, p0)).sign()

    def flips(length):
        moved = ref + length * ring
        return bool(((cost(moved, p1) - cost(moved, p0)).sign() != closer).any())

    assert radius * closer.item() > 0
    assert not flips(0.999 * abs(radius)) and flips(1.001 * abs(radius))


def test_scores_of_pixel_l2_are_those_of_the_library():
    found = own.scores(nn.Flatten(), "val")
    every = torch.arange(0, 1000, 2)
    certified = library.certify(library.pixel_l2(), library.labels.simulated("val").select(every), list(own.EPS[1:]))
    assert found[0.0] == pytest.approx(certified.accuracy(), abs=1e-9)
    for eps in own.EPS[1:]:
        assert found[eps] == pytest.approx(certified.accuracy(eps), abs=1e-9)
