"""Cached targets are the teacher's embeddings, survive a kill, and refuse to be mistaken for others."""

import json
import multiprocessing
import os
import pickle
import signal
import time

import numpy as np
import pytest
import torch

from course_lib.distillation import ImageData, Targets, TargetsError, Teacher, TensorImages, cached_targets, targets


class Flat(torch.nn.Module):
    """A linear teacher, 48 pixels -> 5 numbers, that counts the images it has seen."""

    def __init__(self, seed=0, gain=1.0):
        super().__init__()
        self.matrix = torch.nn.Parameter(gain * torch.randn(48, 5, generator=torch.Generator().manual_seed(seed)))
        self.seen = 0

    def forward(self, images):
        self.seen += len(images)
        return images.flatten(1) @ self.matrix


def flat(**options):
    teacher = Teacher("flat", Flat(**options), dim=5)
    teacher.network.seen = 0
    return teacher


DATA = TensorImages("noise", torch.randint(256, (50, 3, 4, 4), generator=torch.Generator().manual_seed(1)).byte())


@pytest.mark.parametrize(("dtype", "rtol"), [("fp32", 1e-6), ("fp16", 1e-3)])
@pytest.mark.parametrize("workers", [0, 2])
def test_targets_are_the_teachers_embeddings(tmp_path, dtype, rtol, workers):
    teacher = flat()
    stored = cached_targets(teacher, DATA, dtype=dtype, folder=tmp_path, batch_size=7, workers=workers)
    index = torch.tensor([49, 0, 7, 7])
    assert (len(stored), stored.dim, stored.flips) == (50, 5, False)
    torch.testing.assert_close(stored[index], teacher.embed(DATA[index] / 255), rtol=rtol, atol=rtol)
    torch.testing.assert_close(stored[3], stored[torch.tensor([3])][0])
    assert stored[:].shape == (50, 5) and stored[:].dtype == torch.float32
    assert os.path.getsize(stored.path) == 128 + 50 * 5 * {"fp16": 2, "fp32": 4}[dtype]


def test_stored_targets_are_used_again_and_cost_one_image(tmp_path):
    cached_targets(flat(), DATA, folder=tmp_path)
    again = flat()
    cached_targets(again, DATA, folder=tmp_path)
    assert again.network.seen == 1  # to make sure that they are the right ones
    assert len(list(tmp_path.glob("*.npy"))) == 1


def test_mirrored_images_have_their_own_targets_or_share_the_others(tmp_path):
    teacher, index = flat(), torch.tensor([4, 8])
    mirrored = teacher.embed(DATA[index].flip(3) / 255)
    both = cached_targets(teacher, DATA, flip=True, dtype="fp32", folder=tmp_path)
    given = both.of(index, torch.tensor([True, False]))
    torch.testing.assert_close(given[0], mirrored[0])
    torch.testing.assert_close(given[1], both[8])
    assert both.flips and not torch.allclose(both[4], mirrored[0])
    one = cached_targets(teacher, DATA, dtype="fp32", folder=tmp_path)
    torch.testing.assert_close(one.of(index, torch.tensor([True, False])), one[index])


def test_scale_multiplies_what_is_read_and_not_what_is_stored(tmp_path):
    plain = cached_targets(flat(), DATA, folder=tmp_path)
    scaled = cached_targets(flat(), DATA, folder=tmp_path, scale=3.0)
    torch.testing.assert_close(scaled[:], 3 * plain[:])
    assert scaled.path == plain.path
    pairs = torch.pdist(plain[:].double())
    expected = pairs.square().mean().sqrt().item()
    assert plain.spread() == pytest.approx(expected) and scaled.spread() == pytest.approx(3 * expected)


@pytest.mark.parametrize(
    "change",
    [
        {"teacher": flat(seed=1)},
        {"teacher": Teacher("flat", Flat(), size=4, dim=5)},
        {"data": TensorImages("noise", DATA.images.flip(0))},
        {"data": TensorImages("noise", DATA.images.reshape(50, 3, 2, 8))},
        {"flip": True},
        {"dtype": "fp32"},
    ],
)
def test_whatever_decides_the_targets_decides_the_file(tmp_path, change):
    first = cached_targets(flat(), DATA, folder=tmp_path)
    arguments = {"teacher": flat(), "data": DATA} | change
    assert cached_targets(**arguments, folder=tmp_path).path != first.path


class Killed(Exception):
    """Stands for a process that ends without warning."""


class Mortal(Flat):
    """Dies after so many images."""

    def forward(self, images):
        if self.seen >= self.lives:
            raise Killed
        return super().forward(images)


def test_a_killed_run_goes_on_where_it_was_and_ends_with_the_same_file(tmp_path, monkeypatch):
    monkeypatch.setattr(targets, "PROGRESS_SECONDS", -1)
    whole = cached_targets(flat(), DATA, folder=tmp_path / "whole", flip=True, batch_size=8)
    Mortal.lives = 40
    with pytest.raises(Killed):
        cached_targets(Teacher("flat", Mortal(), dim=5), DATA, folder=tmp_path, flip=True, batch_size=8)
    (unfinished,) = tmp_path.glob("*.npy")
    with pytest.raises(TargetsError, match=r"is not finished \(16 of 50 images\); call cached_targets again"):
        Targets(unfinished)
    teacher = flat()
    resumed = cached_targets(teacher, DATA, folder=tmp_path, flip=True, batch_size=8)
    assert teacher.network.seen == 1 + 2 * (50 - 16)
    assert resumed.path.read_bytes() == whole.path.read_bytes()


