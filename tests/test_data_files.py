"""Judgments in files: the same as in memory, checked when opened, read when needed."""

import json
import os
import pickle
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.data import files
from course_lib.data.files import PairFiles, TripletFiles
from tests.trees import cut_off, save_picture

VOTES = torch.tensor([0, 0.25, 0.5, 1])


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def columns(tmp_path):
    names = ("ref", "p0", "p1")
    return [[save_picture(tmp_path / f"{c}{i}.png", 10 * i + k) for i in range(4)] for k, c in enumerate(names)]


def refused(columns, **options):
    with pytest.raises(ValueError) as caught:
        TripletFiles("mine", *columns, **{"judge": VOTES} | options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_items_are_the_pixels_of_the_files(columns):
    data = TripletFiles("mine", *columns, VOTES)
    item, batch = data[2], data[torch.tensor([3, 0])]
    expected = [np.array(Image.open(column[2])).transpose(2, 0, 1) / np.float32(255) for column in columns]
    for image, pixels in zip(item[:3], expected, strict=True):
        assert image.dtype == torch.float32 and np.array_equal(image.numpy(), pixels)
    assert item.judge == 0.5 and batch.judge.tolist() == [1, 0] and torch.equal(batch.p1[0], data[3].p1)
    assert torch.equal(data[-1].ref, data[3].ref)
    assert torch.equal(data[VOTES > 0.3].p0, data[2:].p0) and data[:0].ref.shape == (0, 3, 16, 16)
    assert repr(data) == "TripletFiles('mine', 4 items of 16 x 16 pixels)"
    with pytest.raises(IndexError):
        data[4]


@pytest.mark.parametrize("size", [None, 7])
def test_loading_gives_the_same_in_memory(columns, size):
    subset, photo = ["a", "b", "a", "b"], torch.tensor([1, 1, 0, 0])
    data = TripletFiles("mine", *columns, VOTES, subset, photo, ("x", "y"), size)
    loaded = data.load()
    assert loaded.ref.dtype == torch.uint8 and loaded.ref.shape[-1] == (size or 16)
    for streamed, kept in zip(data[:], loaded[:], strict=True):
        assert torch.equal(streamed, kept)
    assert (loaded.name, loaded.subset, loaded.photographs) == ("mine", subset, ("x", "y"))
    pairs = PairFiles("pairs", columns[0], columns[1], VOTES, subset, photo, ("x", "y"), size)
    assert all(torch.equal(a, b) for a, b in zip(pairs[:], pairs.load()[:], strict=True))
    assert pairs.load().subset == subset and torch.equal(pairs.load().photo, photo)


def test_selecting_and_batches_are_those_of_the_data_in_memory(columns):
    data = TripletFiles("mine", *columns, VOTES, subset=["a", "b", "a", "b"])
    loaded = data.load()
    mask = torch.tensor([True, False, True, False])
    assert data.select(mask).subset == ["a", "a"] and len(data) == 4
    assert torch.equal(data.select(mask)[:].ref, loaded.select(mask)[:].ref)
    shuffled = [list(d.batches(3, torch.Generator().manual_seed(2))) for d in (data, loaded)]
    for mine, theirs in zip(*shuffled, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize("keep", [False, True])
def test_a_data_loader_reads_with_other_processes(columns, keep):
    data = TripletFiles("mine", *columns, VOTES, keep=keep)
    batches = list(torch.utils.data.DataLoader(data, batch_size=2, num_workers=1, multiprocessing_context="fork"))
    assert torch.equal(torch.cat([batch.p1 for batch in batches]), data[:].p1)
    assert torch.equal(pickle.loads(pickle.dumps(data))[:].ref, data[:].ref)


def test_streaming_keeps_no_picture_that_it_has_read(columns, monkeypatch):
    read, living, most = files.read_pixels, weakref.WeakSet(), []

    def watched(*arguments):
        most.append(len(living))
        pixels = read(*arguments)
        living.add(pixels)
        return pixels

    data = PairFiles("mine", columns[0] * 50, columns[1] * 50, VOTES.repeat(50))
    monkeypatch.setattr(files, "read_pixels", watched)
    sizes = [batch.p0.untyped_storage().nbytes() for batch in data.batches(20)]
    assert len(most) == 400 and max(most) <= 1
    assert sizes == [20 * 3 * 16 * 16 * 4] * 10


def test_kept_pictures_are_read_once(columns, monkeypatch):
    data = TripletFiles("mine", *columns, VOTES, keep=True)
    first = data[:]
    monkeypatch.setattr(files, "read_pixels", None)
    assert torch.equal(data[:].p1, first.p1)


def test_missing_files_are_counted_and_the_first_ones_named(columns):
    for column in columns[:2]:
        for path in column[:3]:
            path.unlink()
    message = refused(columns)
    assert message.startswith("mine has 6 problems: ")
    assert f"{columns[0][0]} is missing (No such file or directory)" in message
    assert message.count("is missing") == 4 and "; and 2 more; restore these files" in message


def test_damaged_files_are_named_with_what_is_wrong(columns):
    cut_off(columns[1][1])
    columns[2][3].write_text("not a picture")
    message = refused(columns)
    assert message.startswith("mine has 2 problems: ") and "replace or remove" in message
    assert f"{columns[1][1]} cannot be read: " in message and f"{columns[2][3]} is not a picture" in message


def test_pictures_of_several_sizes_are_refused_unless_they_are_resized(columns):
    save_picture(columns[2][1], 5, (20, 16))
    message = refused(columns)
    assert f"mine has 1 problem: {columns[2][1]} is 20 x 16 pixels, most are 16 x 16; " in message
    assert "size=64" in message
    assert TripletFiles("mine", *columns, VOTES, size=8)[:].p1.shape == (4, 3, 8, 8)
    assert "20 x 16" in refused(columns)  # what is fine with a size is not remembered as fine without


@pytest.mark.parametrize("vote", [1.5, -0.2, float("nan"), float("inf")])
def test_votes_outside_0_to_1_are_named(unchecked, columns, vote):
    message = refused(columns, judge=torch.tensor([0, 1, vote, 0.5]))
    assert (
        message == f"mine has 1 problem: judge of {columns[0][2]} is {vote:.3g}; give fractions of votes, from 0 to 1"
    )


def test_other_unusable_arguments_get_one_clear_line(unchecked, columns):
    assert refused([[], [], []], judge=torch.zeros(0)) == "mine is empty; it needs at least one item"
    assert "3 values of p1 for 4 items" in refused([*columns[:2], columns[2][:3]])
    assert "3 values of judge for 4 items" in refused(columns, judge=torch.zeros(3))
    assert "1 values of subset for 4 items" in refused(columns, subset=["a"])
    assert "size is 0" in refused(columns, size=0)
    assert "unknown resample 'nearest'; use one of 'bicubic', 'bilinear'" in refused(columns, resample="nearest")


def test_checked_files_are_not_decoded_again_until_one_changes(columns, monkeypatch, tmp_path):
    TripletFiles("mine", *columns, VOTES)
    decoded = []
    inspect = files._shape_or_problem
    monkeypatch.setattr(files, "_shape_or_problem", lambda path: decoded.append(path) or inspect(path))
    TripletFiles("mine", *columns, VOTES)
    assert not decoded
    columns[0][0].write_bytes(columns[1][0].read_bytes() + b" ")
    TripletFiles("mine", *columns, VOTES)
    assert len(decoded) == 12
    os.utime(columns[0][1], ns=(1, 1))
    TripletFiles("mine", *columns, VOTES)
    assert len(decoded) == 24
    for stamp in (tmp_path / "cache").iterdir():
        assert json.loads(stamp.read_text())["files"] == 12
        stamp.write_text("{")
    TripletFiles("mine", *columns, VOTES)
    assert len(decoded) == 36


def test_a_failed_check_is_not_remembered(columns, tmp_path):
    cut_off(columns[1][1])
    refused(columns)
    assert not list((tmp_path / "cache").iterdir())


def test_a_picture_that_breaks_later_is_named(columns):
    data = TripletFiles("mine", *columns, VOTES)
    cut_off(columns[1][1])
    save_picture(columns[2][2], 0, (9, 16))
    columns[0][3].unlink()
    assert data[0].ref.shape == (3, 16, 16)
    with pytest.raises(ValueError, match=r"p01.png cannot be read"):
        data[1]
    with pytest.raises(ValueError, match=r"p12.png is 9 x 16 pixels, but was 16 x 16 when it was checked"):
        data[:3:2]
    with pytest.raises(ValueError, match=r"ref3.png cannot be read: .*No such file"):
        data.load()
