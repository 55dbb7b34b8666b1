"""What LPIPS learns from: channel differences, heads, rankings, and differences that are kept in files."""

import lpips as peer_package
import pytest
import torch
from torch.nn import functional as F

from course_lib.judgments import (
    Differences,
    Heads,
    NetworkRanking,
    Ranker,
    SigmoidRanking,
    cache_differences,
    channel_differences,
)
from course_lib.judgments.ranking import RANKINGS
from course_lib.lpips import LPIPS, load_heads, unit_channels
from tests.small_judgments import WIDTHS, small_differences, small_triplets


def random_alex(seed=0):
    torch.manual_seed(seed)
    return LPIPS("alex", weights=None)


# Channel differences and heads


@pytest.mark.parametrize("metric", [LPIPS, random_alex], ids=["st-alex", "random alex"])
def test_channel_differences_times_calibrated_heads_are_the_distances(metric):
    metric = metric()
    ref, p0, p1, _ = small_triplets()[:8]
    heads = torch.cat(load_heads(metric.net))
    expected = metric.triplet_distances(ref, p0, p1)
    assert expected[0].max() > 1e-3
    for differences, distances in zip(channel_differences(metric.network.trunk, ref, p0, p1), expected, strict=True):
        assert differences.shape == (8, 1152)
        torch.testing.assert_close(differences @ heads, distances, atol=1e-5, rtol=1e-4)


def test_heads_put_into_lpips_give_the_distances_of_the_heads():
    metric, heads = LPIPS(calibrated=False), Heads((64, 192, 384, 256, 256)).eval()
    ref, p0, p1, _ = small_triplets()[:8]
    expected = [heads(d).detach() for d in channel_differences(metric.network.trunk, ref, p0, p1)]
    before = metric(ref, p0)
    metric.set_heads(heads.per_layer())
    torch.testing.assert_close(metric.triplet_distances(ref, p0, p1), tuple(expected), atol=1e-6, rtol=1e-4)
    assert (metric(ref, p0) - before).abs().mean() > 0.1


def test_heads_start_like_the_published_ones_and_never_below_zero():
    weight = torch.cat([Heads((400,) * 5).weight.detach() for _ in range(10)])  # uniform in ± 1/20, clamped
    assert weight.min() == 0 and 0.049 < weight.max() <= 0.05
    assert (weight == 0).float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert weight[weight > 0].mean().item() == pytest.approx(0.025, abs=0.001)


def test_clamp_changes_negative_weights_only():
    heads = Heads((3,))
    heads.weight.data.copy_(torch.tensor([-1.0, 0.0, 2.0]))
    heads.clamp()
    assert heads.weight.tolist() == [0, 0, 2]


# Dropout


def test_channel_dropout_drops_whole_channels_of_every_pair_on_its_own():
    heads = Heads((2,), dropout=0.5)
    heads.weight.data.copy_(torch.tensor([1.0, 10.0]))
    out = heads(torch.ones(4000, 2)).detach()
    shares = {value: (out == value).float().mean().item() for value in (0, 2, 20, 22)}
    assert sum(shares.values()) == 1
    assert all(share == pytest.approx(0.25, abs=0.035) for share in shares.values())  # 5 standard errors
    assert torch.equal(heads.eval()(torch.ones(4, 2)), torch.full((4,), 11.0))


def test_element_dropout_acts_before_the_average_and_changes_no_expectation():
    trunk, n = random_alex().network.trunk, 400
    ref, p0, p1, _ = small_triplets()[:1]
    features = [unit_channels(f) for f in (next(trunk.stream(images)) for images in (ref, p0))]
    elements = (features[0] - features[1]).square()[0].flatten(1)  # of the first layer: 64 channels, 49 positions
    again = [images.expand(n, -1, -1, -1) for images in (ref, p0, p1)]
    dropped = channel_differences(trunk, *again, dropout=0.5)[0][:, :64]
    variance = elements.square().sum(1) / elements.shape[1] ** 2  # each element is 0 or doubled
    assert (variance > 0).sum() > 30
    score = (dropped.mean(0) - elements.mean(1)) / (variance / n).sqrt().clamp_min(1e-12)
    assert score.abs().max() < 5
    ratio = (dropped.var(0) / variance)[variance > 0]
    assert 0.9 < ratio.median() < 1.1


