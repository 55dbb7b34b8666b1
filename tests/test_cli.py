"""``python -m course_lib lpips`` compares what it can, names what it cannot, and loses nothing."""

import json
import re
import shlex
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from course_lib import cli
from course_lib.data.photos import EXAMPLE_FOLDER
from course_lib.data.pictures import read_image
from course_lib.lpips import LPIPS
from course_lib.paths import repo_root

REF, P0, P1 = (EXAMPLE_FOLDER / f"ex_{name}.png" for name in ("ref", "p0", "p1"))


def lpips(*arguments, fails=False):
    """Output and errors of the command in this process; an expected error is raised as main() would report it."""
    result = CliRunner().invoke(cli.app, ["lpips", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == int(fails), result.output
    return result.stdout, result.stderr


def save(path, size=(40, 32), seed=0, **options):
    """A random picture of this width and height."""
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def folders(tmp_path):
    """Two folders of three pairs, two of one size; the second folder holds one of them as JPEG."""
    for i, size in enumerate([(40, 32), (30, 50), (40, 32)]):
        save(tmp_path / "a" / f"pic{i}.png", size, seed=i)
        save(tmp_path / "b" / f"pic{i}.{'jpg' if i == 2 else 'png'}", size, seed=i + 10)
    return tmp_path / "a", tmp_path / "b"


def test_example_in_the_help_runs_and_prints_the_known_distance():
    text = CliRunner().invoke(cli.app, ["lpips", "--help"], terminal_width=200).stdout
    example = re.search(r"python -m course_lib lpips .*", text)[0]
    command = [sys.executable, *shlex.split(example)[1:]]
    done = subprocess.run(command, cwd=repo_root(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "0.7778" in done.stdout
    assert done.stderr.startswith("LPIPS, net st-alex: shift-tolerant LPIPS-alex, trunk and heads")


def test_expected_error_is_one_line_and_exit_code_1():
    command = [sys.executable, "-m", "course_lib", "lpips", str(REF), "no such file.png"]
    done = subprocess.run(command, cwd=repo_root(), capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: no such file.png does not exist\n")


def test_files_of_two_folders_are_matched_by_name_and_written_with_their_distances(folders, tmp_path):
    out, err = lpips(*folders, "--output", tmp_path / "results.json", "--batch-size", 1)
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored["net"] == "st-alex" and stored["problems"] == [] and "error" not in err
    assert [(row["a"][-8:], row["b"][-8:]) for row in stored["results"]] == [
        ("pic0.png", "pic0.png"), ("pic1.png", "pic1.png"), ("pic2.png", "pic2.jpg"),
    ]  # fmt: skip
    for row in stored["results"]:
        expected = LPIPS()(read_image(folders[0] / row["a"])[None], read_image(folders[1] / row["b"])[None]).item()
        assert row["distance"] == pytest.approx(expected, rel=1e-5)
        assert f"{row['distance']:.4f}" in out


def test_all_pairs_of_a_folder_go_to_csv_in_order(folders, tmp_path):
    save(folders[0] / "pic3.png", (40, 32), seed=7)
    (folders[0] / "pic1.png").unlink()
    lpips(folders[0], "--all-pairs", "--output", tmp_path / "results.csv")
    table = pd.read_csv(tmp_path / "results.csv")
    assert list(table.columns) == ["a", "b", "distance", "net"]
    names = [(a[-5], b[-5]) for a, b in zip(table.a, table.b, strict=True)]
    assert names == [("0", "2"), ("0", "3"), ("2", "3")]


@pytest.mark.parametrize("batch_size", [2, 16])
def test_batches_change_nothing(folders, batch_size):
    assert lpips(*folders, "--batch-size", batch_size)[0] == lpips(*folders, "--batch-size", 1)[0]


def test_another_net_is_used_and_named():
    out, err = lpips(REF, P0, "--net", "st-vgg")
    assert "0.6517" in out and "net st-vgg: shift-tolerant LPIPS-vgg" in err


def test_what_cannot_be_compared_is_named_once_and_the_rest_is_compared(folders, tmp_path):
    a, b = folders
    whole = (a / "pic0.png").read_bytes()
    (a / "pic0.png").write_bytes(whole[: len(whole) // 2])
    save(a / "pic4.png")
    (b / "pic4.png").write_text("not a picture")
    save(a / "pic5.png", (40, 32))
    save(b / "pic5.png", (32, 40))
    save(a / "tiny.png", (20, 40))
    save(b / "tiny.png", (20, 40))
    save(a / "alone.png")
    save(b / "pic1.jpg")
    (a / ".hidden").write_text("")
    (a / "subfolder").mkdir()
    out, err = lpips(a, b, "--output", tmp_path / "results.json", fails=True)
    stored = json.loads((tmp_path / "results.json").read_text())
    assert [row["a"][-8:] for row in stored["results"]] == ["pic2.png"] and "pic2.png" in out
    expected = [
        rf"1 in {a} without a partner in {b}: alone.png",
        r"'pic1' is not one file in each folder, so the pair is unclear: .*a/pic1.png, .*b/pic1.jpg, .*b/pic1.png",
        r".*a/pic0.png cannot be read: .*truncated.*",
        r".*b/pic4.png is not a picture, .*",
        r".*a/pic5.png is 40 x 32 pixels but .*b/pic5.png is 32 x 40; resize or crop one of them",
        r".*a/tiny.png and .*b/tiny.png are 20 x 40 pixels; at least 21 x 21 is needed",
    ]
    assert len(stored["problems"]) == len(expected)
    for problem, pattern in zip(stored["problems"], expected, strict=True):
        assert re.fullmatch(pattern, problem)
        assert f"error: {problem}\n" in err
    assert err.endswith("error: 1 pairs compared, 6 problems\n")


def test_broken_file_of_many_pairs_is_named_once(folders):
    (folders[0] / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (folders[0] / "pic1.png").unlink()
    out, err = lpips(folders[0], "--all-pairs", fails=True)
    assert err.count("broken.png") == 1 and "pic2.png" in out


def test_old_results_stay_when_nothing_could_be_compared(tmp_path):
    results = tmp_path / "results.csv"
    results.write_text("old")
    (tmp_path / "empty").mkdir()
    out, err = lpips(tmp_path / "empty", "--all-pairs", "--output", results, fails=True)
    assert results.read_text() == "old" and out == "" and "0 pairs compared" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((REF,), "name a second file or folder, or add --all-pairs"),
        ((REF, EXAMPLE_FOLDER), "are a file and a folder"),
        ((REF, "--all-pairs"), "--all-pairs takes one folder"),
        ((EXAMPLE_FOLDER, EXAMPLE_FOLDER, "--all-pairs"), "--all-pairs takes one folder"),
        ((REF, P0, "--net", "resnet"), "unknown net 'resnet'; choose one of"),
        ((REF, P0, "--output", "results.txt"), r"results.txt ends in neither .json nor .csv"),
    ],
)
def test_wrong_arguments_are_refused_with_the_fix(arguments, message):
    with pytest.raises((ValueError, OSError), match=message):
        lpips(*arguments)


# Pictures become RGB in [0, 1] explicitly

RGB = np.random.default_rng(0).integers(0, 256, (32, 24, 3), dtype=np.uint8)
GREY = RGB[..., 0]
OPAQUE = np.dstack([RGB, np.full((32, 24), 255, np.uint8)])
PALETTE = Image.fromarray(RGB).quantize(16)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(RGB), RGB / 255),
        (Image.fromarray(OPAQUE), RGB / 255),
        (Image.fromarray(GREY), np.dstack([GREY] * 3) / 255),
        (Image.fromarray(np.dstack([GREY, OPAQUE[..., 3]])), np.dstack([GREY] * 3) / 255),
        (Image.fromarray(GREY > 127), np.dstack([GREY > 127] * 3) * 1.0),
        (Image.fromarray(GREY.astype(np.uint16) * 200 + 7), np.dstack([GREY.astype(float) * 200 + 7] * 3) / 65535),
        (PALETTE, np.array(PALETTE.convert("RGB")) / 255),
    ],
    ids=["RGB", "opaque", "grey", "opaque grey", "black and white", "16-bit grey", "palette"],
)
def test_picture_becomes_rgb(tmp_path, image, expected):
    image.save(tmp_path / "x.png")
    tensor = read_image(tmp_path / "x.png")
    assert tensor.dtype == torch.float32
    torch.testing.assert_close(tensor, torch.from_numpy(expected).permute(2, 0, 1).float())


def test_exif_orientation_turns_the_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # has to be turned by 90 degrees clockwise to be seen upright
    Image.fromarray(RGB).save(tmp_path / "x.png", exif=exif)
    expected = torch.from_numpy(np.rot90(RGB, -1).copy()).permute(2, 0, 1) / 255
    torch.testing.assert_close(read_image(tmp_path / "x.png"), expected)


TRANSPARENT = OPAQUE.copy()
TRANSPARENT[3, 4, 3] = 254


@pytest.mark.parametrize(
    ("name", "image", "options", "message"),
    [
        ("x.png", Image.fromarray(TRANSPARENT), {}, "x.png is partly transparent"),
        ("x.png", PALETTE, {"transparency": 3}, "x.png is partly transparent"),
        ("x.jpg", Image.fromarray(RGB).convert("CMYK"), {}, "x.jpg has colour mode CMYK"),
        ("x.tif", Image.fromarray(RGB[..., 0] / np.float32(255)), {}, "x.tif has colour mode F"),
        ("x.gif", PALETTE, {"save_all": True, "append_images": [PALETTE.rotate(90)]}, "x.gif has 2 frames"),
    ],
    ids=["alpha", "palette", "CMYK", "floating point", "animated"],
)
def test_ambiguous_picture_is_refused(tmp_path, name, image, options, message):
    image.save(tmp_path / name, **options)
    with pytest.raises(ValueError, match=message) as caught:
        read_image(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("format", ["png", "jpg", "gif", "tif", "bmp", "webp"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.95])
def test_truncated_picture_of_any_format_is_one_named_problem(tmp_path, format, share):
    path = save(tmp_path / f"x.{format}")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=rf"x.{format} (is not a picture|cannot be read)") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