def slow_teacher(folder, started, seen):
    class Slow(Flat):
        def forward(self, images):
            started.set()
            time.sleep(0.02)
            with seen.get_lock():
                seen.value += len(images)
            return super().forward(images)

    targets.PROGRESS_SECONDS = -1
    cached_targets(Teacher("flat", Slow(), dim=5), DATA, folder=folder, batch_size=2)


def start(folder, seen):
    context = multiprocessing.get_context("fork")
    started = context.Event()
    process = context.Process(target=slow_teacher, args=(folder, started, seen))
    process.start()
    return process, started


def test_a_process_that_is_killed_releases_its_lock_and_loses_no_finished_batch(tmp_path):
    seen = multiprocessing.get_context("fork").Value("i", 0)
    process, started = start(tmp_path, seen)
    assert started.wait(30)
    while seen.value < 10:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    teacher = flat()
    stored = cached_targets(teacher, DATA, dtype="fp16", folder=tmp_path, batch_size=2)
    assert 0 < teacher.network.seen <= 1 + 50 - 8
    torch.testing.assert_close(stored[:], teacher.embed(DATA.images / 255), rtol=1e-3, atol=1e-3)


def test_of_two_processes_one_computes_and_the_other_waits(tmp_path):
    seen = multiprocessing.get_context("fork").Value("i", 0)
    processes = [start(tmp_path, seen)[0] for _ in range(2)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert seen.value == 50 + 1  # and one image to compare


def finished(folder):
    stored = cached_targets(flat(), DATA, folder=folder)
    return stored.path, stored.path.with_suffix(".json")


def test_a_file_of_another_shape_is_refused(tmp_path):
    path, _ = finished(tmp_path)
    np.save(path, np.zeros((1, 50, 4), np.float16))
    with pytest.raises(TargetsError, match=r"holds float16 \(1, 50, 4\), expected fp16 \(1, 50, 5\); delete it$"):
        cached_targets(flat(), DATA, folder=tmp_path)


def test_half_a_file_is_refused_and_made_again_once_it_is_deleted(tmp_path):
    path, _ = finished(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:200])
    with pytest.raises(TargetsError, match=r"cannot be read .*; delete it$") as caught:
        cached_targets(flat(), DATA, folder=tmp_path)
    assert "\n" not in str(caught.value)
    path.unlink()
    assert cached_targets(flat(), DATA, folder=tmp_path).path.read_bytes() == content


def test_rows_of_another_teacher_are_refused(tmp_path):
    path, _ = finished(tmp_path)
    rows = np.lib.format.open_memmap(path, "r+")
    rows[:, 0] *= 1.1
    rows.flush()
    with pytest.raises(TargetsError, match="holds other embeddings than 'flat' gives for noise; delete it"):
        cached_targets(flat(), DATA, folder=tmp_path)


def test_without_its_progress_a_file_is_begun_again(tmp_path):
    path, progress = finished(tmp_path)
    content = path.read_bytes()
    for damage in (progress.unlink, lambda: progress.write_text("{half")):
        damage()
        with pytest.raises(TargetsError, match=r"is not finished \(nothing\)"):
            Targets(path)
        teacher = flat()
        cached_targets(teacher, DATA, folder=tmp_path)
        assert teacher.network.seen == 50 and path.read_bytes() == content
    assert json.loads(progress.read_text())["done"] == 50


def test_an_embedding_that_half_precision_cannot_hold_is_named(tmp_path):
    with pytest.raises(ValueError, match="the embedding of image 0 of noise is not finite in fp16"):
        cached_targets(flat(gain=1e6), DATA, folder=tmp_path)
    assert len(cached_targets(flat(gain=1e6), DATA, folder=tmp_path, dtype="fp32")) == 50


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "int8"}, "unknown dtype 'int8'; choose fp16 or fp32"),
        ({"data": TensorImages("nothing", DATA.images[:0])}, "nothing is empty; there is nothing to embed"),
    ],
)
def test_what_cannot_be_embedded_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        cached_targets(**({"teacher": flat(), "data": DATA} | change), folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_targets_travel_to_other_processes_as_a_path(tmp_path):
    stored = cached_targets(flat(), DATA, folder=tmp_path, scale=2.0)
    travelled = pickle.dumps(stored)
    assert len(travelled) < 500
    assert torch.equal(pickle.loads(travelled)[:], stored[:])


def test_images_in_memory_are_image_data_and_their_fingerprint_sees_one_pixel():
    assert isinstance(DATA, ImageData)
    changed = DATA.images.clone()
    changed[49, 2, 3, 3] += 1
    assert TensorImages("noise", changed).fingerprint() != DATA.fingerprint()
    assert TensorImages("other name", DATA.images).fingerprint() == DATA.fingerprint()
