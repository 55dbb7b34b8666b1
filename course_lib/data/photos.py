"""Real colour photographs that scikit-image, scikit-learn and matplotlib ship, and crops of them.

They are few, so a split is made of whole photographs: no test crop shares a photograph with a training crop,
and confidence intervals resample photographs, not crops. Nothing is downloaded.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from PIL import Image
from torch import Tensor

from course_lib.data import LUMA, SPLITS, check_split
from course_lib.data.bundled import BundledFile

SCALES = (1.0, 1.5, 2.0, 3.0, 4.0)
FLATNESS = 0.02
EXAMPLE_FOLDER = Path(__file__).parent / "lpips_example"


@dataclass(frozen=True)
class Source(BundledFile):
    """Where a picture comes from, and the split and photograph that it belongs to."""

    split: str
    photograph: str


# The test split holds an animal, a building among trees, and a person: the kinds of picture that BAPPS is made of.
# The two motorcycle pictures are a stereo pair: one photograph, seen twice.
_TABLE = [
    ("train", "skimage", "astronaut.png", "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"),
    ("train", "skimage", "coffee.png", "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7"),
    ("train", "skimage", "motorcycle_left.png", "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179"),
    ("train", "skimage", "motorcycle_right.png", "5fc913ae870e42a4b662314bc904d1786bcad8e2f0b9b67dba5a229406357797"),
    ("train", "skimage", "hubble_deep_field.jpg", "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4"),
    ("train", "skimage", "ihc.png", "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef"),
    ("train", "skimage", "retina.jpg", "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6"),
    ("val", "skimage", "rocket.jpg", "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c"),
    ("val", "sklearn", "flower.jpg", "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638"),
    ("test", "skimage", "chelsea.png", "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"),
    ("test", "sklearn", "china.jpg", "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29"),
    ("test", "matplotlib", "grace_hopper.jpg", "a8ca6d734765703b09728ab47fe59f473d93ae3967fc24c7c0288c3c7adb7130"),
]
_FOLDERS = {
    "skimage": ("scikit-image", "skimage/data"),
    "sklearn": ("scikit-learn", "sklearn/datasets/images"),
    "matplotlib": ("matplotlib", "matplotlib/mpl-data/sample_data"),
}


def _source(split: str, package: str, file: str, sha256: str) -> Source:
    distribution, folder = _FOLDERS[package]
    photograph = Path(file).stem.removesuffix("_left").removesuffix("_right")
    return Source(distribution, f"{folder}/{file}", sha256, split, photograph)


SOURCES: dict[str, Source] = {Path(row[2]).stem: _source(*row) for row in _TABLE}
PHOTOGRAPHS: tuple[str, ...] = tuple(dict.fromkeys(source.photograph for source in SOURCES.values()))


class Crops(NamedTuple):
    """Square patches of photographs, and for each the index into `PHOTOGRAPHS` of where it was cut."""

    images: UInt8[Tensor, "n 3 size size"]
    photo: Int64[Tensor, "n"]


def names(split: str | Sequence[str] = "all") -> tuple[str, ...]:
    """Names of the photographs of ``"train"``, ``"val"``, ``"test"`` or ``"all"``, or of a given list of photographs.

    Raises:
        ValueError: for an unknown split or photograph, naming the known ones.
    """
    if isinstance(split, str):
        check_split(split, (*SPLITS, "all"))
        return tuple(dict.fromkeys(s.photograph for s in SOURCES.values() if split in (s.split, "all")))
    if unknown := [name for name in split if name not in PHOTOGRAPHS]:
        raise ValueError(f"unknown photograph {unknown[0]!r}; use some of {', '.join(PHOTOGRAPHS)}")
    if not split:
        raise ValueError("no photographs were named; use a split or a list of at least one photograph")
    return tuple(dict.fromkeys(split))


def load(split: str | Sequence[str] = "all") -> dict[str, UInt8[Tensor, "3 h w"]]:
    """Whole pictures by name, uint8 (3, h, w). The stereo photograph *motorcycle* gives two pictures.

    Raises:
        ValueError: for an unknown split, or a file that is not the one the course was written for.
        FileNotFoundError: for a missing file.
    """
    wanted = names(split)
    return {name: _picture(name).clone() for name, source in SOURCES.items() if source.photograph in wanted}


def single(name: str) -> Float[Tensor, "1 3 h w"]:
    """One picture as a batch of one, float32 in [0, 1].

    Raises:
        ValueError, FileNotFoundError: as :func:`load`.
    """
    if name not in SOURCES:
        raise ValueError(f"unknown picture {name!r}; use one of {', '.join(SOURCES)}")
    return _picture(name)[None].float() / 255


def crops(split: str | Sequence[str], n: int, size: int = 64, seed: int = 0) -> Crops:
    """Cut `n` random crops, the same number (give or take one) from every photograph, in random order.

    As for BAPPS patches, each photograph is first shrunk by a factor drawn from `SCALES` (with antialiasing),
    so that crops show both texture and whole objects. Flat crops are skipped (see :func:`is_flat`). One seed
    gives the same crops on every call.

    Args:
        split: as in :func:`names`.
        n: how many, at least 1.
        size: height and width, in pixels.
        seed: of the random numbers.

    Raises:
        ValueError: for an unknown split, fewer than one crop, or a size larger than a photograph.
    """
    if n < 1:
        raise ValueError(f"asked for {n} crops; ask for at least 1")
    generator = torch.Generator().manual_seed(seed)
    chosen = [PHOTOGRAPHS.index(name) for name in names(split)]
    photo = torch.tensor(chosen)[torch.randperm(n, generator=generator) % len(chosen)]
    images = torch.empty(n, 3, size, size, dtype=torch.uint8)
    for index, own_seed in zip(chosen, torch.randint(2**62, (len(chosen),), generator=generator).tolist(), strict=True):
        here = photo == index
        own = torch.Generator().manual_seed(own_seed)
        images[here] = _crops_of(PHOTOGRAPHS[index], int(here.sum()), size, own)
    return Crops(images, photo)


def is_flat(images: UInt8[Tensor, "n 3 h w"]) -> Bool[Tensor, "n"]:
    """Whether a crop shows next to nothing: sky, black space, a plain wall.

    Luma's standard deviation within 8 x 8 blocks, averaged over the blocks, is below `FLATNESS` (of a range of 1).
    A lone edge between two flat areas is therefore flat too.
    """
    luma = torch.einsum("nchw,c->nhw", images.float() / 255, torch.tensor(LUMA))[:, None]
    mean, mean_of_squares = F.avg_pool2d(luma, 8), F.avg_pool2d(luma.square(), 8)
    return (mean_of_squares - mean.square()).clamp_min(0).sqrt().mean((1, 2, 3)) < FLATNESS


def lpips_example() -> tuple[Float[Tensor, "1 3 64 64"], Float[Tensor, "1 3 64 64"], Float[Tensor, "1 3 64 64"]]:
    """The LPIPS repository's example triplet (ref, p0, p1), float32 in [0, 1]; people find p1 closer to ref.

    Source: github.com/richzhang/PerceptualSimilarity, imgs/ex_*.png, BSD-2 (see lpips_example/LICENSE).
    """
    ref, p0, p1 = (_decode((EXAMPLE_FOLDER / f"ex_{name}.png").read_bytes()) for name in ("ref", "p0", "p1"))
    return ref[None].float() / 255, p0[None].float() / 255, p1[None].float() / 255


def describe() -> Iterator[tuple[str, str, str, str | None]]:
    """Yield (picture, "split, package", SHA-256, problem or None) for every picture, for the doctor."""
    for name, source in SOURCES.items():
        yield name, f"{source.split}, {source.package}", source.sha256, source.problem()


@cache
def _picture(name: str) -> Tensor:
    return _decode(SOURCES[name].read())


def _decode(content: bytes) -> Tensor:
    with Image.open(io.BytesIO(content)) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


@cache
def _shrunk(name: str, scale: float) -> Tensor:
    picture = _picture(name)
    if scale == 1:
        return picture
    size = [round(side / scale) for side in picture.shape[1:]]
    small = F.interpolate(picture[None].float(), size, mode="bicubic", antialias=True, align_corners=False)
    return small[0].round().clamp(0, 255).byte()


def _crops_of(photograph: str, n: int, size: int, generator: torch.Generator) -> Tensor:
    views = [name for name, source in SOURCES.items() if source.photograph == photograph]
    short_side = min(_picture(views[0]).shape[1:])
    if not 8 <= size <= short_side:
        raise ValueError(f"crops of size {size} do not fit {photograph}; use 8 to {short_side}")
    # at 1.5 crops a side and above, crops of a shrunk photograph still differ from one another
    scales = [scale for scale in SCALES if scale == 1 or short_side / scale >= 1.5 * size]
    levels = [_shrunk(view, scale) for view in views for scale in scales]
    found = torch.empty(n, 3, size, size, dtype=torch.uint8)
    missing = torch.arange(n)
    for _ in range(200):
        # every crop has its own row of draws, so that a borderline case on another machine moves that crop only
        level = torch.randint(len(levels), (n,), generator=generator)[missing]
        place = torch.rand(n, 2, generator=generator)[missing]
        for i, picture in enumerate(levels):
            found[missing[level == i]] = _cut(picture, place[level == i], size)
        missing = missing[is_flat(found[missing])]
        if len(missing) == 0:
            return found
    raise ValueError(f"{photograph} is flat nearly everywhere at size {size}; use another size")


def _cut(picture: Tensor, place: Tensor, size: int) -> Tensor:
    windows = picture.unfold(1, size, 1).unfold(2, size, 1)
    limits = torch.tensor(windows.shape[1:3])
    top, left = (place * limits).long().clamp(max=limits - 1).unbind(1)
    return windows[:, top, left].transpose(0, 1)
