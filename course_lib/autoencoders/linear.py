"""PCA is the linear autoencoder.

With linear units, squared error and centred data, the best decoder's columns span the first k principal directions.
The weights themselves are free: V A and A^-1 W reconstruct the same for any invertible A, so an autoencoder finds
PCA's subspace, not its axes.

Source: Baldi and Hornik, Neural Networks 2, 1989.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib.autoencoders.fitting import fit
from course_lib.autoencoders.initialisation import initialise
from course_lib.autoencoders.models import Dense


class PCA(NamedTuple):
    """Principal directions of a set of images.

    Attributes:
        mean: (c, h, w).
        directions: (d, k), orthonormal columns, by falling variance.
        variances: (k,) along them.
    """

    mean: Tensor
    directions: Tensor
    variances: Tensor

    def reconstruct(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Images projected onto the mean and the directions."""
        centred = (images - self.mean).flatten(1)
        return (centred @ self.directions @ self.directions.T).view_as(images) + self.mean


def pca(images: Float[Tensor, "n c h w"], k: int) -> PCA:
    """The first k principal directions, by singular value decomposition in float64.

    Raises:
        ValueError: if k is not between 1 and the number of pixels, or of images.
    """
    mean = images.mean(0)
    centred = (images - mean).flatten(1).double()
    if not 1 <= k <= min(centred.shape):
        raise ValueError(f"k is {k}; {len(images)} images of {centred.shape[1]} pixels have 1 to {min(centred.shape)}")
    _, singular, rows = torch.linalg.svd(centred, full_matrices=False)
    variances = singular**2 / len(images)
    return PCA(mean, rows[:k].T.to(images), variances[:k].to(images))


def eigengaps(variances: Float[Tensor, "d"]) -> Float[Tensor, "d-1"]:
    """How many times the next variance each one is: the k-th says how well defined the first k directions are."""
    return variances[:-1] / variances[1:]


def principal_angles(a: Float[Tensor, "d k"], b: Float[Tensor, "d k"]) -> Float[Tensor, "k"]:
    """Angles in degrees, from small to large, between the spaces that two matrices' columns span.

    The largest is 0 where the spaces are the same, whatever the columns.

    Raises:
        ValueError: if the columns of one are linearly dependent.

    Source: Björck and Golub, Mathematics of Computation 27, 1973.
    """
    bases = []
    for name, matrix in (("a", a.double()), ("b", b.double())):
        if torch.linalg.matrix_rank(matrix) < matrix.shape[1]:
            raise ValueError(f"the columns of {name} are linearly dependent; they span less than {a.shape[1]} axes")
        bases.append(torch.linalg.qr(matrix).Q)
    cosines = torch.linalg.svdvals(bases[0].T @ bases[1])
    return cosines.clamp(max=1).acos().rad2deg().to(a)


def linear_autoencoder(
    images: Float[Tensor, "n c h w"], k: int, *, epochs: int = 40, learning_rate: float = 1e-2, seed: int = 0,
    **options: Any,
) -> Dense:  # fmt: skip
    """A trained autoencoder with k linear units; it takes images minus their mean.

    Args:
        images: they are centred here.
        k: code size.
        epochs: how many.
        learning_rate: of Adam at the start.
        seed: of the weights at the start and the order of the images.
        options: of :func:`fit`.
    """
    _, c, h, w = images.shape
    model = Dense(k, "linear", output="linear", shape=(c, h, w))
    initialise(model, "xavier", torch.Generator().manual_seed(seed))
    fit(model, images - images.mean(0), epochs=epochs, learning_rate=learning_rate, seed=seed, **options)
    return model


def mixing(model: Dense, directions: Float[Tensor, "d k"]) -> Float[Tensor, "k k"]:
    """The A of V = U A for orthonormal directions U: what the autoencoder's columns are in PCA's axes.

    Where V spans the same space as U, the best codes are A^-1 U^T x. W itself is A^-1 U^T only as far as the data
    vary: what it does to a pixel that is always 0 was never trained.
    """
    return directions.T @ model.columns.detach()
