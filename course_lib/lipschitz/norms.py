"""Norms of matrices and convolutions from above: what layers divide by, and what bounds are read from.

Power iteration approaches a norm from below, so a layer divided by its result can exceed 1. Everything here
approaches from above.
"""

import math

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

GRID = 8  # FFT points per kernel width: 4 % above the norm at worst, see `grid_correction`
ITERATIONS = 7  # Gram iterations: at most a factor rank^(1/256) above the norm, 3 % at rank 1024


def gram_bound(matrices: Inexact[Tensor, "*batch m n"], iterations: int = ITERATIONS) -> Float[Tensor, "*batch"]:
    """Largest singular value of every matrix from above, differentiable; also for complex matrices.

    With G = M M*, the Frobenius norm of G^p, p = 2^(iterations - 1), is at least its largest eigenvalue, which is
    the norm of M to the power 2p. Taking the 2p-th root closes the gap: the result is at most rank^(1/4p) above.
    Every power is divided by its norm, and the logarithms of those are added up, so nothing overflows.
    The result is 0 for a zero matrix, and is rounded up by a few units of the last place.

    The gradient is that of Re tr(C* M) at fixed C = G^p M, scaled to fit the result: it tends to u v*, the gradient
    of the largest singular value, and costs one multiplication instead of a backward pass through the iteration.

    Source: Delattre, Barthelemy, Araujo, Allauzen, Efficient bound of Lipschitz constant for convolutional layers by
    Gram iteration, ICML 2023, algorithm 1.
    """
    fixed = matrices.detach().resolve_conj()
    peak = _real(fixed).abs().amax((-3, -2, -1))
    fixed = fixed * peak.clamp_min(torch.finfo(peak.dtype).tiny).reciprocal()[..., None, None]
    wide_matrix = fixed.shape[-2] <= fixed.shape[-1]
    gram = fixed @ fixed.mH if wide_matrix else fixed.mH @ fixed
    log_norm = torch.zeros_like(peak)
    for iteration in range(iterations):
        gram = gram @ gram if iteration else gram
        norm = torch.linalg.vector_norm(_real(gram).flatten(-3), dim=-1)
        norm = torch.where(norm > 0, norm, 1)
        _real(gram).mul_(norm.reciprocal()[..., None, None, None])
        log_norm = 2 * log_norm + norm.log()
    slack = 1 + (16 + 4 * gram.shape[-1]) * torch.finfo(peak.dtype).eps
    bound = peak * (log_norm / 2**iterations).exp() * slack
    if not matrices.requires_grad:
        return bound
    inner = ((gram @ fixed if wide_matrix else fixed @ gram).conj() * matrices).real.sum((-2, -1))
    return bound * torch.where(inner > 0, inner / torch.where(inner > 0, inner, 1).detach(), 1)


def _real(matrices: Tensor) -> Tensor:
    """View as (*batch, m, n, 2), or 1 for real matrices: PyTorch's complex norms and divisions are slow."""
    return torch.view_as_real(matrices) if matrices.is_complex() else matrices[..., None]


def matrix_norm(matrix: Float[Tensor, "m n"]) -> float:
    """Largest singular value from above, in float64: root of the largest eigenvalue of the smaller Gram matrix.

    Far cheaper than an SVD of a long matrix. With m rows of n numbers, the Gram matrix M M^T is wrong by at most
    n eps |M|_F^2 in norm, and its eigenvalues by a small multiple of m eps |M|_F^2; both are added.

    Source: Higham, Accuracy and stability of numerical algorithms, 2nd edition, equation (3.13).
    """
    wide_matrix = matrix.detach().double()
    peak = wide_matrix.abs().max()
    wide_matrix = wide_matrix * peak.clamp_min(torch.finfo(peak.dtype).tiny).reciprocal()
    if wide_matrix.shape[0] > wide_matrix.shape[1]:
        wide_matrix = wide_matrix.T
    gram = wide_matrix @ wide_matrix.T
    rounding = (wide_matrix.shape[1] + 8 * len(gram) + 16) * torch.finfo(gram.dtype).eps * gram.trace()
    return (peak * (torch.linalg.eigvalsh(gram)[-1] + rounding).sqrt()).item()


