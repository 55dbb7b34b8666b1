"""From 158,144 numbers per image to a few hundred that keep the distances: a count-sketch, then PCA, both streamed.

LPIPS is a squared Euclidean distance, but its embedding is too long for a student to match and too large to store: a
million images would fill 630 GB. A random sketch brings it to 4,096 numbers without looking at any data, and PCA of
sketches to the few that matter on photographs. Neither ever holds more than one batch of long embeddings.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.judgments.scores import spearman


class CountSketch(nn.Module):
    """Add every number of a long vector, with a random sign, to one of `size` buckets: (n, dim) -> (n, size).

    Linear, and right on average over the seeds: E <Sx, Sy> = <x, y>. A squared distance comes out with a relative
    standard deviation of at most sqrt(2 / size), 2.2 % at 4,096, whatever `dim` is and whatever the data.

    Args:
        dim: length of the vectors.
        size: number of buckets.
        seed: of buckets and signs.

    Raises:
        ValueError: if `dim` or `size` is not positive.

    Source: Charikar, Chen and Farach-Colton, ICALP 2002; variance: Weinberger et al., ICML 2009, lemma 2.
    """

    bucket: Tensor
    sign: Tensor

    def __init__(self, dim: int, size: int = 4096, seed: int = 0):
        super().__init__()
        if min(dim, size) < 1:
            raise ValueError(f"a sketch from {dim} to {size} numbers is impossible; both must be at least 1")
        generator = torch.Generator().manual_seed(seed)
        self.dim, self.size = dim, size
        # made again from the seed, so no part of a state_dict
        self.register_buffer("bucket", torch.randint(size, (dim,), generator=generator), persistent=False)
        self.register_buffer("sign", 2.0 * torch.randint(2, (dim,), generator=generator) - 1, persistent=False)

    def forward(self, x: Float[Tensor, "n dim"]) -> Float[Tensor, "n size"]:
        """Sketch of every row. On a GPU the order of the additions varies, and with it the last digits.

        Raises:
            ValueError: if the rows have another length.
        """
        if x.shape[1] != self.dim:
            raise ValueError(
                f"rows of {x.shape[1]} numbers, but the sketch is for {self.dim}; is the image size right?"
            )
        return x.new_zeros(len(x), self.size).index_add_(1, self.bucket, x * self.sign)


class StreamedPCA:
    """Principal components of rows that arrive in batches and are never kept: only their mean and covariance are.

    The sums are float64, so that the order of the batches does not matter. Memory: 8 dim² bytes, 134 MB for 4,096.

    Args:
        dim: length of the rows.
    """

    def __init__(self, dim: int):
        self.count = 0
        self.mean = torch.zeros(dim, dtype=torch.float64)
        self.scatter = torch.zeros(dim, dim, dtype=torch.float64)

    def update(self, rows: Float[Tensor, "n dim"]) -> None:
        """Take note of a batch of rows.

        Source: Chan, Golub and LeVeque, The American Statistician 37, 1983, equation (2.1), for matrices.
        """
        rows = rows.detach().cpu().double()
        total = self.count + len(rows)
        step = rows.mean(0) - self.mean
        centred = rows - rows.mean(0)
        self.scatter.addmm_(centred.T, centred).addr_(step, step, alpha=self.count * len(rows) / total)
        self.mean += step * (len(rows) / total)
        self.count = total

    def components(self, k: int) -> tuple[Float[Tensor, "k dim"], Float[Tensor, "k"]]:
        """The `k` directions of largest variance, orthonormal, largest first, and the variance along each.

        A direction's sign is arbitrary; its number of largest magnitude is made positive, so that results repeat.

        Raises:
            ValueError: if there are fewer than `k` of them: at most `dim`, and one less than there were rows.
        """
        most = min(len(self.mean), self.count - 1)
        if not 1 <= k <= most:
            raise ValueError(f"{k} principal components of {self.count} rows; 1 to {most} are possible: add rows")
        # single precision: half the time for 4,096 numbers, and far finer than the sketch
        variances, vectors = torch.linalg.eigh((self.scatter / (self.count - 1)).float())
        top = vectors[:, -k:].flip(1).T
        peak = top.gather(1, top.abs().argmax(1, keepdim=True))
        return top * peak.sign(), variances[-k:].flip(0)


class Reduction(nn.Module):
    """Sketch (if there is one), then project onto principal components: (n, long) -> (n, dim).

    A projection never makes a distance longer, so what PCA gets wrong it makes too small. The mean does not matter to
    distances, but it does to angles: features of a ReLU point into one quadrant, all at about the same length, and only
    there does the angle between two of them rank pairs as their distance does. So by default the mean stays.

    Attributes:
        sketch: a :class:`CountSketch`, or nn.Identity.
        mean: (width,) of the rows that it was fitted to.
        components: (dim, width), orthonormal, largest variance first.
        centred: whether the mean is subtracted.
    """

    mean: Tensor
    components: Tensor

    def __init__(
        self,
        sketch: nn.Module,
        mean: Float[Tensor, "width"],
        components: Float[Tensor, "dim width"],
        centred: bool = False,
    ):
        super().__init__()
        self.sketch, self.centred = sketch, centred
        self.register_buffer("mean", mean.float())
        self.register_buffer("components", components.float())

    @property
    def dim(self) -> int:
        """How many numbers are left."""
        return len(self.components)

    def forward(self, rows: Float[Tensor, "n long"]) -> Float[Tensor, "n dim"]:
        """Reduce every row."""
        short = self.sketch(rows)
        return (short - self.mean if self.centred else short) @ self.components.T

    def first(self, dim: int) -> "Reduction":
        """The same with the first `dim` components only: principal components are nested.

        Raises:
            ValueError: if there are not so many.
        """
        if not 1 <= dim <= self.dim:
            raise ValueError(f"dim is {dim}; this reduction has 1 to {self.dim} components")
        return Reduction(self.sketch, self.mean, self.components[:dim], self.centred)


def fit_reduction(
    batches: Iterable[Float[Tensor, "n long"]], dim: int, *, sketch_size: int = 4096, seed: int = 0
) -> Reduction:
    """Fit sketch and PCA to rows that arrive in batches; rows of up to `sketch_size` numbers need no sketch.

    Args:
        batches: of long rows, such as embeddings of training crops. One batch is in memory at a time.
        dim: numbers to keep.
        sketch_size: numbers that PCA sees.
        seed: of the sketch.

    Raises:
        ValueError: for no rows, or fewer than `dim` + 1.
    """
    sketch: nn.Module | None = None
    for rows in batches:
        if sketch is None:
            long = rows.shape[1]
            sketch = nn.Identity() if long <= sketch_size else CountSketch(long, sketch_size, seed).to(rows.device)
            pca = StreamedPCA(min(long, sketch_size))
            device = rows.device
        pca.update(sketch(rows))
    if sketch is None:
        raise ValueError("there is not one batch of rows to fit a reduction to")
    components, _ = pca.components(dim)
    return Reduction(sketch, pca.mean, components).to(device)


class DistanceError(NamedTuple):
    """How well short embeddings keep the distances of long ones.

    Attributes:
        dim: length of the short ones.
        ratio: median of short over long distance; below 1 they are too small on the whole.
        error: median of |short - long| / long.
        worst: the same, exceeded by 5 % of the pairs.
        spearman: rank correlation of short and long distances, which no common factor changes.
    """

    dim: int
    ratio: float
    error: float
    worst: float
    spearman: float


def distance_errors(
    pairs: Iterable[tuple[Tensor, Tensor]],
    embed: Callable[[Tensor], Float[Tensor, "n long"]],
    reduction: Reduction,
    dims: Sequence[int] = (32, 64, 128, 256, 512, 1024),
) -> list[DistanceError]:
    """Measure what a reduction does to distances, for several dimensions in one pass.

    Args:
        pairs: batches (x, y) of what `embed` takes; pairs at distance 0 are left out. Choose pairs of the kind that
            matter: a picture and its distortions, or two pictures.
        embed: the long embedding.
        reduction: fitted to other data than `pairs`.
        dims: those above `reduction.dim` are left out.

    Raises:
        ValueError: if no pair has a distance.
    """
    dims = [dim for dim in dims if dim <= reduction.dim]
    long, short = [], []
    for x, y in pairs:
        e, f = embed(x), embed(y)
        long.append((e - f).norm(dim=1).double())
        parts = (reduction(e) - reduction(f)).double().square().cumsum(1)
        short.append(parts[:, [dim - 1 for dim in dims]].sqrt())
    exact = torch.cat(long) if long else torch.zeros(0)
    apart = exact > 0
    if not apart.any():
        raise ValueError(f"none of {len(exact)} pairs has a distance; take pairs of different images")
    exact, reduced = exact[apart], torch.cat(short)[apart]
    results = []
    for dim, distance in zip(dims, reduced.T, strict=True):
        relative = (distance / exact - 1).abs()
        ratio, error, worst = (distance / exact).median(), relative.median(), relative.quantile(0.95)
        results.append(DistanceError(dim, ratio.item(), error.item(), worst.item(), spearman(distance, exact)))
    return results
