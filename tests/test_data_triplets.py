"""Triplets: well formed, regenerated as they were, judged by simulated observers as the provenance says."""

import hashlib

import numpy as np
import pytest
import torch

from course_lib import weights
from course_lib.data import SPLITS, photos, triplets
from course_lib.data.triplets import Triplets
from course_lib.lpips import LPIPS


def agreement(votes):
    p = votes.numpy() / triplets.OBSERVERS
    return np.mean(p**2 + (1 - p) ** 2)


def make(n=4, **changes):
    ref, p0, p1 = torch.randint(0, 256, (3, n, 3, 8, 8), dtype=torch.uint8)
    return Triplets(**{"name": "made up", "ref": ref, "p0": p0, "p1": p1, "judge": torch.rand(n)} | changes)


@pytest.fixture
def small_cache(monkeypatch, tmp_path):
    """A cache of its own, and only the first part of the validation split to make."""
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.setitem(triplets.SIZES, "val", triplets.PART)
    shipped = triplets._shipped
    monkeypatch.setattr(triplets, "_shipped", lambda split, key: shipped(split, key)[: triplets.SIZES[split]])
    return tmp_path


@pytest.fixture(scope="module")
def part():
    return triplets.make_part("test", 1)


def test_regenerated_triplets_are_the_ones_that_were_judged(part):
    record = triplets.provenance()
    assert triplets.fingerprint(part) == pytest.approx(record["fingerprints"]["test"][1], abs=0.5)
    sample = torch.arange(0, triplets.PART, 12)[:40]
    ref, p0, p1 = (images[sample].float() / 255 for images in part[:3])
    with torch.no_grad():
        d0, d1 = LPIPS("st-vgg").triplet_distances(ref, p0, p1)
    shipped0, shipped1 = (d[triplets.PART + sample] for d in triplets.simulated_distances("test"))
    close = torch.isclose(d0, shipped0, rtol=0.02, atol=2e-3) & torch.isclose(d1, shipped1, rtol=0.02, atol=2e-3)
    assert close.float().mean() >= 0.95  # another JPEG decoder or processor may move a few pixels


@pytest.mark.parametrize("split", SPLITS)
def test_shipped_votes_follow_from_the_shipped_distances_tau_and_seed(split):
    d0, d1 = triplets.simulated_distances(split)
    votes = triplets._shipped(split, "votes")
    again = triplets.simulate_votes(d0, d1, triplets.provenance()["tau"], triplets.vote_generator(split))
    assert len(votes) == triplets.SIZES[split] and votes.dtype == torch.uint8 and votes.max() == triplets.OBSERVERS
    assert torch.equal(votes, again)


def test_simulated_observers_agree_as_people_do_on_bapps_traditional():
    measured = {split: agreement(triplets._shipped(split, "votes")) for split in SPLITS}
    assert measured["train"] == pytest.approx(0.81, abs=1e-3)  # tau was set here
    assert measured == pytest.approx(triplets.provenance()["mean_agreement"], abs=1e-4)
    assert all(0.78 < value < 0.84 for value in measured.values())


def test_provenance_names_the_weights_that_made_the_votes():
    record = triplets.provenance()
    assert record["weights_sha256"] == hashlib.sha256(weights.locate("st-vgg").read_bytes()).hexdigest()
    assert record["triplets"] == triplets.SIZES
    assert record["photographs"] == {split: list(photos.names(split)) for split in SPLITS}
    assert "simulated" in record["what"]
    assert triplets.VOTES.stat().st_size < 200_000


@pytest.mark.parametrize(("d0", "d1", "tau"), [(0.3, 0.1, 0.2), (0.1, 0.3, 0.2), (0.5, 0.5, 0.01), (0.2, 0.15, 0.5)])
def test_observers_choose_p1_as_often_as_the_sigmoid_says(d0, d1, tau):
    n = 20_000
    votes = triplets.simulate_votes(torch.full((n,), d0), torch.full((n,), d1), tau, torch.Generator().manual_seed(0))
    assert votes.float().mean().item() / 5 == pytest.approx(1 / (1 + np.exp((d1 - d0) / tau)), abs=0.01)
    assert len(votes.unique()) == 6


def test_references_are_real_crops_and_both_candidates_differ_from_them(part):
    assert part.ref.shape == part.p0.shape == part.p1.shape == (triplets.PART, 3, 64, 64)
    assert {photos.PHOTOGRAPHS[i] for i in part.photo} == set(photos.names("test"))
    assert not photos.is_flat(part.ref).any()
    for candidate in (part.p0, part.p1):
        assert (candidate != part.ref).flatten(1).any(1).float().mean() > 0.97
    assert (part.p0 != part.p1).flatten(1).any(1).all()


