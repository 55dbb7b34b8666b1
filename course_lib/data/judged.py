"""What every set of judgments has in common: triplets or pairs, in memory or in files."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

Data = TypeVar("Data", bound="Judged")


class Judged(Dataset):
    """Pictures that people (or simulated observers) judged. Subclasses are dataclasses that name their columns.

    Attributes:
        pictures: names of the columns that hold pictures, such as ("ref", "p0", "p1").
        votes: name of the column that holds the judgments, such as "judge".
    """

    pictures: ClassVar[tuple[str, ...]]
    votes: ClassVar[str]
    name: str

    def __len__(self) -> int:
        return len(getattr(self, self.pictures[0]))

    def __getitem__(self, index: int | slice | Tensor) -> Any:
        raise NotImplementedError

    def select(self: Data, chosen: Tensor) -> Data:
        """Only the items that `chosen` names: indices, or a mask such as ``data.photo == 3``."""
        rows = torch.arange(len(self))[chosen]
        selected = copy.copy(self)
        for column, values in self._columns().items():
            kept = values[rows] if isinstance(values, Tensor) else [values[row] for row in rows.tolist()]
            setattr(selected, column, kept)
        return selected

    def batches(self, size: int = 100, generator: torch.Generator | None = None) -> Iterator[Any]:
        """Yield batches of up to `size` items: in order, or shuffled when there is a generator."""
        n = len(self)
        order = torch.arange(n) if generator is None else torch.randperm(n, generator=generator)
        for chosen in order.split(size):
            yield self[chosen]

    def _columns(self) -> dict[str, Tensor | Sequence]:
        """The columns that are there: one value for each item."""
        names = (*self.pictures, self.votes, "photo", "subset", "distortion")
        return {name: values for name in names if (values := getattr(self, name, None)) is not None}

    def _check_lengths(self, items: str) -> None:
        n = len(self)
        for column, values in self._columns().items():
            if len(values) != n:
                raise ValueError(f"{self.name}: {len(values)} values of {column} for {n} {items}; give one for each")

    def _check_in_memory(self, items: str) -> None:
        shapes = {name: tuple(getattr(self, name).shape) for name in self.pictures}
        if len(set(shapes.values())) > 1:
            listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise ValueError(f"{self.name}: the images of {items} must have one shape, not {listed}")
        self._check_lengths(items)
        votes = getattr(self, self.votes)
        wrong = ~((votes >= 0) & (votes <= 1))
        if wrong.any():
            at = int(wrong.nonzero()[0])
            raise ValueError(f"{self.name}: {self.votes}[{at}] is {votes[at]:.3g}; it is a fraction of votes, 0 to 1")
