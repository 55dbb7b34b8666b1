"""Metrics and triplets so small that attacks on them take milliseconds."""

import torch
from torch import nn

from course_lib.data.triplets import Triplets
from course_lib.judgments import Metric

SIZE = 8


class Bent(nn.Module):
    """Squared distance of 20 random features, bent by a tanh. It embeds, as LPIPS does."""

    def __init__(self, gain=4.0, seed=0):
        super().__init__()
        weight = torch.randn(3 * SIZE**2, 20, generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter(gain * weight / len(weight) ** 0.5, requires_grad=False)

    def embed(self, x):
        return torch.tanh((x - 0.5).flatten(1) @ self.weight)

    @staticmethod
    def between(e, f):
        return (e - f).square().sum(1)

    def forward(self, x, y):
        return self.between(self.embed(x), self.embed(y))


def squared(x, y):
    """Squared pixel distance: its 2AFC decision is linear in the reference."""
    return (x - y).square().sum((1, 2, 3))


def rooted(x, y):
    """Pixel distance with a root that has no gradient at 0."""
    return squared(x, y).sqrt()


BENT = Metric("bent", Bent())
SQUARED = Metric("squared", squared)
ROOTED = Metric("rooted", rooted)


def random_triplets(n=12, seed=0, judge=None):
    """References of noise; p0 and p1 are noisier versions of them. Votes are those of the metric BENT, unless given."""
    generator = torch.Generator().manual_seed(seed)
    ref = torch.rand(n, 3, SIZE, SIZE, generator=generator) * 0.4 + 0.3
    p0, p1 = (ref + 0.1 * torch.randn(ref.shape, generator=generator) for _ in range(2))
    ref, p0, p1 = ((255 * images.clamp(0, 1)).round().byte() for images in (ref, p0, p1))
    if judge is None:
        d0, d1 = (BENT(ref.float() / 255, images.float() / 255) for images in (p0, p1))
        judge = (d1 < d0).float() * 0.6 + 0.2
    return Triplets("simulated noise", ref, p0, p1, judge, torch.arange(n) % 4)


def triplets_at(distances):
    """ref, p0, p1 whose linear decision, p0, is overturned exactly this far (L2) from each reference."""
    generator = torch.Generator().manual_seed(0)
    n = len(distances)
    ref = torch.rand(n, 3, SIZE, SIZE, generator=generator) * 0.1 + 0.45
    axis = torch.randn(ref.shape, generator=generator).sign() / (3 * SIZE**2) ** 0.5
    away = 1 + 2 * torch.as_tensor(distances, dtype=torch.float32)[:, None, None, None]
    return ref, ref + axis, ref - away * axis
