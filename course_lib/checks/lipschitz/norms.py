"""Exercises 10.2 and 10.7: norms of linear maps, from below and from above."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from course_lib.checks import Mistake, exercise, expect_shape
from course_lib.checks.autoencoders.calling import call
from course_lib.checks.lipschitz.calling import near, one_number, spectral_norm


class _Map:
    """A linear map and its transpose that know their shapes and say what was wrong with an argument."""

    def __init__(self, apply: Callable, start: Tensor, transpose: Callable):
        self._apply, self._transpose = apply, transpose
        self.start, self.calls = start, 0
        self._inside, self._outside = start.shape, apply(start).shape

    def apply(self, v: Tensor) -> Tensor:
        self.calls += 1
        if v.shape != self._inside and v.shape == self._outside:
            raise Mistake("you applied A to a result of A; what A gives goes into its transpose: transpose(apply(v))")
        expect_shape(v, tuple(self._inside), "this is what you gave to apply(v); v has the shape of `start`")
        return self._apply(v)

    def transpose(self, u: Tensor) -> Tensor:
        if u.shape != self._outside and u.shape == self._inside:
            raise Mistake("you gave v to the transpose; first A, then its transpose: transpose(apply(v))")
        expect_shape(u, tuple(self._outside), "this is what you gave to transpose(u); u has the shape of apply(v)")
        return self._transpose(u)


@exercise("10.2")
def power_iteration(attempt: Callable, random: torch.Generator) -> None:
    """Estimate from below of a linear map's norm, from A v and A^T u alone."""
    left = torch.linalg.qr(torch.randn(7, 5, generator=random)).Q
    right = torch.linalg.qr(torch.randn(5, 5, generator=random)).Q
    spectrum = torch.tensor([3.0, 2.2, 1.0, 0.5, 0.1])
    matrix = left @ torch.diag(spectrum) @ right.T
    start = torch.randn(5, generator=random) + right[:, 1] + 0.3 * right[:, 0]

    def run(linear: _Map, steps: int) -> float:
        value = one_number(call(attempt, linear.apply, linear.transpose, linear.start, steps))
        if linear.calls == 0:
            raise Mistake("your function never calls apply(v)")
        return value

    dense = _Map(lambda v: matrix @ v, start, lambda u: matrix.T @ u)
    value, norm = run(dense, 100), spectral_norm(matrix)
    if not math.isfinite(value):
        raise Mistake("inf or NaN: v grows at every step; scale it back to length 1 each time")
    if not near(value, norm):
        told = {
            "that is the square: A^T A stretches v by the *squared* norm; take the root, or return |A v|": norm**2,
            "that is the root of the norm: |A v| of a v of length 1 needs none": norm**0.5,
            "that is the length of v, which you made 1; return |A v|": 1.0,
            "that is the Frobenius norm, the root of *all* squared singular values": matrix.norm(),
            "you did not iterate: that is the stretch of `start`; repeat v = A^T A v `steps` times": (
                (matrix @ start).norm() / start.norm()
            ),
        }
        for message, wrong in told.items():
            if near(value, wrong):
                raise Mistake(message)
        if value > norm:
            raise Mistake(
                f"{value:.4f} is above the norm {norm:.4f}, and no stretch is: v needs length 1, in L2, in |A v|"
            )
        raise Mistake(f"after 100 steps {value:.4f}, the norm is {norm:.4f}; does every step do v = A^T A v?")
    early = run(_Map(lambda v: matrix @ v, start, lambda u: matrix.T @ u), 1)
    if early > norm * (1 + 1e-5):
        raise Mistake(f"after 1 step {early:.4f} is above the norm {norm:.4f}; is v of length 1 when you take |A v|?")
    if near(early, norm, 1e-5):
        raise Mistake("after 1 step the norm is there already; do exactly `steps` steps, so that callers can choose")

    stays = run(_Map(lambda v: matrix @ v, right[:, 1].clone(), lambda u: matrix.T @ u), 2)
    if not near(stays, 2.2, 1e-3):
        raise Mistake(
            f"{stays:.4f} after 2 steps from a direction that is stretched by 2.2 and that no step leaves: begin at "
            "`start`, not at a v of your own"
        )
    kernel = torch.randn(3, 2, 3, 3, generator=random)
    image = torch.randn(1, 2, 5, 4, generator=random)
    whole = F.conv2d(torch.eye(40).view(40, 2, 5, 4), kernel, padding=1).flatten(1).T
    conv = _Map(lambda v: F.conv2d(v, kernel, padding=1), image, lambda u: F.conv_transpose2d(u, kernel, padding=1))
    value, norm = run(conv, 300), spectral_norm(whole)
    if not near(value, norm, 1e-3):
        raise Mistake(
            f"right for a matrix; but {value:.4f} for a convolution of norm {norm:.4f}: v is then (1, c, h, w), "
            "and its length is that of all its numbers together: v.norm()"
        )
    value = run(_Map(lambda v: 0 * matrix @ v, start, lambda u: 0 * matrix.T @ u), 3)
    if math.isnan(value):
        raise Mistake("NaN for A = 0, because of 0 / 0; divide by v.norm().clamp_min(1e-12)")
    if abs(value) > 1e-6:
        raise Mistake(f"{value:.4g} for A = 0, whose norm is 0")
    small = run(_Map(lambda v: 0.01 * matrix @ v, start, lambda u: 0.01 * matrix.T @ u), 100)
    if not near(small, 0.03, 1e-2):
        raise Mistake(
            f"{small:.4g} for a matrix of norm 0.03; v gets short there: what guards against 0 / 0 has to be smaller, "
            "such as 1e-12"
        )


