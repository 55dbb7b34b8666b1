"""Restoring pictures of any size, tile by tile: memory stays that of one tile, and no seam shows."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib.restoration.networks import UNet, pad_to_multiple


@torch.no_grad()
def tiled(
    network: UNet, x: Float[Tensor, "n c h w"], *, tile: int = 384, halo: int | None = None, ramp: int = 16
) -> Float[Tensor, "n 3 h w"]:
    """What ``network(x)`` gives, computed on overlapping tiles.

    At a tile's inner border the network sees padding where the picture goes on, so the outermost `halo` pixels are
    thrown away. Over the next `ramp` pixels the tile is blended linearly into its neighbour. Neighbours therefore
    share 2 halo + ramp pixels. Tiles begin at multiples of the network's stride; anywhere else its grid would lie
    differently, and every pixel would come out a little different.

    Args:
        network: in evaluation mode.
        x: network input, any size.
        tile: height and width of a tile, rounded up to a multiple of the stride.
        halo: None takes the network's reach, with which the result equals ``network(x)`` up to rounding. A smaller one
            is faster, and often still invisible.
        ramp: width of the blend.

    Raises:
        ValueError: if tiles are too small for halo and ramp.
    """
    halo = network.reach if halo is None else halo
    tile += -tile % network.stride
    step = (tile - 2 * halo - ramp) // network.stride * network.stride
    if step <= 0 or halo < 0 or ramp < 0:
        least = 2 * halo + ramp + network.stride
        raise ValueError(f"tiles of {tile} pixels have nothing left inside halo {halo} and ramp {ramp}; use {least}")
    height, width = x.shape[2:]
    padded = pad_to_multiple(x, network.stride)
    result = x.new_zeros(len(x), 3, *padded.shape[2:])
    total = x.new_zeros(padded.shape[2:])
    for rows, row_weight in _windows(padded.shape[2], tile, step, halo, ramp):
        for columns, column_weight in _windows(padded.shape[3], tile, step, halo, ramp):
            weight = (row_weight[:, None] * column_weight).to(x)
            result[:, :, rows, columns] += weight * network(padded[:, :, rows, columns])
            total[rows, columns] += weight
    return (result.div_(total))[:, :, :height, :width]


def _windows(length: int, tile: int, step: int, halo: int, ramp: int) -> Iterator[tuple[slice, Tensor]]:
    """Where tiles lie along one side, and how much each of their pixels counts; borders of the picture count fully."""
    last = max(length - tile, 0)
    for start in [*range(0, last, step), last]:
        stop = min(start + tile, length)
        place = torch.arange(stop - start)
        weight = torch.ones(stop - start)
        for inner, distance in ((start > 0, place), (stop < length, place.flip(0))):
            if inner:
                weight = weight * ((distance + 1 - halo) / (ramp + 1)).clamp(0, 1)
        yield slice(start, stop), weight
