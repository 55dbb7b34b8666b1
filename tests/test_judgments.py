"""Scores against judgments: equal to brute force, to scipy and to the published code, and honest about doubt."""

import math

import hypothesis
import hypothesis.strategies as st
import lpips as peer_package
import numpy as np
import pytest
import scipy.stats
import torch

from course_lib.judgments import (
    bootstrap_interval,
    human_ceiling,
    jnd_map,
    kendall,
    majority_ceiling,
    pearson,
    pearson_after_logistic,
    ranks,
    spearman,
    two_afc_agreement,
    two_afc_score,
)

VOTERS = 5
some = hypothesis.settings(max_examples=40)
few = st.integers(0, 6)  # few different values, so that ties are common
triplets = st.lists(st.tuples(few, few, st.integers(0, VOTERS)), min_size=1, max_size=12)
pairs = st.lists(st.tuples(few, st.integers(0, 3)), min_size=1, max_size=12).filter(lambda p: any(s for _, s in p))


def columns(rows, votes):
    """Columns of whole numbers as vectors; the last one as fractions of so many votes."""
    *distances, last = (torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True))
    return *distances, last / votes


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# 2AFC


@some
@hypothesis.given(triplets)
def test_two_afc_score_is_the_share_of_single_votes_agreed_with(rows):
    agreed = total = 0
    for a, b, for_p1 in rows:
        for vote in [1] * for_p1 + [0] * (VOTERS - for_p1):
            closer = 1 if b < a else 0 if a < b else None
            agreed += 0.5 if closer is None else closer == vote
            total += 1
    assert two_afc_score(*columns(rows, VOTERS)) == pytest.approx(agreed / total)


@some
@hypothesis.given(triplets)
def test_swapping_the_patches_and_the_votes_leaves_the_score(rows):
    d0, d1, judge = columns(rows, VOTERS)
    assert two_afc_score(d1, d0, 1 - judge) == pytest.approx(two_afc_score(d0, d1, judge))


@some
@hypothesis.given(triplets)
def test_a_strictly_increasing_map_of_the_distances_leaves_the_score(rows):
    d0, d1, judge = columns(rows, VOTERS)
    assert two_afc_score(d0**3 - 9, d1**3 - 9, judge) == two_afc_score(d0, d1, judge)


@some
@hypothesis.given(triplets)
def test_no_metric_scores_above_the_majority_ceiling_and_siding_with_the_majority_reaches_it(rows):
    d0, d1, judge = columns(rows, VOTERS)
    ceiling = majority_ceiling(judge)
    assert two_afc_score(d0, d1, judge) <= ceiling + 1e-12
    assert two_afc_score(judge, 1 - judge, judge) == pytest.approx(ceiling)
    assert 0.5 <= human_ceiling(judge) <= ceiling + 1e-12


def test_ties_count_half_whatever_the_votes():
    d, judge = torch.tensor([0.0, 0.3, math.inf]), torch.tensor([0.0, 0.7, 1.0])
    assert two_afc_agreement(d, d, judge).tolist() == [0.5, 0.5, 0.5]


def test_whole_number_votes_are_scored_like_fractions(unchecked):
    d0, d1 = torch.tensor([1.0, 1.0, 2.0]), torch.tensor([1.0, 2.0, 1.0])
    assert two_afc_score(d0, d1, torch.tensor([1, 1, 1])) == 0.5


def test_human_ceiling_is_the_expected_score_of_one_random_person():
    judge = torch.randint(0, VOTERS + 1, (50,), generator=generator()) / VOTERS
    scores = []
    for seed in range(1000):
        says_p1 = torch.rand(50, generator=generator(seed)) < judge
        scores.append(two_afc_score(says_p1.float(), 1 - says_p1.float(), judge))
    error = np.std(scores) / len(scores) ** 0.5
    assert error < 2e-3
    assert human_ceiling(judge) == pytest.approx(np.mean(scores), abs=4 * error)


def test_unbiased_human_ceiling_is_the_agreement_of_two_different_voters():
    for_p1 = torch.tensor([0, 1, 2, 5, 3, 4, 4])
    agreements = []
    for k in for_p1.tolist():
        votes = [1] * k + [0] * (VOTERS - k)
        agreements += [votes[i] == votes[j] for i in range(VOTERS) for j in range(VOTERS) if i != j]
    biased = human_ceiling(for_p1 / VOTERS)
    assert (VOTERS * biased - 1) / (VOTERS - 1) == pytest.approx(np.mean(agreements))
    assert biased > np.mean(agreements) + 0.05


# JND


def average_precision(rows):
    """Area under the envelope, one threshold after the other, in plain Python."""
    everything, points = sum(s / 3 for _, s in rows), []
    for threshold in sorted({d for d, _ in rows}):
        called = [s / 3 for d, s in rows if d <= threshold]
        points.append((sum(called) / everything, sum(called) / len(called)))
    area = before = 0.0
    for i, (recall, _) in enumerate(points):
        area += (recall - before) * max(precision for _, precision in points[i:])
        before = recall
    return area