def _conv_matrix(kernel: Tensor, n: int) -> Tensor:
    """Matrix (o n n, i n n) of the zero-padded convolution of n x n images, entry by entry in float64."""
    o, i, k, _ = kernel.shape
    matrix = torch.zeros(o, n, n, i, n, n, dtype=torch.float64)
    for y, x, dy, dx in torch.cartesian_prod(*(torch.arange(s) for s in (n, n, k, k))).tolist():
        row, column = y + dy - k // 2, x + dx - k // 2
        if 0 <= row < n and 0 <= column < n:
            matrix[:, y, x, :, row, column] = kernel[:, :, dy, dx].double()
    return matrix.view(o * n * n, i * n * n)


def _torus(kernel: Tensor, size: int) -> float:
    """Norm of the circular convolution on size x size pixels, for a size of at least the kernel's."""
    spectrum = torch.fft.fft2(kernel.double(), s=(size, size))
    return torch.linalg.svdvals(spectrum.permute(2, 3, 0, 1)).max().item()


@exercise("10.7")
def conv_norm(attempt: Callable, random: torch.Generator) -> None:
    """Bound from above on the norm of a zero-padded convolution of n x n images."""
    # a chessboard stretches most where the image's own grid has no frequency; the last kernel has no such pattern
    for out, k, n, chessboard, noise in ((3, 3, 5, 1, 0.2), (3, 5, 7, 1, 0.1), (2, 5, 6, 0, 1)):
        signs = 1.0 - 2 * ((torch.arange(k)[:, None] + torch.arange(k)) % 2)
        mix = torch.randn(out, 2, 1, 1, generator=random)
        kernel = chessboard * mix * signs + noise * torch.randn(out, 2, k, k, generator=random)
        value = one_number(call(attempt, kernel, n))
        true, wide = spectral_norm(_conv_matrix(kernel, n)), _torus(kernel, n + k - 1)
        highest = _torus(kernel, 96)
        taps = sum(spectral_norm(tap) for tap in kernel.flatten(2).unbind(2))
        spectrum = torch.fft.fft2(kernel.double(), s=(n + k - 1, n + k - 1))
        own = _torus(kernel, n)
        shifted = spectrum.permute(2, 3, 0, 1)
        if not math.isfinite(value):
            raise Mistake("the result is not finite; a norm is")
        told: dict[str, list[float]] = {
            "the FFT was on the image's own n x n grid: that is circular padding, and below the norm with zero "
            f"padding ({own:.3f} < {true:.3f}); take n + k - 1": [own],
            "the norm of the reshaped kernel bounds nothing: a pixel takes part in k * k windows": [
                spectral_norm(kernel.flatten(1)),
                spectral_norm(kernel.transpose(0, 1).flatten(1)),
            ],
            "the FFT was on the k x k grid of the kernel; take n + k - 1, where nothing wraps around": [
                _torus(kernel, k)
            ],
            "you took the largest entry of the spectrum; at each frequency there is a *matrix*: its largest "
            "singular value": [spectrum.abs().max().item()],
            "that is the Frobenius norm of each frequency's matrix: true, but loose; take its largest singular value": [
                spectrum.abs().square().sum((0, 1)).max().sqrt().item()
            ],
            "the singular values ran over the two frequencies; permute(2, 3, 0, 1) brings the channels last": [
                torch.linalg.svdvals(spectrum).max().item(),
            ],
            "you transformed the channels; the FFT runs over the last two axes, the pixels": [
                torch.linalg.svdvals(torch.fft.fft2(kernel.double(), dim=(0, 1)).permute(2, 3, 0, 1)).max().item()
            ],
            "the sum over the taps is true for every size, but loose; the FFT gives less": [taps],
            "that is the sum of all squares: true after multiplying by k only; take the FFT": [kernel.norm().item()],
            "you dropped the imaginary parts; svdvals takes complex matrices as they are": [
                torch.linalg.svdvals(shifted.real).max().item()
            ],
            "you took absolute values of the entries before the singular values: true, but loose; svdvals takes "
            "complex matrices as they are": [torch.linalg.svdvals(shifted.abs()).max().item()],
            "k times the norm of the reshaped kernel: true for every size, but loose; the FFT gives less": [
                k * spectral_norm(kernel.flatten(1))
            ],
            "reshape keeps the order of the numbers and mixes frequencies and channels: permute(2, 3, 0, 1)": [
                torch.linalg.svdvals(spectrum.reshape(*spectrum.shape[2:], *spectrum.shape[:2])).max().item()
            ],
            "that is the squared norm; take the root of the largest eigenvalue of K* K": [wide**2, true**2],
        }
        if out - 1 < k // 2:
            told["that is the torus of n + out - 1; k is the side of the kernel: kernel.shape[-1]"] = [
                _torus(kernel, n + out - 1)
            ]
        if not near(value, wide):
            for message, wrong in told.items():
                if any(near(value, one) for one in wrong):
                    raise Mistake(message)
        if value < true * (1 - 1e-5):
            raise Mistake(
                f"{value:.4f} is below the norm {true:.4f}, which the SVD of the whole matrix gives: an estimate from "
                "below is no bound"
            )
        if value > 1.02 * max(wide, highest):
            raise Mistake(f"{value:.4f} is true, but loose: the torus of n + k - 1 gives {wide:.4f}")
