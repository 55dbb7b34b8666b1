"""Folders and CSV files of one's own judgments."""

import shutil

import pytest
import torch

from course_lib.data import folders
from tests import trees

HEADER = "ref,p0,p1,judge,subset\n"


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    return trees.folder(tmp_path / "mine")


def refused(path, kind=ValueError, read=folders.triplets, **options):
    with pytest.raises(kind) as caught:
        read(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace("\\", "/")


def write(root, *lines, header=HEADER):
    path = root / "table.csv"
    path.write_text(header + "\n".join(lines) + "\n")
    return path


def test_a_folder_is_read(root):
    data = folders.triplets(root)
    torch.testing.assert_close(data.judge, torch.tensor([0, 0.2, 1]))
    assert data.name == "mine" and data.subset is None and data[0].ref.shape == (3, 16, 16)
    assert folders.triplets(str(root), size=8)[0].ref.shape == (3, 8, 8)


def test_votes_may_be_in_a_table(root):
    shutil.rmtree(root / "judge")
    table = root / "judge.csv"
    table.write_text("name,judge\n000002,0.25\n000000,1\n000001,0\n")
    assert folders.triplets(root).judge.tolist() == [1, 0, 0.25]
    trees.replace(table, "0.25", "2.5")
    assert f"judge of {table} is '2.5', not a fraction".replace("\\", "/") in refused(root)
    table.write_text("name,judge\n000002,0.25\n")
    assert "mine has 2 problems" in refused(root) and "000000 is not in judge" in refused(root)


def test_pairs_of_a_folder_and_of_a_table_are_read(tmp_path):
    root = trees.folder(tmp_path / "mine", (0, 1), ("p0", "p1"), "same")
    assert folders.pairs(root).same.tolist() == [0, 1]
    table = write(root, "p0/000001.png,p1/000000.png,0.5", header="p0,p1,same\n")
    data = folders.pairs(table)
    assert data.same.tolist() == [0.5] and torch.equal(data[0].p0, folders.pairs(root)[1].p0)


def test_a_table_is_read_relative_to_itself_with_its_subsets(root, monkeypatch):
    monkeypatch.chdir(root.parent)
    table = write(
        root,
        "ref/000001.png, p0/000001.png,p1/000001.png,0.25,blur",
        f"ref/000000.png,p0/000000.png,{root / 'p1' / '000002.png'},1e0,noise",
    )
    data = folders.triplets(table)
    assert data.judge.tolist() == [0.25, 1] and data.subset == ["blur", "noise"] and data.name == "table"
    assert torch.equal(data[1].p1, folders.triplets(root)[2].p1) and torch.equal(
        data[0].p0, folders.triplets(root)[1].p0
    )


def test_names_with_commas_and_other_letters_survive_a_table(root):
    trees.save_picture(root / "ä, b.png")
    table = root / "table.csv"
    line = '"ä, b.png",ref/000000.png,p1/000000.png,0.5'
    table.write_bytes(b"\xef\xbb\xbf" + f"ref,p0,p1,judge\r\n{line}\r\n".encode())
    assert len(folders.triplets(table)) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "ref/000000.png,p0/000000.png,p1/000000.png,1.5,a",
            "table.csv line 3: judge is '1.5', not a fraction of votes",
        ),
        ("ref/000000.png,p0/000000.png,p1/000000.png,,a", "table.csv line 3: judge is '', not a fraction of votes"),
        ("ref/000000.png,p0/000000.png,p1/000000.png,nan,a", "line 3: judge is 'nan'"),
        ("ref/000000.png,,p1/000000.png,0,a", "table.csv line 3: p0 is empty"),
        ("ref/000000.png,p0/000000.png,0,a", "table.csv line 3 does not have 5 values"),
        ("ref/000000.png,p0/000000.png,p1/000000.png,0,a,b", "table.csv line 3 does not have 5 values"),
        ("ref/000009.png,p0/000000.png,p1/000000.png,0,a", "ref/000009.png is missing"),
        ("table.csv,p0/000000.png,p1/000000.png,0,a", "table.csv is not a picture"),
        ("ref,p0/000000.png,p1/000000.png,0,a", "ref cannot be read"),
    ],
)
def test_a_bad_line_of_a_table_is_named(root, line, message):
    table = write(root, "ref/000001.png,p0/000001.png,p1/000001.png,0,a", line)
    assert "has 1 problem: " in refused(table) and message in refused(table)


def test_what_is_missing_altogether_is_named(root):
    assert "nothing does not exist; name a folder or a CSV file" in refused(root / "nothing", FileNotFoundError)
    assert "table.csv has no column judge; it has ref, p0, p1" in refused(write(root, header="ref,p0,p1\n"))
    assert "table is empty" in refused(write(root))
    assert "has no folder same" in refused(root, read=folders.pairs)
    shutil.rmtree(root / "p1")
    assert "mine has 1 problem: " in refused(root) and "mine has no folder p1" in refused(root)


def test_pictures_of_several_sizes_need_a_size(root):
    trees.save_picture(root / "p0/000001.png", size=(20, 20))
    assert "p0/000001.png is 20 x 20 pixels, most are 16 x 16" in refused(root)
    assert folders.triplets(root, size=16)[1].p0.shape == (3, 16, 16)