@some
@hypothesis.given(pairs)
def test_jnd_map_is_the_area_under_the_envelope_with_ties_together(rows):
    assert jnd_map(*columns(rows, 3)) == pytest.approx(average_precision(rows))


@pytest.mark.parametrize("seed", range(20))
def test_jnd_map_equals_the_published_code_where_no_two_distances_are_equal(seed):
    n = 3 + 5 * seed
    distance = torch.randperm(n, generator=generator(seed)).double()
    same = torch.randint(0, 4, (n,), generator=generator(seed + 100)).double() / 3
    same[0] = 1 / 3
    ranked = same[distance.argsort()].numpy()
    true = np.cumsum(ranked)
    expected = peer_package.voc_ap(true / true[-1], true / np.arange(1, n + 1))
    assert jnd_map(distance, same) == pytest.approx(expected)


@some
@hypothesis.given(pairs, st.randoms(use_true_random=False))
def test_jnd_map_does_not_depend_on_the_order_of_the_pairs_or_the_scale_of_the_distance(rows, random):
    distance, same = columns(rows, 3)
    score = jnd_map(distance, same)
    order = random.sample(range(len(rows)), len(rows))
    assert jnd_map(distance[order], same[order]) == pytest.approx(score)
    assert jnd_map(distance**3 - 9, same) == pytest.approx(score)


def test_jnd_map_of_known_rankings():
    distance = torch.arange(4.0)
    assert jnd_map(distance, torch.ones(4)) == 1
    assert jnd_map(distance, torch.tensor([1.0, 1, 0, 0])) == 1
    assert jnd_map(distance, torch.tensor([0.0, 0, 0, 1])) == 0.25
    assert jnd_map(distance, torch.full((4,), 1 / 3)) == pytest.approx(1 / 3)
    assert jnd_map(torch.zeros(4), torch.tensor([1.0, 0, 0, 0])) == 0.25  # one group: the order says nothing


# Correlations


@some
@hypothesis.given(st.lists(st.tuples(few, few), min_size=2, max_size=15))
def test_correlations_equal_scipy_with_ties_and_are_nan_where_nothing_varies(rows):
    x, y = (torch.tensor(column, dtype=torch.float64) / 10 for column in zip(*rows, strict=True))
    oracles = {
        pearson: scipy.stats.pearsonr,
        spearman: scipy.stats.spearmanr,
        kendall: scipy.stats.kendalltau,
    }
    for ours, theirs in oracles.items():
        if len(x.unique()) == 1 or len(y.unique()) == 1:
            assert math.isnan(ours(x, y))
        else:
            assert ours(x, y) == pytest.approx(theirs(x.numpy(), y.numpy()).statistic, abs=1e-9)
    assert ranks(x).tolist() == scipy.stats.rankdata(x.numpy()).tolist()


@pytest.mark.parametrize("slope", [1, -1], ids=["rising", "falling"])
def test_correlation_after_logistic_fit_is_one_for_logistic_opinions_and_more_than_the_linear_one(slope):
    d = 3 * torch.rand(40, generator=generator(), dtype=torch.float64)
    opinion = 0.2 + 0.7 * torch.sigmoid(slope * (d - 1.2) / 0.1)
    assert pearson_after_logistic(d, opinion) == pytest.approx(1, abs=1e-6)
    assert abs(pearson(d, opinion)) < 0.95


@pytest.mark.parametrize("slope", [1, -1], ids=["rising", "falling"])
def test_correlation_after_logistic_fit_does_not_depend_on_the_scale_of_the_distance(slope):
    d = 3 * torch.rand(40, generator=generator(), dtype=torch.float64)
    noise = torch.randn(40, generator=generator(1), dtype=torch.float64)
    opinion = torch.sigmoid(slope * (d - 1.2) / 0.3) + 0.2 * noise
    correlation = pearson_after_logistic(d, opinion)
    assert abs(pearson(d, opinion)) < correlation < 0.99
    for scale, shift in [(1000, 7), (1e-4, -3), (-1, 0), (1, 100)]:
        assert pearson_after_logistic(scale * d + shift, opinion) == pytest.approx(correlation, abs=1e-5)


@pytest.mark.filterwarnings("error")
def test_a_curve_that_cannot_be_fitted_gives_nan_or_a_clear_line_and_no_warning():
    d = torch.arange(9.0)
    assert math.isnan(pearson_after_logistic(torch.ones(9), d))
    assert math.isnan(pearson_after_logistic(d, torch.ones(9)))
    assert pearson_after_logistic(d, (d > 4).float()) == pytest.approx(1)
    with pytest.raises(ValueError, match=r"^4 values say nothing about a curve with 4 parameters; give at least 5$"):
        pearson_after_logistic(d[:4], d[:4])


# Bootstrap


