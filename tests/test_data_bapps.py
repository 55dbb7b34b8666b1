"""BAPPS: miniature trees in the authors' layout are read, and everything wrong with one is named."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from course_lib.data import bapps
from course_lib.data.listings import read_vote
from tests import trees

VAL = bapps.SUBSETS["2afc"]["val"]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    """The val part, with two of its six subsets."""
    return trees.bapps(tmp_path / "data")


def refused(root, subsets=("traditional", "cnn"), kind=ValueError, read=bapps.triplets, **options):
    with pytest.raises(kind) as caught:
        read(root, subsets=subsets, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("split", "subsets"), bapps.SUBSETS["2afc"].items())
def test_a_split_is_read_with_all_its_subsets(tmp_path, split, subsets):
    data = bapps.triplets(trees.bapps(tmp_path, split, subsets), split)
    assert len(data) == 3 * len(subsets) and data.name == f"BAPPS 2AFC ({split})"
    assert data.subset == [subset for subset in subsets for _ in range(3)]
    torch.testing.assert_close(data.judge, torch.tensor([0, 0.2, 1] * len(subsets)))


def test_rows_belong_together_and_are_brought_to_64_pixels_as_the_authors_do(tmp_path):
    root = trees.bapps(tmp_path, size=(256, 256))
    item = bapps.triplets(root, subsets=["cnn"])[1]
    authors = transforms.Compose([transforms.Resize(64), transforms.ToTensor()])
    for image, column in zip(item[:3], ("ref", "p0", "p1"), strict=True):
        assert torch.equal(image, authors(Image.open(root / f"2afc/val/cnn/{column}/000001.png")))
    assert item.judge == np.float32(0.2)
    assert bapps.triplets(root, subsets="cnn", size=None)[0].ref.shape == (3, 256, 256)


def test_the_folder_above_dataset_will_do(tmp_path):
    trees.bapps(tmp_path / "dataset")
    assert bapps.triplets(tmp_path, subsets=["cnn"]).name == "BAPPS 2AFC (val, cnn)"


def test_pairs_are_read(tmp_path):
    data = bapps.pairs(trees.bapps(tmp_path, kind="jnd"), subsets=["traditional"])
    assert len(data) == 3 and data.name == "BAPPS JND (val, traditional)" and data.subset == ["traditional"] * 3
    assert len(bapps.pairs(tmp_path)) == 6 and data[0].p0.shape == (3, 64, 64)


def test_pictures_and_votes_that_do_not_match_are_named(root):
    (root / "2afc/val/cnn/p1/000001.png").unlink()
    (root / "2afc/val/cnn/judge/000001.npy").unlink()
    (root / "2afc/val/traditional/ref/000002.png").unlink()
    trees.save_picture(root / "2afc/val/cnn/p0/000007.png")
    message = refused(root)
    assert message.startswith("BAPPS 2AFC (val, traditional, cnn) has 3 problems: ")
    assert f"{root / '2afc/val/traditional'}: 000002 is not in ref; " in message
    assert ": 000001 is not in p1, judge; " in message and ": 000007 is not in ref, p1, judge; " in message
    assert f"unpack the archive again (python -m course_lib fetch bapps-val --data-dir {root})" in message


def test_two_pictures_of_one_name_are_refused(root):
    trees.save_picture(root / "2afc/val/cnn/p0/000001.jpg")
    assert "p0/000001.png has the name of 000001.jpg" in refused(root).replace("\\", "/")


def test_hidden_files_are_left_out(root):
    (root / "2afc/val/cnn/p0/.DS_Store").write_text("")
    assert len(bapps.triplets(root, subsets=["cnn"])) == 3


@pytest.mark.parametrize("vote", [1.2, -0.1, float("nan")])
def test_a_vote_outside_0_to_1_is_named(root, vote):
    path = trees.save_vote(root / "2afc/val/cnn/judge/000001.npy", vote)
    assert f"has 1 problem: {path} is {np.float32(vote).item()!r}, not a fraction of votes from 0 to 1" in refused(root)


def test_damaged_votes_are_counted_and_the_first_ones_named(root):
    paths = sorted((root / "2afc/val").rglob("*.npy"))
    for path in paths:
        trees.cut_off(path)
    message = refused(root)
    assert "has 6 problems: " in message and message.count(" cannot be read: ") == 4 and "; and 2 more; " in message


def test_a_damaged_picture_is_named(root):
    trees.cut_off(root / "2afc/val/cnn/p1/000002.png")
    assert f"{root / '2afc/val/cnn/p1/000002.png'} cannot be read" in refused(root)


def test_subsets_that_are_not_there_are_named(root):
    message = refused(root, subsets=None)
    assert "BAPPS 2AFC (val) has 4 problems: " in message and f"{root / '2afc/val/superres'} is missing" in message
    assert "or choose the subsets that you have" in message
    shutil.rmtree(root / "2afc/val/cnn/judge")
    assert f"{root / '2afc/val/cnn'} has no folder judge" in refused(root)


def test_an_empty_subset_is_named(root):
    for column in ("ref", "p0", "p1", "judge"):
        shutil.rmtree(root / "2afc/val/cnn" / column)
        (root / "2afc/val/cnn" / column).mkdir()
    assert f"has 1 problem: {root / '2afc/val/cnn'} is empty; " in refused(root)


@pytest.mark.parametrize(
    ("read", "options", "message"),
    [
        (bapps.triplets, {"split": "test"}, "unknown split 'test'; use one of 'train', 'val'"),
        (bapps.pairs, {"split": "train"}, "unknown split 'train'; use one of 'val'"),
        (bapps.triplets, {"subsets": ["mix"]}, f"unknown subset 'mix' of 2afc/val; use some of {', '.join(VAL)}"),
        (bapps.triplets, {"subsets": []}, "no subset was named"),
    ],
)
def test_what_bapps_does_not_have_is_named(root, read, options, message):
    assert message in refused(root, **{"read": read, **options})


@pytest.mark.parametrize(
    ("read", "split", "archive"),
    [(bapps.triplets, "val", "bapps-val"), (bapps.triplets, "train", "bapps"), (bapps.pairs, "val", "bapps-jnd")],
)
def test_without_data_the_error_tells_how_to_download_it(tmp_path, read, split, archive):
    message = refused(tmp_path, None, FileNotFoundError, read, split=split)
    kind = "jnd" if read is bapps.pairs else "2afc"
    assert f"{tmp_path} holds neither {kind} nor dataset/{kind}" in message
    assert message.endswith(f"python -m course_lib fetch {archive} --data-dir {tmp_path}")


@pytest.mark.parametrize("array", [np.float32(0.4), np.array([[0.4]]), np.array([1]), np.array(True)])
def test_any_single_number_is_a_vote(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    assert read_vote(str(tmp_path / "x.npy")) == pytest.approx(float(np.asarray(array).item()))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([0.1, 0.2]), "holds float64 of shape (2,), not one number"),
        (np.array([]), "holds float64 of shape (0,), not one number"),
        (np.array(["0.5"]), "of shape (1,), not one number"),
        (np.array([0.5 + 0j]), "holds complex128"),
        (np.array([{}]), "cannot be read: Object arrays cannot be loaded when allow_pickle=False"),
    ],
)
def test_anything_else_is_not_a_vote(tmp_path, array, message):
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    found = read_vote(str(tmp_path / "x.npy"))
    assert found.startswith(str(tmp_path / "x.npy")) and message in found and "\n" not in found


def test_a_vote_file_that_is_cut_anywhere_or_damaged_anywhere_is_a_problem_not_a_crash(tmp_path):
    path = trees.save_vote(tmp_path / "x.npy", 0.25)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert "cannot be read" in read_vote(str(path))
    for at in range(len(whole)):
        for byte in (0x00, 0x28, 0x39, 0x7B, 0xFF):
            path.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
            found = read_vote(str(path))
            assert isinstance(found, str) or 0 <= found <= 1
