"""Pairs: two patches, and how many people could not tell them apart. The judgments behind just noticeable differences.

:class:`Pairs` holds judgments from anywhere. :func:`simulated` gives some without a download. They are *simulated*:
no person ever saw them. The observers see through shift-tolerant LPIPS-VGG, as those of the simulated triplets do, so
metrics of the LPIPS family win on them by construction.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from course_lib.data import triplets
from course_lib.data.judged import Judged

OBSERVERS = 3  # as in BAPPS JND
THRESHOLD = 0.12  # distance at which half of the simulated observers see a difference: 3 to 4 of 10 answers are "same"
TAU = 0.03  # how gradually that happens; a choice: nothing that people did decides it
SEEDS = {"train": 81, "val": 82, "test": 83}


class Pair(NamedTuple):
    """One pair, or a batch of them: images float32 in [0, 1], same = fraction of people who saw no difference."""

    p0: Float[Tensor, "*n 3 h w"]
    p1: Float[Tensor, "*n 3 h w"]
    same: Float[Tensor, "*n"]


@dataclass
class Pairs(Judged):
    """Judgments of the kind "are these two the same?", as a torch Dataset of :class:`Pair` items.

    Used as :class:`~course_lib.data.triplets.Triplets` is.

    Attributes:
        name: what to call the data in tables; simulated judgments say so here.
        p0, p1: images, uint8 (n, 3, h, w).
        same: (n,) fraction of people who could not tell p0 and p1 apart, in [0, 1].
        photo: (n,) index into `photographs` of the photograph that the pair was cut from. Optional.
        photographs: their names.
        subset: for each pair, the part of the data set that it belongs to, such as "traditional". Optional.

    Raises:
        ValueError: if the parts do not fit together, or a judgment is outside [0, 1].
    """

    name: str
    p0: UInt8[Tensor, "n 3 h w"]
    p1: UInt8[Tensor, "n 3 h w"]
    same: Float32[Tensor, "n"]
    photo: Int64[Tensor, "n"] | None = None
    photographs: tuple[str, ...] = ()
    subset: list[str] | None = None

    pictures: ClassVar[tuple[str, ...]] = ("p0", "p1")
    votes: ClassVar[str] = "same"

    def __post_init__(self):
        self._check_in_memory("pairs")

    def __getitem__(self, index: int | slice | Tensor) -> Pair:
        """One pair for an integer; a batch of them for a slice or a tensor of indices."""
        p0, p1 = (images[index].float() / 255 for images in (self.p0, self.p1))
        return Pair(p0, p1, self.same[index])


def simulated(split: str) -> Pairs:
    """*Simulated* answers to "same or different?": both pairs (ref, p0) and (ref, p1) of every simulated triplet.

    First come all pairs (ref, p0), then all (ref, p1). Of 3 simulated observers each answers "same" with probability
    sigmoid((`THRESHOLD` - d) / `TAU`), where d is the distance that the observers of the triplets saw. LPIPS-like
    metrics win here by construction.

    Raises:
        ValueError, RuntimeError: as :func:`course_lib.data.triplets.simulated`.
    """
    source = triplets.simulated(split)
    wanted = tuple(SEEDS) if split == "all" else (split,)
    same = torch.cat([_simulated_answers(name) for name in wanted], dim=1)  # (2, n): for p0, for p1
    return Pairs(
        f"simulated ({split})",
        torch.cat([source.ref, source.ref]),
        torch.cat([source.p0, source.p1]),
        same.flatten(),
        None if source.photo is None else source.photo.repeat(2),
        source.photographs,
    )


def probability_same(distance: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """How likely a simulated observer answers "same" at a distance of shift-tolerant LPIPS-VGG: ½ at `THRESHOLD`."""
    return torch.sigmoid((THRESHOLD - distance.double()) / TAU)


def _simulated_answers(split: str) -> Float32[Tensor, "2 n"]:
    """Fraction of the simulated observers who answer "same", for the pairs (ref, p0) and (ref, p1) of a split."""
    probability = probability_same(torch.stack(triplets.simulated_distances(split)))
    generator = torch.Generator().manual_seed(SEEDS[split])
    draws = torch.rand(OBSERVERS, *probability.shape, generator=generator, dtype=torch.float64)
    return (draws < probability).float().mean(0)
