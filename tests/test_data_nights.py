"""NIGHTS: a miniature data.csv is read as the authors read it, and everything wrong with one is named."""

import pytest
import torch
from PIL import Image
from torchvision import transforms

from course_lib.data import nights
from tests import trees

ROWS = (
    "1,0,8 train,True",
    "0,1,6 train,False",
    "0,1,5 train,False",
    "1,0,7 val,True",
    "0,1,9 test,True",
    "1,0,6 test,False",
    "0,1,7 test,False",
)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    return trees.nights(tmp_path / "nights", ROWS)


def refused(*arguments, kind=ValueError, **options):
    with pytest.raises(kind) as caught:
        nights.triplets(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("split", "judge"),
    [("train", [0, 1]), ("val", [0]), ("test", [1, 0, 1]), ("test_imagenet", [1]), ("test_no_imagenet", [0, 1])],
)
def test_a_split_holds_its_rows_with_six_votes_or_more(root, split, judge):
    data = nights.triplets(root, split)
    assert data.judge.tolist() == judge and data.name == f"NIGHTS ({split})"
    where = [row.split(" ")[1] for row in ROWS if not row.startswith("0,1,5")]
    halves = ["imagenet" if line.endswith("True") else "no_imagenet" for line in where if line.startswith(split[:4])]
    assert data.subset == [half for half in halves if not split.startswith("test_") or split == f"test_{half}"]


def test_fewer_votes_can_be_allowed_and_votes_may_be_counts_or_shares(root):
    assert len(nights.triplets(root, "train", min_votes=5)) == 3
    trees.replace(root / "data.csv", "0,1,9", "2,6,8")
    trees.replace(root / "data.csv", "1,0,6", "0.75,0.25,6.0")
    assert nights.triplets(root).judge.tolist() == [0.75, 0.25, 1]


def test_pictures_are_resized_as_the_authors_do(root):
    item = nights.triplets(root)[0]
    bicubic = transforms.InterpolationMode.BICUBIC
    authors = transforms.Compose([transforms.Resize((224, 224), interpolation=bicubic), transforms.ToTensor()])
    for image, path in zip(item[:3], ("ref/000/004", "distort/000/004_0", "distort/000/004_1"), strict=True):
        assert torch.equal(image, authors(Image.open(root / f"{path}.png")))
    assert nights.triplets(root.parent, size=None)[0].ref.shape == (3, 20, 20)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("left_vote,", "left,", "data.csv has no column left_vote; it has id, left, right_vote"),
        ("4,0,1,9,", "4,0,one,9,", "data.csv line 6 has left_vote '0', right_vote 'one', votes '9', not numbers of vo"),
        ("4,0,1,9,", "4,0,0,9,", "data.csv line 6 has left_vote '0', right_vote '0', votes '9', not numbers of votes"),
        ("4,0,1,9,", "4,2,-1,9,", "right_vote '-1'"),
        ("4,0,1,9,", "4,0,nan,9,", "right_vote 'nan'"),
        ("4,0,1,9,", "4,0,1,,", "votes ''"),
        ("test,True", "test,maybe", "data.csv line 6 has is_imagenet 'maybe', neither True nor False"),
        ("4,0,1,9,", "0,1,9,", "data.csv has 1 problem: data.csv line 6 does not have 9 values"),
        ("ref/000/005.png", "ref/000/905.png", "ref/000/905.png is missing"),
    ],
)
def test_a_bad_line_is_named(root, old, new, message):
    trees.replace(root / "data.csv", old, new)
    assert message in refused(root).replace("\\", "/")


def test_every_bad_line_counts_and_those_of_other_splits_do_not(root):
    for row in ROWS[:4]:
        trees.replace(root / "data.csv", row.split(" ")[0], "x,x,x")
    assert len(nights.triplets(root, "test")) == 3
    assert "NIGHTS (train) has 3 problems: data.csv line 2 has" in refused(root, "train")


def test_a_damaged_picture_is_named(root):
    trees.cut_off(root / "distort/000/006_1.png")
    assert f"{root / 'distort/000/006_1.png'} cannot be read" in refused(root)


def test_a_split_without_triplets_is_named(tmp_path, root):
    none = trees.nights(tmp_path / "few", ROWS[:2])
    assert "the split 'val' has no rows" in refused(none, "val")
    assert "the split 'test' has 3 triplets, none with 10 votes or more; use a lower min_votes" in refused(
        root, "test", 10
    )
    assert "unknown split 'all'; use one of 'train', 'val', 'test', 'test_imagenet', 'test_no_imagenet'" in refused(
        root, "all"
    )


def test_without_data_the_error_tells_how_to_download_it(tmp_path):
    message = refused(tmp_path, kind=FileNotFoundError)
    assert message.endswith(
        f"neither data.csv nor nights/data.csv; to download it: python -m course_lib fetch nights --data-dir {tmp_path}"
    )


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'id,"left_vote\n1', b"\x00\x00"])
def test_a_table_that_is_none_is_named(root, content):
    (root / "data.csv").write_bytes(content)
    message = refused(root)
    assert message.startswith(str(root / "data.csv")) and ("has no column" in message or "is not a CSV" in message)
