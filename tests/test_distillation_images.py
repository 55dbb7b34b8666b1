"""Images to distil on: the right ones, cropped as torchvision crops, and one clear line for what is wrong."""

import multiprocessing

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from course_lib.data import photos
from course_lib.distillation import ImageData, cached_targets, load_teacher
from course_lib.distillation.images import ImageFiles, centre_crop, embedded, open_images


def save(path, size=(40, 32), seed=0, mode="RGB"):
    """A random picture of this width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    pixels = pixels[..., : len(Image.new(mode, (1, 1)).getbands())].squeeze(-1) if mode == "L" else pixels
    Image.fromarray(pixels[..., :3] if mode == "RGB" else pixels, mode=mode).save(path)
    return path


@pytest.fixture
def imagenet(tmp_path):
    """Two classes of three pictures each, and a flat validation folder."""
    for i in range(6):
        save(tmp_path / "train" / f"n0000000{i % 2}" / f"n_{i}.JPEG", (40 + i, 36), seed=i)
        save(tmp_path / "val" / f"ILSVRC_{i}.JPEG", seed=10 + i)
    (tmp_path / "train" / "n00000000" / "notes.txt").write_text("not a picture")
    save(tmp_path / "train" / "n00000000" / ".hidden.png")
    return tmp_path


@pytest.fixture
def tiny_imagenet(tmp_path):
    for i in range(4):
        save(tmp_path / "train" / f"n0000000{i % 2}" / "images" / f"{i}.JPEG", (64, 64), seed=i)
        save(tmp_path / "val" / "images" / f"val_{i}.JPEG", (64, 64), seed=10 + i)
    return tmp_path


def test_embedded_images_are_crops_of_the_split_each_followed_by_its_distortion():
    data = embedded("val", 40, 32, seed=3)
    assert isinstance(data, ImageData) and len(data) == 40
    index = torch.arange(40)
    assert torch.equal(data[index[::2]], photos.crops("val", 20, 32, seed=3).images)
    near = (data[index[1::2]].float() - data[index[::2]].float()).flatten(1).norm(dim=1)
    far = (data[index[1::2]].float() - data[index[::2]].float().roll(1, 0)).flatten(1).norm(dim=1)
    assert (near > 0).all() and near.median() < far.median() / 2
    assert torch.equal(embedded("val", 40, 32, seed=3)[index], data[index])
    assert not torch.equal(embedded("val", 40, 32, seed=4)[index], data[index])
    assert len(embedded("val", 5, 32)) == 5


@pytest.mark.parametrize(("width", "height"), [(40, 32), (31, 50), (32, 32), (90, 33)])
@pytest.mark.parametrize("resize", [None, 36])
def test_a_crop_is_torchvisions(tmp_path, width, height, resize):
    path = save(tmp_path / "a.png", (width, height))
    steps = ([transforms.Resize(resize)] if resize else []) + [transforms.CenterCrop(24), transforms.PILToTensor()]
    expected = transforms.Compose(steps)(Image.open(path))
    found = ImageFiles("one", tmp_path, ["a.png"], size=24, resize=resize)[torch.tensor([0])][0]
    assert (found.int() - expected.int()).abs().max() <= 1


def test_a_picture_smaller_than_the_crop_is_enlarged_not_padded():
    white = Image.new("RGB", (30, 20), "white")
    assert centre_crop(white, 64).min() == 255 and centre_crop(white, 64).shape == (3, 64, 64)


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA"])
def test_grey_cmyk_and_transparent_pictures_become_rgb(tmp_path, mode):
    path = save(tmp_path / ("a.png" if mode == "RGBA" else "a.jpg"), mode=mode)
    found = ImageFiles("one", tmp_path, [path.name], size=24)[torch.tensor([0])][0]
    expected = transforms.functional.center_crop(Image.open(path).convert("RGB"), [24, 24])
    assert torch.equal(found, transforms.functional.pil_to_tensor(expected))


def test_imagenets_layout(imagenet):
    train, val = (open_images("imagenet", imagenet, split, size=24) for split in ("train", "val"))
    assert (train.name, len(train), len(val)) == ("imagenet (train)", 6, 6)
    expected = centre_crop(Image.open(imagenet / "train" / "n00000000" / "n_2.JPEG"), 24)
    assert torch.equal(train[torch.tensor([1])][0], expected)
    assert [str(p) for p in open_images("imagenet", imagenet, limit=2, size=24).paths] == [
        "train/n00000000/n_0.JPEG", "train/n00000001/n_1.JPEG",
    ]  # fmt: skip


def test_tiny_imagenets_layout_and_a_folder(tiny_imagenet):
    assert len(open_images("tiny-imagenet", tiny_imagenet, "train")) == 4
    assert len(open_images("tiny-imagenet", tiny_imagenet, "val")) == 4
    assert len(open_images("folder", tiny_imagenet)) == 8


def test_the_fingerprint_follows_the_files_and_not_where_they_lie(imagenet):
    first = open_images("imagenet", imagenet, size=24).fingerprint()
    moved = imagenet.rename(imagenet.with_name("moved"))
    assert open_images("imagenet", moved, size=24).fingerprint() == first
    assert open_images("imagenet", moved, size=25).fingerprint() != first
    assert open_images("imagenet", moved, size=24, resize=30).fingerprint() != first
    save(moved / "train" / "n00000000" / "n_0.JPEG", (60, 60))
    assert open_images("imagenet", moved, size=24).fingerprint() != first


def test_a_teacher_embeds_files_read_by_other_processes(tiny_imagenet, tmp_path, monkeypatch):
    data = open_images("tiny-imagenet", tiny_imagenet)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mean_colour.py").write_text("def embed(images):\n    return images.mean((2, 3))\n")
    assert multiprocessing.get_start_method(allow_none=True) in (None, "fork")
    targets = cached_targets(load_teacher("mean_colour:embed"), data, folder=tmp_path / "targets", workers=1)
    expected = data[torch.arange(4)].float().mean((2, 3)) / 255
    torch.testing.assert_close(targets[:], expected, atol=1e-3, rtol=0)


def test_a_truncated_picture_is_named(imagenet):
    path = imagenet / "train" / "n00000001" / "n_3.JPEG"
    path.write_bytes(path.read_bytes()[:400])
    data = open_images("imagenet", imagenet, size=24)
    with pytest.raises(ValueError, match=r"n00000001/n_3\.JPEG cannot be read as a picture: .*[Tt]runcated"):
        data[torch.arange(6)]
    path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"n00000001/n_3\.JPEG cannot be read as a picture: cannot identify"):
        data[torch.arange(6)]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"dataset": "cifar"},
            ValueError,
            "unknown data set 'cifar'; choose embedded, imagenet, tiny-imagenet, folder",
        ),
        ({"dataset": "imagenet"}, ValueError, "imagenet needs --data-dir"),
        ({"data_dir": "here"}, ValueError, "embedded crops come with the course; leave --data-dir"),
        ({"split": "test"}, ValueError, "unknown split 'test'; choose train or val"),
        ({"limit": 1}, ValueError, "asked for 1 images; ask for at least 2"),
        ({"size": 9999, "limit": 4}, ValueError, "crops of size 9999 do not fit"),
        ({"dataset": "folder", "data_dir": "no such folder"}, FileNotFoundError, "no such folder is not a folder"),
    ],
)
def test_wrong_arguments_are_one_clear_line(arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        open_images(**arguments)
    assert "\n" not in str(caught.value)


def test_other_layouts_are_refused(imagenet, tiny_imagenet, tmp_path):
    (tmp_path / "empty" / "train").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"empty holds no pictures in train/CLASS/ or val/ \(split train\)"):
        open_images("imagenet", tmp_path / "empty")
    with pytest.raises(ValueError, match=r"empty holds no pictures \(split train\)"):
        open_images("folder", tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match=r"empty has no folder val/, so it is not laid out as imagenet"):
        open_images("imagenet", tmp_path / "empty", "val")
    save(tmp_path / "flat" / "train" / "a.png")
    for dataset in ("imagenet", "tiny-imagenet"):
        with pytest.raises(ValueError, match=f"is it laid out as {dataset}"):
            open_images(dataset, tmp_path / "flat")
    with pytest.raises(ValueError, match="a folder has no split 'val'"):
        open_images("folder", tmp_path, "val")
    with pytest.raises(ValueError, match="size is 64, resize 32; the crop has to fit"):
        open_images("folder", tmp_path, size=64, resize=32)