def transfer(kernel: Float[Tensor, "o i k l"], height: int, width: int) -> Tensor:
    """Matrices (height * (width // 2 + 1), o, i) by which a circular convolution acts on each frequency of `rfft2`.

    The other half of the frequencies has the conjugate matrices, because the kernel is real. A kernel larger than
    the torus wraps around it.
    """
    k, m = kernel.shape[2:]
    turns = _turns(height, k, height)[:, None, :, None] + _turns(width // 2 + 1, m, width)[:, None]
    angle = 2 * math.pi * turns.flatten(2).flatten(0, 1)
    taps = kernel.flatten(2).permute(2, 0, 1).flatten(1)
    real, imaginary = (part.to(kernel) @ taps for part in (angle.cos(), angle.sin()))
    return torch.complex(real, imaginary).unflatten(1, kernel.shape[:2])


def _turns(frequencies: int, taps: int, size: int) -> Float[Tensor, "frequencies taps"]:
    """By how many turns each frequency of a circle of `size` pixels rotates at each tap from the middle one."""
    steps = torch.arange(taps) - taps // 2
    return (torch.arange(frequencies)[:, None] * steps % size).double() / size


def torus_norm(kernel: Float[Tensor, "o i k l"], height: int, width: int) -> float:
    """Norm of the circular convolution on a torus of height x width, exactly, by SVD of each frequency in float64.

    A convolution of an image of h x w pixels with zero padding, with or without stride, is a submatrix of the
    circular one on a torus of at least (h + k - 1) x (w + k - 1), where nothing wraps around; a submatrix never has
    a larger norm. On the image's own grid this is the norm for circular padding only.

    Source: Sedghi, Gupta, Long, The singular values of convolutional layers, ICLR 2019, theorem 6.
    """
    return torch.linalg.matrix_norm(transfer(kernel.detach().double(), height, width), 2).max().item()


def grid_correction(kernel_size: int, points: int) -> float:
    """Factor from the largest value on a grid of frequencies to the largest of all frequencies, in one direction.

    u* K(w) v is, up to a phase, a trigonometric polynomial of degree r = (k - 1) / 2 in each direction. Between
    `points` > 2r equidistant frequencies such a polynomial is at most 1 / cos(pi r / points) times its largest value
    on them. Sizes of images correspond to grids, so the result holds for all of them, and for zero padding.

    Source: Ehlich, Zeller, Schwankung von Polynomen zwischen Gitterpunkten, Mathematische Zeitschrift 86, 1964.
    """
    if points <= kernel_size - 1:
        raise ValueError(f"a grid of {points} is too coarse for a kernel of {kernel_size}; use {2 * kernel_size}")
    return 1 / math.cos(math.pi * (kernel_size - 1) / (2 * points))


def conv_bound(kernel: Float[Tensor, "o i k l"], grid: int = GRID) -> Float[Tensor, ""]:
    """Norm of a convolution from above, for every image size and for zero or circular padding; differentiable.

    Gram iteration at `grid` * (k - 1) frequencies in each direction, times :func:`grid_correction`; a 1 x 1 kernel
    needs one frequency and no correction. The gradient goes through the frequency with the largest bound only.
    """
    k, m = kernel.shape[2:]
    height, width = max(1, grid * (k - 1)), max(1, grid * (m - 1))
    bounds = gram_bound(transfer(kernel.detach(), height, width))
    worst = bounds.argmax()
    row, column = worst // (width // 2 + 1), worst % (width // 2 + 1)
    rows, columns = (torch.arange(size, device=kernel.device) - size // 2 for size in (k, m))
    angle = 2 * math.pi * (row * rows[:, None] / height + column * columns / width).to(kernel.dtype)
    matrix = (kernel * torch.polar(torch.ones_like(angle), angle)).sum((2, 3))
    return gram_bound(matrix) * grid_correction(k, height) * grid_correction(m, width)


def tap_bound(kernel: Float[Tensor, "o i k l"]) -> float:
    """Sum over the kernel's positions of the norms of their matrices, in float64: a simple bound for all sizes."""
    return torch.linalg.matrix_norm(kernel.detach().double().permute(2, 3, 0, 1), 2).sum().item()


def gram_kernel(kernel: Float[Tensor, "o i k l"]) -> Float[Tensor, "o o k2 l2"]:
    """Kernel of K K^T: how the outputs of a convolution overlap at each shift; k2 = 2k - 1."""
    k, m = kernel.shape[2:]
    return torch.nn.functional.conv2d(kernel, kernel, padding=(k - 1, m - 1))
