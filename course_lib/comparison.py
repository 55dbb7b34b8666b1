"""Distances between picture files: what ``python -m course_lib lpips`` does.

A pair must have one size; nothing is resized. A file that cannot be used, or a pair that does not fit, becomes one
line of `problems`, and the rest is compared all the same.
"""

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from course_lib import weights
from course_lib.data.pictures import read_image
from course_lib.lpips import LPIPS
from course_lib.paths import write_atomically

PIXELS_AT_ONCE = 2**20  # in one batch, whatever --batch-size says: the first feature maps of larger ones take gigabytes
Pairs = list[tuple[Path, Path]]


@dataclass
class Comparison:
    """Distances between picture files, and what could not be compared.

    Attributes:
        net: network of LPIPS.
        weights: where its weights come from.
        results: one dict per pair: a, b, distance.
        problems: one line each.
    """

    net: str
    weights: str
    results: list[dict] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def table(self) -> pd.DataFrame:
        """The results as a table with columns a, b, distance."""
        return pd.DataFrame(self.results, columns=["a", "b", "distance"])

    def write(self, path: Path) -> None:
        """Write everything to a .json file, or the table to a .csv file, atomically."""
        if path.suffix == ".json":
            content = json.dumps(asdict(self), indent=2) + "\n"
        else:
            content = self.table().assign(net=self.net).to_csv(index=False, lineterminator="\n")
        write_atomically(path, content.encode())


def find_pairs(a: Path, b: Path | None, all_pairs: bool) -> tuple[Pairs, list[str]]:
    """Pairs of files: the two that are given, those of two folders that share a name, or all pairs in one folder.

    Names are compared without their extensions, so that x.png and x.jpg are a pair. Hidden files and subfolders
    are left out.

    Returns:
        The pairs, and one line for every problem: names that occur in one folder only, or twice in a folder.

    Raises:
        ValueError: if the arguments are not one of these three cases.
        FileNotFoundError: if a or b does not exist.
    """
    for path in (a, b):
        if path and not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
    if all_pairs:
        if b or not a.is_dir():
            raise ValueError("--all-pairs takes one folder, and nothing else")
        return list(itertools.combinations(_files(a), 2)), []
    if b is None:
        raise ValueError(f"only {a} was given; name a second file or folder, or add --all-pairs for a folder")
    if a.is_dir() != b.is_dir():
        raise ValueError(f"{a} and {b} are a file and a folder; give two files or two folders")
    if not a.is_dir():
        return [(a, b)], []
    left, right = _by_stem(a), _by_stem(b)
    problems = []
    for mine, theirs, here, there in ((left, right, a, b), (right, left, b, a)):
        alone = [path.name for stem in sorted(mine.keys() - theirs.keys()) for path in mine[stem]]
        if alone:
            problems.append(f"{len(alone)} in {here} without a partner in {there}: {', '.join(alone)}")
    pairs: Pairs = []
    for stem in sorted(left.keys() & right.keys()):
        if len(left[stem]) == len(right[stem]) == 1:
            pairs += [(left[stem][0], right[stem][0])]
        else:
            names = ", ".join(map(str, left[stem] + right[stem]))
            problems.append(f"{stem!r} is not one file in each folder, so the pair is unclear: {names}")
    return pairs, problems


def compare(
    a: Path, b: Path | None = None, *, all_pairs: bool = False, net: str = "st-alex", batch_size: int = 16
) -> Comparison:
    """LPIPS distances of the pairs that :func:`find_pairs` finds, with a progress bar on a terminal when they are many.

    Raises:
        ValueError, FileNotFoundError: as :func:`find_pairs` and :class:`~course_lib.lpips.LPIPS`.
        ConnectionError: if the net's weights must be downloaded and there is no network.
    """
    pairs, problems = find_pairs(a, b, all_pairs)
    model = LPIPS(net)
    source = weights.FILES[net].what if net in weights.FILES else f"{weights.FILES[f'{net}-0.1'].what}, ImageNet trunk"
    comparison = Comparison(net, source, [], problems)
    progress = tqdm(pairs, unit="pair", disable=None if len(pairs) > batch_size else True)
    for batch in _batches(progress, batch_size, model.min_size, problems):
        x, y = (torch.stack(images) for images in list(zip(*batch, strict=True))[1:])
        for ((first, second), *_), distance in zip(batch, model(x, y).tolist(), strict=True):
            comparison.results.append({"a": str(first), "b": str(second), "distance": float(f"{distance:.6g}")})
    return comparison


def _batches(
    pairs: Iterable[tuple[Path, Path]], batch_size: int, min_size: int, problems: list[str]
) -> Iterator[list[tuple[tuple[Path, Path], Tensor, Tensor]]]:
    """Yield neighbouring pairs of one size together; what cannot be compared is added to `problems`, once."""
    batch: list[tuple[tuple[Path, Path], Tensor, Tensor]] = []
    for pair in pairs:
        images, found = [], []
        for path in pair:
            try:
                images.append(read_image(path))
            except ValueError as error:
                found.append(str(error))
        if not found:
            found = [*_misfits(pair, images, min_size)]
        problems += [problem for problem in found if problem not in problems]
        if found:
            continue
        x, y = images
        limit = min(batch_size, max(1, PIXELS_AT_ONCE // x[0].numel()))
        if batch and (len(batch) >= limit or x.shape != batch[0][1].shape):
            yield batch
            batch = []
        batch.append((pair, x, y))
    if batch:
        yield batch


def _misfits(pair: tuple[Path, Path], images: Sequence[Tensor], min_size: int) -> Iterator[str]:
    sizes = [f"{image.shape[2]} x {image.shape[1]}" for image in images]
    if sizes[0] != sizes[1]:
        yield f"{pair[0]} is {sizes[0]} pixels but {pair[1]} is {sizes[1]}; resize or crop one of them"
    elif min(images[0].shape[1:]) < min_size:
        yield f"{pair[0]} and {pair[1]} are {sizes[0]} pixels; at least {min_size} x {min_size} is needed"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for path in _files(folder):
        found[path.stem].append(path)
    return found
