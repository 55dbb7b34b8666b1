"""Photographs: intact, split by photograph, cut reproducibly and never flat."""

import dataclasses

import numpy as np
import pytest
import skimage.data
import sklearn.datasets
import torch

from course_lib.data import photos


def test_pictures_equal_what_their_packages_load():
    loaded = photos.load("all")
    by_skimage = {name: getattr(skimage.data, name)() for name in ("astronaut", "chelsea", "rocket", "retina")}
    by_sklearn = {name: sklearn.datasets.load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    for name, picture in (by_skimage | by_sklearn).items():
        assert loaded[name].dtype == torch.uint8
        assert np.array_equal(loaded[name].permute(1, 2, 0).numpy(), picture), name


def test_no_photograph_is_in_two_splits_and_none_is_left_out():
    train, val, test = (photos.names(split) for split in ("train", "val", "test"))
    assert sorted(train + val + test) == sorted(photos.names("all")) == sorted(set(photos.PHOTOGRAPHS))
    assert test == ("chelsea", "china", "grace_hopper")


def test_both_views_of_the_motorcycle_are_one_photograph():
    assert {"motorcycle_left", "motorcycle_right"} <= photos.load("train").keys()
    assert len(photos.PHOTOGRAPHS) == len(photos.SOURCES) - 1
    assert photos.load(["motorcycle"]).keys() == {"motorcycle_left", "motorcycle_right"}


def test_a_loaded_picture_can_be_changed_without_changing_the_next_one():
    photos.load("test")["china"].zero_()
    assert photos.load("test")["china"].any()


def test_every_crop_is_a_window_of_its_photograph_at_full_scale(monkeypatch):
    monkeypatch.setattr(photos, "SCALES", (1.0,))
    images, photo = photos.crops("test", 6, size=32, seed=4)
    for image, index in zip(images, photo, strict=True):
        picture = photos.load("test")[photos.PHOTOGRAPHS[index]]
        starts = (picture[:, :-31, :-31] == image[:, :1, :1]).all(0).nonzero()
        assert any(torch.equal(picture[:, y : y + 32, x : x + 32], image) for y, x in starts.tolist())


@pytest.mark.parametrize(("split", "size"), [("train", 64), ("val", 48), ("test", 64), (["coffee", "china"], 96)])
def test_crops_come_evenly_from_the_photographs_of_their_split_and_are_never_flat(split, size):
    images, photo = photos.crops(split, 100, size, seed=1)
    assert images.shape == (100, 3, size, size) and images.dtype == torch.uint8
    assert {photos.PHOTOGRAPHS[i] for i in photo} == set(photos.names(split))
    counts = torch.bincount(photo)
    assert counts[counts > 0].max() - counts[counts > 0].min() <= 1
    assert not photos.is_flat(images).any()


def test_the_same_seed_cuts_the_same_crops_and_another_seed_others():
    first, again, other = (photos.crops("val", 40, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first.images, again.images) and torch.equal(first.photo, again.photo)
    assert not torch.equal(first.images, other.images)


def test_crops_hardly_ever_repeat():
    images = photos.crops("test", 600, seed=0).images
    assert len(images.flatten(1).unique(dim=0)) >= 595


def test_flat_means_little_contrast_inside_8_by_8_blocks():
    edge = torch.zeros(3, 64, 64, dtype=torch.uint8)
    edge[:, :, 32:] = 255
    faint = torch.randint(100, 103, (3, 64, 64), dtype=torch.uint8)
    texture = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    assert photos.is_flat(torch.stack([edge, faint, texture])).tolist() == [True, True, False]


def test_the_lpips_example_is_three_different_patches():
    ref, p0, p1 = photos.lpips_example()
    assert ref.shape == p0.shape == p1.shape == (1, 3, 64, 64)
    for patch in (ref, p0, p1):
        assert patch.min() >= 0 and 0.5 < patch.max() <= 1
    assert not torch.equal(ref, p0) and not torch.equal(ref, p1) and not torch.equal(p0, p1)
    assert "Redistribution" in (photos.EXAMPLE_FOLDER / "LICENSE").read_text()


def test_a_single_picture_is_a_float_batch_of_one():
    china = photos.single("china")
    assert china.shape == (1, 3, 427, 640) and china.dtype == torch.float32
    assert torch.equal((china[0] * 255).round().byte(), photos.load("test")["china"])


def test_describe_reports_every_picture_as_intact():
    assert {name: problem for name, _, _, problem in photos.describe()} == dict.fromkeys(photos.SOURCES)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sha256": "0" * 64}, ValueError, "astronaut.png has the wrong SHA-256"),
        ({"path": "skimage/data/nobody.png"}, FileNotFoundError, "nobody.png is missing"),
        ({"package": "no-such-package"}, FileNotFoundError, "pip install .*no-such-package"),
    ],
)
def test_a_changed_or_missing_file_is_named_with_its_fix(change, error, message):
    source = dataclasses.replace(photos.SOURCES["astronaut"], **change)
    with pytest.raises(error, match=message) as caught:
        source.read()
    assert "pip install" in str(caught.value) and "\n" not in str(caught.value)
    assert source.problem() == str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: photos.load("validation"), "unknown split 'validation'; use one of 'train', 'val', 'test', 'all'"),
        (lambda: photos.names(["astronaut", "camera"]), "unknown photograph 'camera'"),
        (lambda: photos.crops([], 3), "no photographs were named"),
        (lambda: photos.single("motorcycle"), "unknown picture 'motorcycle'; use one of .*motorcycle_left"),
        (lambda: photos.crops("test", 0), "at least 1"),
        (lambda: photos.crops("test", 3, size=301), "do not fit chelsea; use 8 to 300"),
    ],
)
def test_bad_requests_get_one_clear_line(unchecked, call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
