"""Compression with a real rate: a file that another program could decode, and its length in bits per pixel.

An autoencoder's latent is rounded to integers; a factorised entropy model, fitted on training photographs, says how
likely each integer is in each channel; the range coder turns the integers into bytes. There are no skip connections:
what goes around the bottleneck would have to be in the file too.

Source: Ballé, Laparra, Simoncelli, End-to-end optimized image compression, ICLR 2017; rates in one network: Cui et
al., Asymmetric gained deep image compression with continuous rate adaptation, CVPR 2021.
"""

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from course_lib.restoration import range_coder
from course_lib.restoration.fit import cosine, turned
from course_lib.restoration.networks import Block, conv3, down, pad_to_multiple, up
from course_lib.training import train
from course_lib.validation import check_images

LAMBDAS = (0.0015, 0.005, 0.015, 0.045)  # bits per pixel that an error of 1 (on the 0-255 scale, squared) is worth
LARGEST = 255  # a latent beyond it is clipped before it is coded
HEADER = struct.Struct(">BBHHH")  # format, rate, height, width, check sum
FORMAT = 1


class FactorizedPrior(nn.Module):
    """How likely every integer is, for each rate and channel: a mixture of three logistic distributions."""

    def __init__(self, rates: int, channels: int, parts: int = 3):
        super().__init__()
        self.mean = nn.Parameter(torch.linspace(-1, 1, parts).repeat(rates, channels, 1))
        self.log_scale = nn.Parameter(torch.zeros(rates, channels, parts))
        self.log_weight = nn.Parameter(torch.zeros(rates, channels, parts))

    def cdf(self, x: Float[Tensor, "n c k"], rate: Int[Tensor, "n"]) -> Float[Tensor, "n c k"]:
        """Probability that a value of this channel is below x."""
        parts = self.mean, self.log_scale, self.log_weight.softmax(2)
        mean, log_scale, weight = (part[rate].unsqueeze(2) for part in parts)
        return (weight * torch.sigmoid((x.unsqueeze(3) - mean) * torch.exp(-log_scale))).sum(3)

    def bits(self, latent: Float[Tensor, "n c h w"], rate: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Ideal length of every latent: -log2 of the probability of the interval of width 1 around each value."""
        values = latent.flatten(2).float()
        probability = self.cdf(values + 0.5, rate) - self.cdf(values - 0.5, rate)
        return -probability.clamp_min(1e-9).log2().sum((1, 2))

    @torch.no_grad()
    def tables(self, rate: int) -> Int[Tensor, "c entries"]:
        """Cumulative integer shares for the coder of the symbols -LARGEST ... LARGEST; each has at least one."""
        edges = torch.arange(-LARGEST, LARGEST, dtype=torch.float64) + 0.5
        inner = self.cdf(edges.expand(1, self.mean.shape[1], -1), torch.tensor([rate]))[0]
        ends = inner.new_zeros(len(inner), 1)
        cdf = torch.cat([ends, inner, ends + 1], 1)
        symbols = torch.arange(cdf.shape[1])
        return (cdf * (2**range_coder.SHARE_BITS - len(symbols) + 1)).long() + symbols


class Codec(nn.Module):
    """Autoencoder for compression at several rates; latents are `channels` numbers per 16 x 16 pixels.

    For each rate a gain per channel scales the latent before rounding, and another one scales it back: a larger gain
    means finer rounding, less error, more bits. After training, :meth:`freeze` fixes the coder's tables; they belong
    to the decoder, as JPEG's standard tables would, not to the file.
    """

    STRIDE = 16
    tables: Tensor

    def __init__(self, channels: int = 96, width: int = 64, rates: int = len(LAMBDAS)):
        super().__init__()
        self.settings = {"channels": channels, "width": width, "rates": rates}
        self.analysis = nn.Sequential(
            nn.PixelUnshuffle(4), conv3(48, width), Block(width), down(width), Block(width), down(width),
            Block(width), conv3(width, channels),
        )  # fmt: skip
        self.synthesis = nn.Sequential(
            conv3(channels, width), Block(width), up(width), Block(width), up(width), Block(width), conv3(width, 48),
            nn.PixelShuffle(4),
        )  # fmt: skip
        start = torch.linspace(1, 3, rates)[:, None].expand(rates, channels)
        self.log_gain, self.log_inverse = nn.Parameter(start.clone()), nn.Parameter(-start.clone())
        self.prior = FactorizedPrior(rates, channels)
        self.register_buffer("tables", torch.zeros(rates, channels, 2 * LARGEST + 2, dtype=torch.int32))

    def encode(self, images: Float[Tensor, "n 3 h w"], rate: Int[Tensor, "n"]) -> Float[Tensor, "n c h2 w2"]:
        """Latent before rounding; sides that are no multiples of 16 are padded."""
        x = pad_to_multiple(images - 0.5, self.STRIDE).contiguous(memory_format=torch.channels_last)
        return self.analysis(x) * self.log_gain[rate].exp()[:, :, None, None]

    def decode(self, latent: Float[Tensor, "n c h2 w2"], rate: Int[Tensor, "n"]) -> Float[Tensor, "n 3 h w"]:
        """Pictures from rounded latents, not clamped."""
        return self.synthesis(latent * self.log_inverse[rate].exp()[:, :, None, None]) + 0.5

    def forward(
        self, images: Float[Tensor, "n 3 h w"], rate: Int[Tensor, "n"]
    ) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n"]]:
        """Decoded pictures and ideal bits per pixel, both with useful gradients, although rounding has none.

        The decoder sees rounded values whose gradient passes straight through; the rate is that of the values plus
        uniform noise in ± 0.5, which stands for the unknown rounding error.
        """
        latent = self.encode(images, rate)
        rounded = latent + (latent.round() - latent).detach()
        noisy = latent + torch.rand_like(latent) - 0.5
        height, width = images.shape[2:]
        decoded = self.decode(rounded, rate)[:, :, :height, :width]
        return decoded, self.prior.bits(noisy, rate) / (height * width)

    def freeze(self) -> None:
        """Fix the coder's tables. Integers, so that every machine decodes what any machine encoded."""
        self.tables = torch.stack([self.prior.tables(rate) for rate in range(len(self.log_gain))]).int()

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Channels, rows and columns of the latent: it grows with the picture, its share of the picture does not."""
        return len(self.log_gain[0]), -(-height // self.STRIDE), -(-width // self.STRIDE)


def fit_codec(
    codec: Codec,
    crops: UInt8[Tensor, "n 3 h w"],
    *,
    epochs: int,
    batch_size: int = 8,
    learning_rate: float = 1e-3,
    lambdas: Sequence[float] = LAMBDAS,
    folder: str | Path | None = None,
    seed: int = 0,
    precision: str = "fp32",
    progress: str | None = None,
) -> list[dict[str, Any]]:
    """Minimise bits per pixel + lambda x squared error (0-255 scale), each image at a random rate; then freeze.

    Arguments and errors are those of :func:`~course_lib.restoration.fit.fit`.
    """
    worth = torch.tensor(lambdas) * 255**2

    def batch_loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        images, rate = batch
        decoded, bits = codec(images, rate)
        return (bits + worth.to(bits)[rate] * (decoded - images).square().mean((1, 2, 3))).mean()

    def batches(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(len(crops), generator=generator).split(batch_size):
            rate = torch.randint(len(lambdas), (len(rows),), generator=generator)
            yield turned(crops[rows], generator).float() / 255, rate

    optimizer = torch.optim.Adam(codec.parameters(), lr=learning_rate)
    history = train(
        codec, batch_loss, batches, optimizer, epochs=epochs, folder=folder, seed=seed, precision=precision,
        schedule=cosine(optimizer, epochs * -(-len(crops) // batch_size)), progress=progress,
        settings={"learning_rate": learning_rate, "batch_size": batch_size, "lambdas": list(lambdas)},
    )  # fmt: skip
    codec.freeze()
    return history


@torch.no_grad()
def compress(codec: Codec, image: Float[Tensor, "1 3 h w"], rate: int = 0) -> bytes:
    """A file of one picture: 8 bytes of header, then the coded latent.

    Raises:
        TypeError, ValueError: if it is not one image in [0, 1] of at most 65,535 pixels a side, for an unknown rate,
            or a codec that was not frozen.
    """
    check_images(image, "image")
    if len(image) != 1 or max(image.shape) > 65_535:
        raise ValueError(f"image has shape {tuple(image.shape)}; a file holds one, of at most 65535 pixels a side")
    if not 0 <= rate < len(codec.tables):
        raise ValueError(f"unknown rate {rate}; this codec has 0 (smallest files) to {len(codec.tables) - 1}")
    if not codec.tables.any():
        raise ValueError("this codec has no tables yet; train it with fit_codec, or call codec.freeze()")
    latent = codec.encode(image, torch.tensor([rate]))[0].round().clamp(-LARGEST, LARGEST)
    symbols = (latent.flatten().int() + LARGEST).tolist()
    body = range_coder.encode(symbols, _tables(codec, rate, latent[0].numel()))
    return HEADER.pack(FORMAT, rate, *image.shape[2:], zlib.crc32(body) & 0xFFFF) + body


@torch.no_grad()
def decompress(codec: Codec, data: bytes) -> Float[Tensor, "1 3 h w"]:
    """The picture in a file that :func:`compress` made with the same codec, in [0, 1].

    Raises:
        ValueError: if it is not such a file, or is damaged.
    """
    if len(data) < HEADER.size or data[0] != FORMAT:
        raise ValueError("this is not a file of this codec: its header is missing or another one's")
    _, rate, height, width, check = HEADER.unpack_from(data)
    body = data[HEADER.size :]
    if zlib.crc32(body) & 0xFFFF != check or rate >= len(codec.tables):
        raise ValueError("this file is damaged, or from a codec with more rates; compress the picture again")
    channels, rows, columns = codec.latent_shape(height, width)
    symbols = range_coder.decode(body, _tables(codec, rate, rows * columns))
    latent = (torch.tensor(symbols) - LARGEST).view(1, channels, rows, columns).float()
    return codec.decode(latent, torch.tensor([rate]))[:, :, :height, :width].clamp(0, 1)


def bits_per_pixel(data: bytes, image: Float[Tensor, "1 3 h w"]) -> float:
    """Bits of a whole file, header and all, divided by height times width."""
    return 8 * len(data) / (image.shape[2] * image.shape[3])


def rate_distortion(
    encode: Callable[[Tensor], bytes],
    decode: Callable[[bytes], Tensor],
    pictures: Sequence[Float[Tensor, "1 3 _ _"]],
    quality: Callable[[Tensor, Tensor], Tensor],
) -> tuple[float, float]:
    """Bits per pixel and quality (of decoded, original) of a coder, both averaged over `pictures`."""
    rates, qualities = [], []
    for picture in pictures:
        data = encode(picture)
        rates.append(bits_per_pixel(data, picture))
        qualities.append(float(quality(decode(data), picture)))
    return sum(rates) / len(rates), sum(qualities) / len(qualities)


def _tables(codec: Codec, rate: int, positions: int) -> list[list[int]]:
    """A table per latent number, in the order in which they are coded: channel by channel."""
    return [table for table in codec.tables[rate].tolist() for _ in range(positions)]
