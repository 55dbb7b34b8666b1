"""Data sets by name, and the human judgments of materials where they are."""

import json

import pytest
import torch

from course_lib.data import materials, sources
from course_lib.data.sources import open_pairs, open_triplets
from course_lib.paths import repo_root
from tests import trees

MATERIALS = repo_root().parent / "shared" / "data" / "material_similarity"


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def small_materials(tmp_path, own_cache):
    """Four materials. Sorted by file name, "a-b.jpg" comes before "a.jpg"."""
    for lighting, folder in materials.LIGHTINGS.items():
        for i, name in enumerate(("a.png", "a-b.png", "c.png", "d.png")):
            trees.save_picture(tmp_path / "materials" / folder / name, i + 10 * (lighting == "ennis"), (20, 20))
    return answers(tmp_path / "materials", [[0, 1, 2], [3, 2, 1]] * 20, [[3, 1], [4, 0]] * 20)


def answers(root, shown, votes):
    (root / materials.ANSWERS).write_text(json.dumps({"answers_diff": shown, "agreement_diff": votes}))
    return root


def refused(read, *arguments, kind=ValueError, **options):
    with pytest.raises(kind) as caught:
        read(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_materials_are_counted_in_the_order_of_their_file_names(small_materials):
    data = materials.triplets(small_materials)
    assert data.photographs == ("a-b", "a", "c", "d") and data.photo.tolist() == [0, 3] * 20
    assert data.ref[0].endswith("a-b.png") and {data.p0[0][-5:], data.p1[0][-5:]} == {"a.png", "c.png"}


def test_the_chosen_material_is_p0_or_p1_and_the_votes_follow_it(small_materials):
    data = materials.triplets(small_materials)
    chosen_is_p0 = [data.p0[i].endswith(("a.png", "c.png")[i % 2]) for i in range(40)]
    assert 10 < sum(chosen_is_p0) < 30
    for i, first in enumerate(chosen_is_p0):
        for_other = (0.25, 0)[i % 2]
        assert data.judge[i].item() == (for_other if first else 1 - for_other)
        if i % 2 == 0:
            assert data.p1[i].endswith("c.png" if first else "a.png")
    assert torch.equal(data.judge, materials.triplets(small_materials).judge)


def test_the_lighting_decides_which_pictures_are_read(small_materials):
    ennis, stpeters = (materials.triplets(small_materials, lighting, size=8) for lighting in materials.LIGHTINGS)
    assert ennis[0].ref.shape == (3, 8, 8) and not torch.equal(ennis[0].ref, stpeters[0].ref)
    assert torch.equal(ennis.judge, stpeters.judge)
    assert "unknown lighting 'sun'; use one of 'ennis', 'stpeters'" in refused(materials.triplets, "", "sun")


@pytest.mark.parametrize(
    ("shown", "votes", "message"),
    [
        ([[0, 1, 4]], [[3, 1]], "has 1 problem: answer 0 names [0, 1, 4]; indices go from 0 to 3"),
        ([[0, 1, 2], [0, -1, 2]], [[3, 1], [2, 1]], "answer 1 names [0, -1, 2]"),
        ([[0, 1, 2]], [[0, 0]], "answer 0 has votes [0, 0]"),
        ([[0, 1, 2]], [[3, -1]], "answer 0 has votes [3, -1]"),
        ([[0, 1, 2]], [[3, 1], [3, 1]], "does not hold answers_diff and agreement_diff as expected: 1 triplets and 2"),
        ([[0, 1, 2]], [[3.5, 1]], "as expected"),
        ([[0, 1]], [[3, 1]], "as expected"),
        ([[0, 1, 2], [1, 2]], [[3, 1]], "as expected"),
        (["abc"], [[3, 1]], "as expected"),
        ([], [], "as expected: 0 triplets and 0 votes"),
    ],
)
def test_unusable_answers_are_named(small_materials, shown, votes, message):
    assert message in refused(materials.triplets, answers(small_materials, shown, votes))


def test_materials_that_are_not_there_are_named(tmp_path, small_materials):
    message = refused(materials.triplets, tmp_path, kind=FileNotFoundError)
    assert "does not hold answers_processed_train.json" in message and "mlagunas" in message
    (small_materials / materials.ANSWERS).write_text('{"answers')
    assert "as expected" in refused(materials.triplets, small_materials)


@pytest.mark.skipif(not MATERIALS.is_dir(), reason="the human judgments of materials are not here")
def test_pixel_distance_agrees_with_people_on_materials_as_often_as_was_measured(own_cache):
    data = materials.triplets(MATERIALS)
    assert len(data) == 21_406 and len(data.photographs) == 100 and 0.48 < data.judge.mean() < 0.52
    row = {path: i for i, path in enumerate(dict.fromkeys([*data.ref, *data.p0, *data.p1]))}
    pictures = torch.stack([data._read(path) for path in row]).flatten(1) / 255
    distance = torch.cdist(pictures, pictures)
    ref, p0, p1 = (torch.tensor([row[path] for path in column]) for column in (data.ref, data.p0, data.p1))
    agreed = (distance[ref, p0] < distance[ref, p1]) == (data.judge < 0.5)
    assert agreed.float().mean().item() == pytest.approx(0.642, abs=0.003)


def test_each_data_set_opens_by_name_with_its_own_default_split(tmp_path, own_cache, small_materials):
    trees.bapps(tmp_path, "val", ("traditional", "cnn", "superres", "deblur", "color", "frameinterp"))
    trees.bapps(tmp_path, "val", kind="jnd")
    trees.bapps(tmp_path, "train", ("traditional", "cnn", "mix"))
    trees.nights(tmp_path / "nights", ["0,1,8 test,True", "1,0,8 val,True"])
    trees.folder(tmp_path / "mine")
    assert open_triplets("bapps", tmp_path).name == "BAPPS 2AFC (val)"
    assert open_triplets("bapps", tmp_path, "train").name == "BAPPS 2AFC (train)"
    assert open_triplets("nights", tmp_path).name == "NIGHTS (test)"
    assert open_triplets("nights", tmp_path, "val").judge.tolist() == [0]
    assert open_triplets("materials", small_materials).name == "materials (ennis)"
    assert open_triplets("materials", small_materials, "stpeters").name == "materials (stpeters)"
    assert open_triplets("folder", tmp_path / "mine").name == "mine"
    assert open_pairs("bapps", str(tmp_path)).name == "BAPPS JND (val)"


def test_without_a_name_the_simulated_test_split_opens():
    assert open_triplets().name == open_pairs().name == "simulated (test)"
    assert len(open_triplets(split="val")) * 2 == len(open_pairs("simulated", split="val"))


@pytest.mark.parametrize("name", sources.NAMES[1:])
def test_a_missing_data_dir_is_named_with_where_the_data_is_from(name):
    message = refused(open_triplets, name)
    assert message.startswith(f"{name} needs --data-dir")
    assert {"bapps": "fetch bapps-val", "nights": "fetch nights", "materials": "mlagunas", "folder": "ref/"}[
        name
    ] in message


@pytest.mark.parametrize(
    ("read", "arguments", "message"),
    [
        (open_triplets, ("baps",), "unknown data set 'baps'; use one of simulated, bapps, nights, materials, folder"),
        (open_pairs, ("baps",), "unknown data set 'baps'"),
        (
            open_pairs,
            ("nights", "x"),
            "nights has no same-or-different judgments of pairs; use one of simulated, bapps, f",
        ),
        (open_pairs, ("materials", "x"), "materials has no same-or-different judgments"),
        (open_triplets, ("simulated", "x"), "simulated judgments come with the course; leave --data-dir out"),
        (open_triplets, ("folder", "x", "val"), "folder has no splits; leave --split out"),
        (open_triplets, ("bapps", "x", "test"), "unknown split 'test'; use one of 'train', 'val'"),
        (open_triplets, ("simulated", None, "dev"), "unknown split 'dev'"),
    ],
)
def test_what_cannot_be_opened_is_named(read, arguments, message):
    assert message in refused(read, *arguments)


def test_data_that_is_not_in_the_folder_is_named(tmp_path):
    for name in ("bapps", "nights", "materials"):
        assert str(tmp_path) in refused(open_triplets, name, tmp_path, kind=FileNotFoundError)