# Rankings


def test_network_ranking_is_the_published_network():
    torch.manual_seed(1)
    ours, theirs = NetworkRanking(), peer_package.Dist2LogitLayer()
    layers = [layer for layer in theirs.model if isinstance(layer, torch.nn.Conv2d)]
    for own, layer in zip((ours.net[0], ours.net[2], ours.net[4]), layers, strict=True):
        own.weight.data.copy_(layer.weight.data[..., 0, 0])
        own.bias.data.copy_(layer.bias.data)
    d0, d1 = 3 * torch.rand(2, 200)
    d0[:20] = d1[20:40] = 0
    expected = theirs(d0.view(-1, 1, 1, 1), d1.view(-1, 1, 1, 1)).flatten()
    assert expected.std() > 1e-3
    torch.testing.assert_close(ours(d0, d1).sigmoid(), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", RANKINGS)
def test_loss_is_the_cross_entropy_of_predicted_and_given_votes(name):
    ranker = Ranker(Heads(WIDTHS).eval(), RANKINGS[name]()).eval()
    batch = small_differences(40)[:]
    d0, d1 = batch.d0 @ ranker.heads.weight, batch.d1 @ ranker.heads.weight
    p = ranker.ranking(d0, d1).double().sigmoid()
    expected = -(batch.judge * p.log() + (1 - batch.judge) * (1 - p).log()).mean()
    assert ranker.loss(batch).item() == pytest.approx(expected.item(), rel=1e-5)
    if name == "sigmoid":
        torch.testing.assert_close(p.float(), torch.sigmoid(d0 - d1))


def test_the_further_away_p0_the_likelier_is_p1():
    d0 = torch.linspace(0, 2, 9)
    p = SigmoidRanking()(d0, torch.ones(9)).sigmoid()
    assert (p.diff() > 0).all() and p[4] == 0.5


def test_the_loss_pulls_the_patch_closer_that_was_chosen():
    """One unit step against the gradient makes the chosen patch's distance fall and the other's rise."""
    heads = Heads((2,), dropout=0.0)
    heads.weight.data.fill_(1.0)
    batch = Differences(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([1.0]))
    Ranker(heads, SigmoidRanking()).loss(batch).backward()
    assert heads.weight.grad[0] < 0 < heads.weight.grad[1]  # channel 0 is p0's: it must count more


# Differences in memory and in files


def refuse(*_):
    raise AssertionError("an image went through the trunk")


def closed(metric):
    """The metric, with a trunk that lets no image pass."""
    metric.network.trunk.features[0].register_forward_pre_hook(refuse)
    return metric


def test_cached_differences_are_those_of_single_images(tmp_path):
    metric, data = random_alex(), small_triplets()
    ref, p0, p1, judge = data[:]
    d0, d1 = channel_differences(metric.network.trunk, ref, p0, p1)
    for folder in (None, tmp_path):
        cached = cache_differences(metric, data, batch_size=7, folder=folder)
        torch.testing.assert_close((cached.d0, cached.d1), (d0, d1), atol=1e-7, rtol=1e-4)
        assert torch.equal(cached.judge, judge) and torch.equal(cached.photo, data.photo)
        assert cached.widths == (64, 192, 384, 256, 256) and cached.name == data.name


def test_kept_differences_are_read_again_without_the_trunk(tmp_path):
    data = small_triplets()
    first = cache_differences(random_alex(), data, folder=tmp_path)
    second = cache_differences(closed(random_alex()), data, folder=tmp_path)
    assert torch.equal(first.d0, second.d0) and torch.equal(first.d1, second.d1)
    second.d0[0] = -1  # a copy on write: the file stays as it is
    assert torch.equal(cache_differences(closed(random_alex()), data, folder=tmp_path).d0, first.d0)


def same_weights_other_net():
    torch.manual_seed(0)
    return LPIPS("st-alex", weights=None)


def judged_otherwise():
    data = small_triplets().select(torch.arange(24))
    data.judge = 1 - data.judge
    return data


OTHERS = {
    "trunk": (lambda: random_alex(1), small_triplets),
    "net": (same_weights_other_net, small_triplets),
    "triplets": (random_alex, lambda: small_triplets(seed=5)),
    "fewer": (random_alex, lambda: small_triplets().select(torch.arange(9))),
    "votes": (random_alex, judged_otherwise),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_trunk_or_other_triplets_replace_what_was_kept(tmp_path, name):
    first = cache_differences(random_alex(), small_triplets(), folder=tmp_path)
    before = first.d0.clone()
    metric, data = (make() for make in OTHERS[name])
    with pytest.raises(AssertionError, match="went through the trunk"):
        cache_differences(closed(OTHERS[name][0]()), data, folder=tmp_path)
    second = cache_differences(metric, data, folder=tmp_path)
    assert torch.equal(second.d0, cache_differences(metric, data).d0) and torch.equal(second.judge, data.judge)
    assert torch.equal(first.d0, before)  # who holds the old ones keeps them


def damage(folder):
    (folder / "d1.npy").write_bytes((folder / "d1.npy").read_bytes()[:100])


@pytest.mark.parametrize("harm", [damage, lambda folder: (folder / "d0.npy").unlink()], ids=["damaged", "missing"])
def test_damaged_or_missing_files_are_made_again(tmp_path, harm):
    expected = cache_differences(random_alex(), small_triplets(), folder=tmp_path).d1.clone()
    harm(tmp_path)
    assert torch.equal(cache_differences(random_alex(), small_triplets(), folder=tmp_path).d1, expected)


def test_an_interrupted_pass_counts_as_unfinished(tmp_path, monkeypatch):
    data = small_triplets()
    expected = cache_differences(random_alex(), data).d0
    whole = type(data).batches

    def interrupted(self, size):
        yield next(whole(self, size))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(data), "batches", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cache_differences(random_alex(), data, batch_size=5, folder=tmp_path)
    assert (tmp_path / "d0.npy").exists()
    with pytest.raises(AssertionError, match="went through the trunk"):
        cache_differences(closed(random_alex()), data, folder=tmp_path)
    torch.testing.assert_close(cache_differences(random_alex(), data, folder=tmp_path).d0, expected)


def test_batches_of_differences_come_in_the_order_of_the_triplets():
    data = small_triplets()
    cached = cache_differences(random_alex(), data)
    for generators in ((None, None), (torch.Generator().manual_seed(4), torch.Generator().manual_seed(4))):
        ours, theirs = (list(d.batches(10, g)) for d, g in zip((cached, data), generators, strict=True))
        assert [len(batch.judge) for batch in ours] == [10, 10, 4]
        assert all(torch.equal(a.judge, b.judge) for a, b in zip(ours, theirs, strict=True))
    part = cached.select(data.photo == data.photo[3])
    assert torch.equal(part.d1, cached.d1[data.photo == data.photo[3]]) and (part.photo == data.photo[3]).all()


# Clear refusals


def test_nothing_to_compute_and_no_trunk_are_named(tmp_path):
    empty = small_triplets().select(torch.zeros(24, dtype=torch.bool))
    for folder in (None, tmp_path):
        with pytest.raises(ValueError, match="made up 0 is empty; give at least one triplet"):
            cache_differences(random_alex(), empty, folder=folder)
    with pytest.raises(ValueError, match="this ranker has no trunk; give it Differences, or build it with a trunk"):
        Ranker(Heads((64, 192, 384, 256, 256)), SigmoidRanking()).loss(small_triplets()[:2])


def test_a_perfect_prediction_costs_the_entropy_of_the_votes():
    judge = torch.tensor([0.2, 0.6, 0.8])
    heads = Heads((1,), dropout=0.0)
    heads.weight.data.fill_(1.0)
    logit = torch.logit(judge)
    batch = Differences(logit.clamp_min(0)[:, None], (-logit).clamp_min(0)[:, None], judge)
    entropy = F.binary_cross_entropy(judge, judge)
    assert Ranker(heads, SigmoidRanking()).loss(batch).item() == pytest.approx(entropy.item(), rel=1e-5)
