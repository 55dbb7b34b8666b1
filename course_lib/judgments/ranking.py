"""What LPIPS learns from votes: heads on channel differences, and a loss that compares two distances.

A head weighs every channel and the average over positions weighs nothing, so the two can be swapped: LPIPS of a pair
is the product of its *channel differences*, the spatially averaged squared differences of unit features (1,152
numbers for AlexNet), with the weights of all heads. With a frozen trunk nothing else of the images is ever needed.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from course_lib.data.triplets import Triplet
from course_lib.lpips import LPIPS, unit_channels
from course_lib.paths import write_atomically
from course_lib.trunks import Trunk

DROPOUT = 0.5  # of the published training


@runtime_checkable
class TripletData(Protocol):
    """Judged triplets, in memory or in files: Triplets, TripletFiles."""

    name: str

    @property
    def judge(self) -> Tensor: ...  # noqa: D102
    def __len__(self) -> int: ...
    def __getitem__(self, index: Tensor) -> Triplet: ...
    def batches(self, size: int = 100, generator: torch.Generator | None = None) -> Iterator[Triplet]: ...  # noqa: D102


def channel_differences(
    trunk: Trunk,
    ref: Float[Tensor, "n 3 h w"],
    p0: Float[Tensor, "n 3 h w"],
    p1: Float[Tensor, "n 3 h w"],
    dropout: float = 0.0,
) -> tuple[Float[Tensor, "n channels"], Float[Tensor, "n channels"]]:
    """Squared differences of unit features, averaged over positions, of (ref, p0) and of (ref, p1), all layers.

    The values of the images are not checked here. `dropout` is the probability of dropping single elements before
    they are averaged, as the published training does.
    """
    layers = []
    for features in zip(*(trunk.stream(images) for images in (ref, p0, p1)), strict=True):
        first, *others = (unit_channels(f.float()) for f in features)
        layers.append([F.dropout((first - f).square(), dropout).mean((2, 3)) for f in others])
    d0, d1 = (torch.cat(parts, 1) for parts in zip(*layers, strict=True))
    return d0, d1


class Heads(nn.Module):
    """Non-negative weights of all channels of all layers: channel differences in, distances out.

    Args:
        widths: channels of each layer.
        dropout: probability of dropping whole channels in training.

    Weights start at random, uniform in ± 1 / sqrt(channels of the layer), and are clamped at 0, as published.
    """

    def __init__(self, widths: tuple[int, ...], dropout: float = DROPOUT):
        super().__init__()
        self.widths, self.dropout = tuple(widths), dropout
        starts = [torch.empty(width).uniform_(-1, 1) / width**0.5 for width in widths]
        self.weight = nn.Parameter(torch.cat(starts))
        self.clamp()

    def forward(self, differences: Float[Tensor, "n channels"]) -> Float[Tensor, "n"]:
        """Distance of every pair."""
        return F.dropout(differences, self.dropout, self.training) @ self.weight

    @torch.no_grad()
    def clamp(self) -> None:
        """Set negative weights to 0: with one, moving a feature apart would bring images closer."""
        self.weight.clamp_(min=0)

    def per_layer(self) -> list[Float[Tensor, "c"]]:
        """The weights of each layer, as :meth:`course_lib.lpips.LPIPS.set_heads` takes them."""
        return list(self.weight.detach().clone().split(self.widths))


class SigmoidRanking(nn.Module):
    """Predicts p1 with probability sigmoid(d0 - d1): the further away p0, the more votes for p1."""

    def forward(self, d0: Float[Tensor, "n"], d1: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Logits of "p1 is closer"."""
        return d0 - d1