def coverage(values_of, groups, truth, data_sets=150):
    """How many of many data sets have an interval that holds the true mean."""
    inside = 0
    for seed in range(data_sets):
        x = values_of(generator(seed))
        low, high = bootstrap_interval(lambda i, x=x: x[i].mean().item(), len(x), groups, resamples=200, seed=seed)
        inside += low <= truth <= high
    return inside / data_sets


def test_interval_holds_the_true_mean_in_about_95_percent_of_data_sets():
    found = coverage(lambda g: torch.rand(60, generator=g) ** 2, None, 1 / 3)  # standard error of the share: 1.8 %
    assert 0.90 <= found <= 0.985


def test_only_whole_groups_give_honest_intervals_for_triplets_of_few_photographs():
    groups = torch.arange(30).repeat_interleave(4)

    def alike(g):
        return torch.randn(30, generator=g)[groups] + 0.1 * torch.randn(120, generator=g)

    assert 0.88 <= coverage(alike, groups, 0.0) <= 0.985
    assert coverage(alike, None, 0.0) < 0.8


def test_group_intervals_are_wider_for_correlated_groups():
    x = torch.randn(30, generator=generator()).repeat_interleave(4)
    single = bootstrap_interval(lambda i: x[i].mean().item(), 120)
    grouped = bootstrap_interval(lambda i: x[i].mean().item(), 120, torch.arange(30).repeat_interleave(4))
    assert 1.7 < (grouped[1] - grouped[0]) / (single[1] - single[0]) < 2.3  # twice: the root of the group size


def test_interval_follows_from_seed_level_and_data_and_moves_no_other_random_numbers():
    x = torch.rand(30, generator=generator())

    def interval(**options):
        return bootstrap_interval(lambda i: x[i].mean().item(), 30, **options)

    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    assert interval() == interval() != interval(seed=1)
    assert torch.equal(torch.rand(1), expected)
    low, high = interval(level=0.5)
    assert interval()[0] < low < x.mean() < high < interval()[1]


def test_resamples_without_a_score_do_not_count():
    distance, same = torch.arange(6.0), torch.tensor([1.0, 0, 0, 0, 0, 0])

    def score(i):
        return jnd_map(distance[i], same[i]) if same[i].any() else math.nan

    assert bootstrap_interval(score, 6) == (1, 1)  # the one pair that looks the same is always ranked first


# Clear refusals

D = torch.tensor([0.1, 0.2, 0.3])
V = torch.tensor([0.0, 0.6, 1.0])
REFUSED = {
    "no triplets": (lambda: two_afc_score(D[:0], D[:0], V[:0]), r"judge has shape \(0,\); give a vector of at least"),
    "a table": (lambda: human_ceiling(V[None]), r"judge has shape \(1, 3\); give a vector"),
    "no votes": (lambda: majority_ceiling(V[:0]), r"judge has shape \(0,\)"),
    "percent": (lambda: human_ceiling(100 * V), r"judge\[1\] is 60; it is a fraction of votes, from 0 to 1"),
    "minus": (lambda: two_afc_score(D, D, V - 1), r"judge\[0\] is -1; it is a fraction of votes, from 0 to 1"),
    "unknown": (lambda: majority_ceiling(V / 0), r"judge\[0\] is nan; it is a fraction"),
    "too few": (lambda: two_afc_score(D, D[:2], V), r"d1 has shape \(2,\), judge \(3,\); give one per vote"),
    "NaN": (lambda: two_afc_score(D, D.log() * math.nan, V), r"d1\[0\] is NaN; find out which images made it"),
    "JND too few": (lambda: jnd_map(D[:2], V), r"distance has shape \(2,\), same \(3,\); give one per vote"),
    "JND none": (lambda: jnd_map(D[:0], V[:0]), r"same has shape \(0,\)"),
    "JND NaN": (lambda: jnd_map(D * math.nan, V), r"distance\[0\] is NaN"),
    "JND percent": (lambda: jnd_map(D, 100 * V), r"same\[1\] is 60; it is a fraction"),
    "all differ": (lambda: jnd_map(D, 0 * V), "nobody called any pair the same, so there is no recall .*; add pairs"),
    "lengths": (lambda: kendall(D[:2], V), r"shapes \(2,\) and \(3,\); give two vectors of one length"),
    "lengths of ranks": (lambda: spearman(D, V[:1]), r"shapes \(3,\) and \(1,\); give two vectors of one length"),
    "NaN ranks": (lambda: spearman(D, V / 0), "there is NaN among the values to correlate; find out where"),
    "no data": (lambda: bootstrap_interval(lambda i: 0.0, 0), "n=0, .*; n and resamples start at 1"),
    "level": (lambda: bootstrap_interval(lambda i: 0.0, 3, level=95), r"level=95; .* level is in \(0, 1\)"),
    "groups": (lambda: bootstrap_interval(lambda i: 0.0, 3, torch.arange(2)), "2 groups for 3 triplets; give one for"),
    "no score": (lambda: bootstrap_interval(lambda i: math.nan, 3), "the score of all 1000 resampled data sets is NaN"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_input_is_refused_in_one_line_with_the_fix(name, unchecked):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
