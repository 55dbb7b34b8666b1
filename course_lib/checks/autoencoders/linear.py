"""Exercise 1.7: does a decoder span what PCA spans?"""

from collections.abc import Callable

import numpy as np
import scipy.linalg
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from course_lib.checks import Mistake, exercise, expect_close
from course_lib.checks.autoencoders.calling import call


def _oracle(x: Tensor, decoder: Tensor) -> Tensor:
    """Angles (k,) in degrees from small to large, by scikit-learn's PCA and SciPy's subspace angles."""
    directions = PCA(decoder.shape[1], svd_solver="full").fit(x.double().numpy()).components_.T
    return torch.from_numpy(np.degrees(scipy.linalg.subspace_angles(directions, decoder.double().numpy()))[::-1].copy())


def _angles(a: Tensor, b: Tensor, orthonormal: bool = True) -> Tensor:
    if orthonormal:
        a, b = torch.linalg.qr(a).Q, torch.linalg.qr(b).Q
    return torch.linalg.svdvals(a.T @ b).clamp(max=1).acos().rad2deg()


@exercise("1.7")
def angles_to_pca(attempt: Callable, random: torch.Generator) -> None:
    """Principal angles (k,) in degrees, small to large, between a decoder's columns and the first k directions."""
    k, d = 3, 6 + int(torch.randint(3, (), generator=random))
    spread = torch.linspace(3, 0.5, d).double()
    turn = torch.linalg.qr(torch.randn(d, d, generator=random).double()).Q
    x = torch.randn(60, d, generator=random).double() * spread @ turn.T
    x = (x + 20 * torch.randn(d, generator=random).double()) * torch.linspace(1, 2, d).double()
    centred = x - x.mean(0)
    directions = torch.linalg.svd(centred, full_matrices=False).Vh[:k].T
    decoder = directions @ torch.randn(k, k, generator=random).double()
    decoder = decoder + 0.3 * torch.randn(d, k, generator=random).double()
    x, decoder = x.float(), decoder.float()
    expect_close(
        call(attempt, x, decoder),
        _oracle(x, decoder).float(),
        _mistakes(x.double(), decoder.double()),
        atol=2e-2,
        rtol=1e-3,
    )
    # The same space, from other columns: the cosines are 1, and rounding may push them above
    mixed = torch.eye(k) + 0.3 * torch.randn(20, k, k, generator=random)
    same = (directions @ mixed.double()).float()
    for columns in same:
        found = call(attempt, x, columns)
        if isinstance(found, Tensor) and found.isnan().any():
            raise Mistake("right, but NaN for equal spaces, where rounding makes a cosine 1.0000001: .clamp(max=1)")
        too_large = "right, but equal spaces are 0 degrees apart; clamp the cosines at 1, no lower: .clamp(max=1)"
        # acos is steep at 1, where float32 makes angles of up to 0.1 degrees
        expect_close(found, torch.zeros(k), {too_large: lambda found: found.max() < 10}, atol=0.3)


def _mistakes(x: Tensor, decoder: Tensor) -> dict[str, Tensor | list[Tensor] | Callable]:
    k = decoder.shape[1]
    centred = x - x.mean(0)
    vh = torch.linalg.svd(centred, full_matrices=False).Vh
    directions = vh[:k].T
    raw = torch.linalg.svd(x, full_matrices=False).Vh[:k].T
    true = _angles(directions, decoder)
    cosines = true.deg2rad().cos()
    unit = decoder / decoder.norm(dim=0)
    basis = torch.linalg.qr(decoder).Q
    scaled = torch.linalg.svd(centred / centred.std(0), full_matrices=False).Vh[:k].T
    by_one = torch.linalg.svd(x - x.mean(), full_matrices=False).Vh[:k].T
    by_row = torch.linalg.svd(x - x.mean(1, keepdim=True), full_matrices=False).Vh[:k].T

    def one_by_one(b: Tensor) -> list[Tensor]:
        """Angles of the columns of b with the directions: of the same number, or the closest."""
        cosines = (directions.T @ b).abs().clamp(max=1)
        return [found.acos().rad2deg() for found in (cosines.diag(), cosines.amax(0), cosines.amax(1))]

    def is_any(*wrong: Tensor) -> list[Tensor]:
        return [version.float() for one in wrong for version in (one, one.sort().values)]

    loose = (directions.T @ decoder).double()
    unclamped = torch.linalg.svdvals(loose).acos().rad2deg()
    return {
        "the images are not centred, so the first direction only finds their mean: x - x.mean(0)": is_any(
            _angles(raw, decoder)
        ),
        "you subtracted every image's own mean; centring takes each pixel's mean over the images, x.mean(0)": is_any(
            _angles(by_row, decoder)
        ),
        "you subtracted one number from all pixels; centring takes each pixel's mean over the images, x.mean(0)": (
            is_any(_angles(by_one, decoder))
        ),
        "the decoder's columns are not orthonormal, so the singular values are no cosines: torch.linalg.qr first": (
            lambda found: any(
                found.shape == one.shape and torch.allclose(found.double(), one, atol=2e-2, equal_nan=True)
                for one in (unclamped, unclamped.sort().values, _angles(directions, decoder, orthonormal=False))
            )
        ),
        "you gave the columns length 1, but not right angles to each other: torch.linalg.qr": is_any(
            _angles(directions, unit, orthonormal=False), torch.linalg.svdvals(directions.T @ unit).acos().rad2deg()
        ),
        "you compared column with column; an autoencoder finds the space, not the axes: singular values of Q^T U": (
            is_any(*one_by_one(unit), *one_by_one(basis))
        ),
        "those are the *last* directions: eigh sorts upwards, so take the last k columns": is_any(
            _angles(vh[-k:].T, decoder)
        ),
        "the rows of Vh are the directions; take Vh[:k].T, not Vh[:, :k]": is_any(_angles(vh[:, :k], decoder)),
        "you took more than k directions; k is decoder.shape[1], whatever a k outside of the function is": is_any(
            *(_angles(vh[:more].T, decoder) for more in range(k + 1, len(vh) + 1))
        ),
        "every pixel was divided by its standard deviation; PCA only centres": is_any(_angles(scaled, decoder)),
        "those are radians; the result is in degrees": is_any(true.deg2rad()),
        "those are the cosines; take acos, then degrees": is_any(cosines),
        "those are the sines; take the cosines' acos": is_any(cosines.acos().sin()),
        "you took asin of the cosines; acos": is_any(90 - true),
        "the angles go from small to large": true.flip(0).float(),
        "that is one number, and there are k angles; return them all": lambda found: found.numel() == 1,
    }
