"""Randomized smoothing: closed forms for linear decisions, honest confidence bounds, and abstention."""

import pytest
import torch
from scipy.stats import binom, norm

from course_lib.certification import certify_smoothed, largest_smoothed_radius, lower_bound_of_share, smoothed_2afc
from course_lib.data.triplets import Triplets
from course_lib.lpips import LPIPS
from tests.small_attacks import SQUARED, squared, triplets_at
from tests.small_certified import images

SIGMA = 0.05


def test_a_linear_decision_is_certified_almost_up_to_its_boundary_and_never_beyond():
    """Under noise it has probability Φ(distance / sigma), so the radius without sampling is the distance itself."""
    distances = [0.02, 0.05, 0.08, 0.1]
    ref, p0, p1 = triplets_at(distances)
    found = smoothed_2afc(SQUARED, ref, p0, p1, SIGMA, n=4000)
    assert found.decision.tolist() == [0] * 4
    assert (found.radius < torch.tensor(distances)).all()
    assert torch.allclose(found.radius, torch.tensor(distances), atol=0.2 * SIGMA)
    assert torch.allclose(found.share.double(), torch.tensor(norm.cdf(torch.tensor(distances) / SIGMA)), atol=0.04)
    other = smoothed_2afc(squared, ref, p1, p0, SIGMA, n=4000)
    assert other.decision.tolist() == [1] * 4 and torch.allclose(other.radius, -found.radius, atol=0.2 * SIGMA)


def test_it_abstains_where_the_samples_do_not_tell():
    ref, p0, p1 = triplets_at([0.0005])
    found = smoothed_2afc(SQUARED, ref, p0, p1, SIGMA, n=200)
    assert (found.decision.item(), found.radius.item()) == (-1, 0) and found.share.item() < 0.5
    assert smoothed_2afc(SQUARED, ref, ref, ref, SIGMA, n=50).decision.item() == -1  # always a tie


@pytest.mark.parametrize("p", [0.3, 0.51, 0.9, 0.999])
@pytest.mark.parametrize("n, alpha", [(100, 0.001), (1000, 0.05)])
def test_the_bound_is_above_the_true_share_with_probability_alpha_at_most(p, n, alpha):
    too_large = [k for k in range(n + 1) if lower_bound_of_share(k, n, alpha) > p]
    failure = binom.pmf(too_large, n, p).sum() if too_large else 0
    assert failure <= alpha * (1 + 1e-9)
    naive = [k for k in range(n + 1) if k / n > p]
    assert p > 0.99 or binom.pmf(naive, n, p).sum() > 0.3  # without a bound


def test_a_thousand_samples_cannot_give_more_than_two_and_a_half_sigma():
    assert largest_smoothed_radius(1.0) == pytest.approx(2.46, abs=0.005)
    assert largest_smoothed_radius(0.25, 1000, 0.001) == pytest.approx(0.25 * norm.ppf(0.001**0.001))
    ref, p0, p1 = triplets_at([0.9])
    found = smoothed_2afc(SQUARED, ref, p0, p1, SIGMA)
    assert found.radius.item() == pytest.approx(largest_smoothed_radius(SIGMA))


def test_noise_is_cut_off_at_0_and_1_before_the_metric_sees_it_and_the_candidates_have_none():
    seen = []

    def watched(x, y):
        seen.append((x, y))
        return squared(x, y)

    ref, p0, p1 = triplets_at([0.5])
    smoothed_2afc(watched, ref, p0, p1, 2.0, n0=3, n=5, batch_size=4)
    noisy = torch.cat([x for x, y in seen if torch.equal(y[0], p0[0])])
    assert len(noisy) == 8 and noisy.min() == 0 and noisy.max() == 1
    assert len({row.sum().item() for row in noisy}) == 8  # no sample both chooses and estimates
    assert all(torch.equal(y, y[:1].expand_as(y)) for _, y in seen)


def test_the_choice_is_not_estimated_with_the_samples_that_made_it():
    """With decisions that are coins, a bound from the choosing samples themselves would be wrong too often."""
    coins = torch.Generator().manual_seed(0)

    def coin(x, y):
        return torch.rand(len(x), generator=coins)

    ref = images(150)[0]
    found = smoothed_2afc(coin, ref, ref, ref, SIGMA, n0=50, n=50, alpha=0.05)
    certified = (found.decision >= 0).float().mean().item()
    assert certified < 0.05 + 3 * (0.05 * 0.95 / 150) ** 0.5
    counts = torch.tensor(binom.rvs(50, 0.5, size=4000, random_state=0))
    reused = [lower_bound_of_share(int(max(k, 50 - k)), 50, 0.05) > 0.5 for k in counts]
    assert sum(reused) / 4000 > 0.06


def test_lpips_gets_a_radius_too_and_the_same_one_for_the_same_seed():
    ref, p0, p1 = (torch.nn.functional.interpolate(part, 32) for part in images(2))
    options = {"n0": 4, "n": 12, "alpha": 0.1}
    found = smoothed_2afc(LPIPS("st-alex"), ref, p0, p1, 0.1, **options)
    again = smoothed_2afc("lpips-st-alex", ref, p0, p1, 0.1, **options, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found.radius, again.radius)
    assert found.radius.abs().max() <= largest_smoothed_radius(0.1, 12, 0.1) + 1e-6


def test_whole_data_become_a_table_in_which_abstention_is_wrong():
    ref, p0, p1 = ((255 * part).round().byte() for part in triplets_at([0.0001, 0.05, 0.2, 0.2]))
    data = Triplets("four", ref, p0, p1, torch.tensor([0.0, 0.0, 0.0, 1.0]))
    found = certify_smoothed(SQUARED, data, 0.1, (0.02, 0.1), n=300)
    assert found.decision.tolist()[1:] == [0, 0, 0]
    table = found.table(10)
    assert table.certified.tolist() == pytest.approx([(2 + int(found.decision[0] == 0)) / 4, 0.5, 0.25])
    assert "wrong with probability 0.001" in found.formula


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sigma": 0.0}, r"sigma is 0\.0, .*; use sigma > 0"),
        ({"n": 0}, "n 0"),
        ({"alpha": 1.0}, r"alpha 1\.0"),
        ({"distance": "nothing"}, "unknown metric 'nothing'"),
    ],
)
def test_what_makes_no_sense_is_one_clear_line(options, message):
    ref, p0, p1 = triplets_at([0.1])
    with pytest.raises(ValueError, match=message) as caught:
        smoothed_2afc(**{"distance": SQUARED, "ref": ref, "p0": p0, "p1": p1, "sigma": 0.1, **options})
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="use 0 <= k <= n"):
        lower_bound_of_share(5, 3, 0.1)