def test_loading_reads_the_cache_the_second_time_and_gives_the_same(small_cache, monkeypatch):
    first = triplets.simulated("val")
    monkeypatch.setattr(triplets, "make_part", None)
    again = triplets.simulated("val")
    assert len(first) == triplets.PART and first.name == "simulated (val)"
    assert {photos.PHOTOGRAPHS[i] for i in first.photo} == set(photos.names("val"))
    for part in ("ref", "p0", "p1", "judge", "photo"):
        assert torch.equal(getattr(first, part), getattr(again, part))
    assert first.distortion == again.distortion and len(first.distortion) == len(first)


DAMAGE = {
    "cut off": lambda content: content[: len(content) // 2],
    "overwritten": lambda content: content[:5000] + b"?" * 50 + content[5050:],
    "empty": lambda content: b"",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_cache_file_is_noticed_and_made_again(small_cache, monkeypatch, damage):
    made = triplets._cached_part("val", 0)
    (file,) = small_cache.glob("*.npz")
    intact = file.read_bytes()
    file.write_bytes(damage(intact))
    monkeypatch.setattr(triplets, "make_part", lambda split, number: made)
    assert torch.equal(triplets._cached_part("val", 0).ref, made.ref)
    assert file.read_bytes() == intact


def test_an_outdated_cache_file_is_neither_used_nor_kept(small_cache, monkeypatch):
    part = triplets._cached_part("val", 0)
    (old,) = small_cache.glob("*.npz")
    monkeypatch.setattr(triplets, "_images_version", lambda: "another")
    monkeypatch.setattr(triplets, "make_part", lambda split, number: part)
    triplets._cached_part("val", 0)
    assert [file.name for file in small_cache.glob("*.npz")] == ["simulated-val-00-another.npz"]
    assert old.name != "simulated-val-00-another.npz"


def test_images_that_the_votes_do_not_belong_to_are_refused_and_not_cached(small_cache, monkeypatch, part):
    monkeypatch.setattr(triplets, "make_part", lambda split, number: part)
    with pytest.raises(RuntimeError, match="the shipped votes do not belong to it"):
        triplets.simulated("val")
    assert not list(small_cache.iterdir())


def test_one_item_and_a_batch_are_floats_in_0_to_1_and_the_judgment():
    data = make()
    item = data[2]
    assert item.ref.shape == (3, 8, 8) and item.ref.dtype == torch.float32
    assert torch.equal((item.p1 * 255).round().byte(), data.p1[2]) and item.judge == data.judge[2]
    assert data[1:3].ref.shape == (2, 3, 8, 8)


def test_batches_cover_every_triplet_once_in_order_or_shuffled():
    data = make(10, judge=torch.arange(10) / 10)
    in_order = torch.cat([batch.judge for batch in data.batches(4)])
    shuffled = torch.cat([batch.judge for batch in data.batches(4, torch.Generator().manual_seed(1))])
    assert [len(batch.ref) for batch in data.batches(4)] == [4, 4, 2]
    assert torch.equal(in_order, data.judge)
    assert torch.equal(shuffled.sort().values, data.judge) and not torch.equal(shuffled, data.judge)


def test_a_torch_data_loader_collates_triplets():
    batch = next(iter(torch.utils.data.DataLoader(make(), batch_size=3)))
    assert batch.p0.shape == (3, 3, 8, 8) and batch.judge.shape == (3,)


def test_selecting_by_photograph_keeps_everything_aligned():
    data = make(4, photo=torch.tensor([3, 1, 3, 0]), distortion=[("a", "b"), ("c", "d"), ("e", "f"), ("g", "h")])
    chosen = data.select(data.photo == 3)
    assert torch.equal(chosen.ref, data.ref[[0, 2]]) and torch.equal(chosen.judge, data.judge[[0, 2]])
    assert chosen.photo.tolist() == [3, 3] and chosen.distortion == [("a", "b"), ("e", "f")]
    assert torch.equal(data.select(torch.tensor([1, 0])).p1, data.p1[[1, 0]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"p1": torch.zeros(4, 3, 8, 9, dtype=torch.uint8)}, "one shape, not ref .*, p1 \\(4, 3, 8, 9\\)"),
        ({"judge": torch.tensor([0, 1, 5.0, 0])}, "judge\\[2\\] is 5; it is a fraction of votes"),
        ({"judge": torch.tensor([0, float("nan"), 0, 0])}, "judge\\[1\\] is nan"),
        ({"judge": torch.rand(3)}, "3 values of judge for 4 triplets"),
        ({"photo": torch.zeros(5, dtype=torch.int64)}, "5 values of photo for 4 triplets"),
    ],
)
def test_parts_that_do_not_fit_get_one_clear_line(unchecked, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        make(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("load", [triplets.simulated, triplets.simulated_distances])
def test_an_unknown_split_is_named(unchecked, load):
    with pytest.raises(ValueError, match="unknown split 'validation'; use one of 'train', 'val', 'test', 'all'"):
        load("validation")