class NetworkRanking(nn.Module):
    """Predicts the votes by a small network on (d0, d1, d0 - d1, d0 / d1, d1 / d0), which learns how sure to be.

    It is thrown away after training: only the distances are used. Nothing forces it to prefer the smaller distance.

    Source: Zhang et al., CVPR 2018, figure 3 and appendix B; inputs, slopes and the 0.1 from their code
    (``Dist2LogitLayer``).
    """

    def __init__(self, hidden: int = 32):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(5, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1)
        )

    def forward(self, d0: Float[Tensor, "n"], d1: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Logits of "p1 is closer"."""
        return self.net(torch.stack([d0, d1, d0 - d1, d0 / (d1 + 0.1), d1 / (d0 + 0.1)], 1)).squeeze(1)


RANKINGS = {"sigmoid": SigmoidRanking, "network": NetworkRanking}


class Ranker(nn.Module):
    """Heads and ranking, the loss of a batch, and, unless it is frozen, the trunk."""

    def __init__(self, heads: Heads, ranking: nn.Module, trunk: Trunk | None = None, element_dropout: float = 0.0):
        super().__init__()
        self.heads, self.ranking, self.element_dropout = heads, ranking, element_dropout
        self.trunk = trunk

    def loss(self, batch: "Triplet | Differences") -> Tensor:
        """Binary cross-entropy between the predicted and the given votes; their entropy is its minimum."""
        d0, d1 = self(batch)
        return F.binary_cross_entropy_with_logits(self.ranking(d0, d1), batch.judge)

    def forward(self, batch: "Triplet | Differences") -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """Distances (d0, d1) of images, or of channel differences that were computed before."""
        if isinstance(batch, Differences):
            return self.heads(batch.d0), self.heads(batch.d1)
        if self.trunk is None:
            raise ValueError("this ranker has no trunk; give it Differences, or build it with a trunk")
        dropout = self.element_dropout if self.training else 0.0
        differences = channel_differences(self.trunk, batch.ref, batch.p0, batch.p1, dropout)
        return self.heads(differences[0]), self.heads(differences[1])


class Differences(NamedTuple):
    """Channel differences of a batch of triplets, and their votes."""

    d0: Float[Tensor, "n channels"]
    d1: Float[Tensor, "n channels"]
    judge: Float[Tensor, "n"]


@dataclass
class CachedDifferences:
    """Channel differences of a whole data set, by one trunk: all that training or scoring heads needs of it.

    Attributes:
        name: of the data set.
        widths: channels of each layer.
        d0, d1: (n, channels) of (ref, p0) and (ref, p1).
        judge: (n,) fraction of votes for p1.
        photo: (n,) photograph of each triplet, where known.
    """

    name: str
    widths: tuple[int, ...]
    d0: Float[Tensor, "n channels"]
    d1: Float[Tensor, "n channels"]
    judge: Float[Tensor, "n"]
    photo: Int64[Tensor, "n"] | None = None

    def __len__(self) -> int:
        return len(self.judge)

    def __getitem__(self, index: slice | Tensor) -> Differences:
        return Differences(self.d0[index], self.d1[index], self.judge[index])

    def select(self, chosen: Tensor) -> "CachedDifferences":
        """Only the triplets that `chosen` names: indices or a mask."""
        d0, d1, judge = self[chosen]
        photo = None if self.photo is None else self.photo[chosen]
        return CachedDifferences(self.name, self.widths, d0, d1, judge, photo)

    def batches(self, size: int = 50, generator: torch.Generator | None = None) -> Iterator[Differences]:
        """Yield batches: in order, or shuffled when there is a generator, in the order that Triplets has with it."""
        n = len(self)
        order = torch.arange(n) if generator is None else torch.randperm(n, generator=generator)
        for chosen in order.split(size):
            yield self[chosen]


@torch.no_grad()
def cache_differences(
    metric: LPIPS, data: TripletData, *, batch_size: int = 50, folder: str | Path | None = None, progress: bool = False
) -> CachedDifferences:
    """Send every image through the metric's trunk, once, and keep the channel differences.

    Args:
        metric: only its trunk is used.
        data: the triplets.
        batch_size: triplets at a time.
        folder: where to keep them for the next time, as memory-mapped files that need not fit into memory (9 kB per
            triplet for AlexNet). Those of other triplets or another trunk are replaced. None keeps them in memory.
        progress: show a progress bar, on a terminal.

    Raises:
        ValueError: for empty data.
    """
    check_not_empty(data)
    trunk = metric.network.trunk
    photo, key = getattr(data, "photo", None), None
    if folder is not None:
        folder = Path(folder)
        key = fingerprint(trunk, data)
        stored = _stored(folder, key)
        if stored is not None:
            return CachedDifferences(data.name, trunk.widths, *stored, data.judge, photo)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("key.txt", "d0.npy", "d1.npy"):  # not overwritten: somebody may have them mapped into memory
            (folder / name).unlink(missing_ok=True)
    d0, d1 = (_array(folder, name, (len(data), sum(trunk.widths))) for name in ("d0", "d1"))
    start = 0
    for batch in tqdm(
        data.batches(batch_size), total=-(-len(data) // batch_size), disable=None if progress else True, unit="batch"
    ):
        rows = slice(start, start + len(batch.judge))
        d0[rows], d1[rows] = channel_differences(trunk, *(images.to(trunk.mean.device) for images in batch[:3]))
        start = rows.stop
    if folder is not None and key is not None:
        write_atomically(folder / "key.txt", key.encode())  # last: without it the arrays count as unfinished
    return CachedDifferences(data.name, trunk.widths, d0, d1, data.judge, photo)


def fingerprint(trunk: Trunk, data: TripletData) -> str:
    """Changes with the trunk's net and weights, the votes, and the first, middle and last images."""
    ends = data[torch.tensor([0, len(data) // 2, len(data) - 1])]
    content = hashlib.sha256(trunk.net.encode())
    for tensor in (*trunk.state_dict().values(), data.judge, *ends):
        content.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return content.hexdigest()


def check_not_empty(data: TripletData | CachedDifferences) -> None:
    """Raise a ValueError if there are no triplets."""
    if not len(data):
        raise ValueError(f"{data.name} is empty; give at least one triplet")


def _stored(folder: Path, key: str) -> tuple[Tensor, Tensor] | None:
    """The differences in `folder`, or None where they are others, unfinished or damaged."""
    try:
        if (folder / "key.txt").read_text() != key:
            return None
        d0, d1 = (torch.from_numpy(np.load(folder / f"{name}.npy", mmap_mode="c")) for name in ("d0", "d1"))
        return d0, d1
    except (OSError, ValueError, EOFError):
        return None


def _array(folder: Path | None, name: str, shape: tuple[int, int]) -> Tensor:
    if folder is None:
        return torch.empty(shape)
    return torch.from_numpy(np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, shape))
