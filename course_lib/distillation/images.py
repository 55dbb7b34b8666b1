"""What to distil on: crops of the course's photographs, ImageNet-1k, Tiny-ImageNet, or any folder of pictures.

No labels are needed. All pictures of a data set have one size, and each looks the same in every epoch, because the
teacher's embeddings are computed once: variety comes from many crops, flips and jittered colours.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from course_lib.data import distortions, photos
from course_lib.data.pictures import DAMAGED
from course_lib.distillation.targets import ImageData, TensorImages

DATASETS = ("embedded", "imagenet", "tiny-imagenet", "folder")
EXTENSIONS = (".jpeg", ".jpg", ".png", ".bmp", ".webp", ".ppm")
MEMORY = 2**28  # bytes of embedded crops, unless told how many: 21,845 of 64 x 64, 1,783 of 224 x 224


def open_images(
    dataset: str = "embedded",
    data_dir: str | Path | None = None,
    split: str = "train",
    *,
    size: int = 64,
    resize: int | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> ImageData:
    """Images of a data set.

    Args:
        dataset: "embedded", crops of the course's photographs (needs nothing); "imagenet", with pictures in
            ``train/CLASS/`` and ``val/``; "tiny-imagenet", with pictures in ``train/CLASS/images/`` and
            ``val/images/``; "folder", every picture in a folder and its subfolders.
        data_dir: where the data lies; not for "embedded".
        split: "train" or "val". A folder is one split and has no other.
        size: height and width in pixels: of random crops of photographs, or of the centre crop of a picture.
        resize: bring the shorter side of a picture to so many pixels first. None: crop it as stored, as published.
            Not for "embedded".
        limit: use only so many: embedded crops can be any number, pictures in files are then spread evenly.
        seed: of the embedded crops.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: for an unknown data set or split, a missing or superfluous `data_dir`, a folder with another
            layout, or without pictures.
    """
    if dataset not in DATASETS:
        raise ValueError(f"unknown data set {dataset!r}; choose {', '.join(DATASETS)}")
    if split not in ("train", "val"):
        raise ValueError(f"unknown split {split!r}; choose train or val")
    if dataset == "embedded":
        if data_dir is not None or resize is not None:
            raise ValueError("embedded crops come with the course; leave --data-dir and --resize out")
        return embedded(split, limit, size, seed)
    if data_dir is None:
        raise ValueError(f"{dataset} needs --data-dir, the folder where its pictures lie")
    folder = Path(data_dir)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder; name the one that holds the pictures of {dataset}")
    paths = _pictures(folder, dataset, split)
    if limit is not None and limit < len(paths):
        paths = [paths[i * len(paths) // limit] for i in range(limit)]
    name = dataset if dataset != "folder" else folder.resolve().name
    return ImageFiles(f"{name} ({split})", folder, paths, size=size, resize=resize)


def embedded(split: str | Sequence[str] = "train", n: int | None = None, size: int = 64, seed: int = 0) -> TensorImages:
    """Random crops of the course's photographs; every second one is the one before it, distorted.

    Distortions are the 20 kinds of :mod:`course_lib.data.distortions`. Without them a student never sees the small
    differences that a perceptual metric is asked about.

    Args:
        split: "train", "val", "test", or names of photographs; see :func:`course_lib.data.photos.names`.
        n: how many, crops and distorted ones together; None: as many as fill 256 MB.
        size: height and width in pixels.
        seed: of crops and distortions; one seed gives the same images on every call.

    Raises:
        ValueError: for an unknown split, fewer than two images, or a size that a photograph does not have.
    """
    n = MEMORY // (3 * size * size) if n is None else n
    if n < 2:
        raise ValueError(f"asked for {n} images; ask for at least 2, a crop and its distortion")
    crops = photos.crops(split, (n + 1) // 2, size, seed).images
    generator = torch.Generator().manual_seed(seed + 1)
    images = torch.empty(2 * len(crops), 3, size, size, dtype=torch.uint8)
    images[::2] = crops
    for part in torch.arange(len(crops)).split(500):
        distorted = distortions.random_sequence(crops[part].float() / 255, generator)[0]
        images[2 * part + 1] = (distorted * 255).round().byte()
    name = split if isinstance(split, str) else "+".join(split)
    return TensorImages(f"embedded ({name}, {size})", images[:n])


class ImageFiles(Dataset):
    """Pictures in files, as :class:`~course_lib.distillation.ImageData`: read when an index asks for them.

    A picture is turned to RGB as torchvision does it (ImageNet holds a few CMYK pictures), optionally resized, and
    cropped in the middle. One that is smaller than the crop is first enlarged until it is not.

    Args:
        name: what to call them.
        folder: that the paths are relative to; it may move, the images are the same ones then.
        paths: of the pictures.
        size: height and width of the crop, in pixels.
        resize: bring the shorter side to so many pixels first (bilinear, antialiased). None: leave it as stored.

    Raises:
        ValueError: for no pictures, or impossible sizes. A picture that cannot be read is named when it is read.
    """

    def __init__(self, name: str, folder: str | Path, paths: Sequence[str], *, size: int, resize: int | None = None):
        if not paths:
            raise ValueError(f"{name} is empty; there are no pictures in {folder}")
        if size < 1 or (resize is not None and resize < size):
            raise ValueError(f"size is {size}, resize {resize}; the crop has to fit into what is resized")
        self.name, self.folder, self.size, self.resize = name, Path(folder), size, resize
        self.paths = np.array(paths, dtype=np.str_)  # one block of memory, which worker processes share

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Int64[Tensor, "n"]) -> UInt8[Tensor, "n 3 size size"]:
        return torch.stack([self._read(self.folder / str(self.paths[i])) for i in index.tolist()])

    def _read(self, path: Path) -> Tensor:
        try:
            with Image.open(path) as image:
                return centre_crop(image.convert("RGB"), self.size, self.resize)
        except DAMAGED as error:  # an UnidentifiedImageError is an OSError
            raise ValueError(f"{path} cannot be read as a picture: {' '.join(str(error).split())}") from None

    def fingerprint(self) -> str:
        """SHA-256 of crop, and of the name and size in bytes of every file."""
        digest = hashlib.sha256(f"{self.size} {self.resize}\n".encode())
        for path in self.paths.tolist():
            digest.update(f"{path} {os.stat(self.folder / path).st_size}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def centre_crop(image: Image.Image, size: int, resize: int | None = None) -> UInt8[Tensor, "3 size size"]:
    """The middle size x size pixels of an RGB picture whose shorter side is first brought to `resize` pixels."""
    short = min(image.size)
    wanted = max(size, short if resize is None else resize)
    if wanted != short:
        width, height = (max(wanted, round(side * wanted / short)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (round((side - size) / 2) for side in image.size)
    pixels = np.array(image.crop((left, top, left + size, top + size)))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _pictures(folder: Path, dataset: str, split: str) -> list[str]:
    """Paths of all pictures of a split, relative to `folder`, sorted."""
    if dataset == "folder":
        if split != "train":
            raise ValueError(f"a folder has no split {split!r}; name another folder instead")
        found = _below(folder, "")
    else:
        if not (folder / split).is_dir():
            raise FileNotFoundError(f"{folder} has no folder {split}/, so it is not laid out as {dataset}; see --help")
        found = _below(folder, split)
        if dataset == "tiny-imagenet":
            found = [path for path in found if path.split("/")[-2] == "images"]
        elif split == "train":
            found = [path for path in found if path.count("/") == 2]  # train/CLASS/NAME
    if not found:
        where = {"imagenet": "train/CLASS/ or val/", "tiny-imagenet": "train/CLASS/images/ or val/images/"}
        layout = f" in {where[dataset]}" if dataset in where else ""
        raise ValueError(f"{folder} holds no pictures{layout} (split {split}); is it laid out as {dataset}?")
    return found


def _below(folder: Path, start: str) -> list[str]:
    found: list[str] = []
    for place, _, files in os.walk(folder / start):
        here = os.path.relpath(place, folder).replace(os.sep, "/")
        prefix = "" if here == "." else f"{here}/"
        kept = (file for file in files if file.lower().endswith(EXTENSIONS) and not file.startswith("."))
        found.extend(prefix + file for file in kept)
    return sorted(found)
