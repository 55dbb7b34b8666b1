"""Pairs behave like triplets; the simulated observers answer as their probability says."""

import math

import pytest
import torch

from course_lib.data import SPLITS, pairs, triplets
from course_lib.data.pairs import Pairs
from course_lib.data.triplets import Triplets


def make(n=4, **changes):
    p0, p1 = torch.randint(0, 256, (2, n, 3, 8, 8), dtype=torch.uint8)
    return Pairs(**{"name": "made up", "p0": p0, "p1": p1, "same": torch.rand(n)} | changes)


def test_one_pair_and_a_batch_are_floats_in_0_to_1_and_the_judgment():
    data = make()
    item = data[2]
    assert item.p0.shape == (3, 8, 8) and item.p0.dtype == torch.float32
    assert torch.equal((item.p1 * 255).round().byte(), data.p1[2]) and item.same == data.same[2]
    assert data[1:3].p1.shape == (2, 3, 8, 8)
    batch = next(iter(torch.utils.data.DataLoader(data, batch_size=3)))
    assert batch.p0.shape == (3, 3, 8, 8) and batch.same.shape == (3,)


def test_batches_of_pairs_cover_every_pair_once():
    data = make(10)
    shuffled = torch.cat([batch.same for batch in data.batches(4, torch.Generator().manual_seed(1))])
    assert torch.equal(torch.cat([batch.same for batch in data.batches(4)]), data.same)
    assert torch.equal(shuffled.sort().values, data.same.sort().values) and not torch.equal(shuffled, data.same)


def test_selecting_keeps_the_subset_of_pairs_and_triplets_aligned():
    chosen = make(photo=torch.tensor([3, 1, 3, 0]), subset=["a", "b", "c", "d"]).select(torch.tensor([2, 0]))
    assert chosen.subset == ["c", "a"] and chosen.photo.tolist() == [3, 3] and len(chosen) == 2
    ref = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    data = Triplets("made up", ref, ref, ref, torch.tensor([0.1, 0.2, 0.3]), subset=["cnn", "mix", "cnn"])
    kept = data.select(torch.tensor([True, False, True]))
    assert kept.subset == ["cnn", "cnn"] and torch.equal(kept.judge, torch.tensor([0.1, 0.3])) and len(data) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"p1": torch.zeros(4, 3, 8, 9, dtype=torch.uint8)}, "one shape, not p0 .*, p1 \\(4, 3, 8, 9\\)"),
        ({"same": torch.tensor([0, 1, 5.0, 0])}, "same\\[2\\] is 5; it is a fraction of votes"),
        ({"same": torch.rand(3)}, "3 values of same for 4 pairs"),
        ({"subset": ["cnn"]}, "1 values of subset for 4 pairs"),
    ],
)
def test_parts_that_do_not_fit_get_one_clear_line(unchecked, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        make(**changes)
    assert "\n" not in str(caught.value)


def test_simulated_pairs_are_both_pairs_of_every_simulated_triplet():
    data, source = pairs.simulated("val"), triplets.simulated("val")
    n = len(source)
    assert len(data) == 2 * n and data.name == "simulated (val)" and data.photographs == source.photographs
    assert torch.equal(data.p0[:n], source.ref) and torch.equal(data.p0[n:], source.ref)
    assert torch.equal(data.p1[:n], source.p0) and torch.equal(data.p1[n:], source.p1)
    assert torch.equal(data.photo, source.photo.repeat(2))
    assert torch.equal(data.same, pairs.simulated("val").same)


@pytest.mark.parametrize("split", SPLITS)
def test_simulated_observers_say_same_three_to_four_times_in_ten_and_follow_the_distance(split):
    same = pairs._simulated_answers(split).flatten()
    d = torch.cat(triplets.simulated_distances(split))
    assert 0.3 < same.mean() < 0.4
    assert set((same * pairs.OBSERVERS).round().int().tolist()) == {0, 1, 2, 3}
    for low, high in ((0, 0.05), (0.08, 0.12), (0.12, 0.16), (0.25, 1)):
        there = (d > low) & (d <= high)
        expected = sum(1 / (1 + math.exp((x - pairs.THRESHOLD) / pairs.TAU)) for x in d[there].tolist())
        assert same[there].mean().item() == pytest.approx(expected / int(there.sum()), abs=0.05)


def test_pairs_of_all_splits_have_the_answers_of_each():
    joined = torch.cat([pairs._simulated_answers(split) for split in SPLITS], dim=1)
    assert joined.shape == (2, sum(triplets.SIZES.values()))
    assert not torch.equal(joined[:, :1000], pairs._simulated_answers("val"))


def test_an_unknown_split_of_pairs_is_named(unchecked):
    with pytest.raises(ValueError, match="unknown split 'dev'; use one of 'train', 'val', 'test', 'all'"):
        pairs.simulated("dev")
