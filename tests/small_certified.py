"""Certified metrics so small that attacks on them take milliseconds, and an attack at each example's own radius."""

import torch
from torch import nn

from course_lib.certification import CertifiedMetric
from course_lib.lipschitz import AOLLinear, LipSimNet, SLLConv2d, SLLLinear

SIZE = 8


def isometry(features=6, seed=0, offset=0.0, size=SIZE):
    """A linear network: orthonormal rows, which reach as far as they may, so that its radii are exact for images too.

    The rows have mean zero and see no brightness, so embeddings are short. `offset` is added to each of them.
    """
    rows = torch.randn(3 * size**2, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    linear = nn.Linear(3 * size**2, features)
    linear.weight.data = torch.linalg.qr(rows - rows.mean(0))[0].T.float().contiguous()
    linear.bias.data.fill_(offset)
    return nn.Sequential(nn.Flatten(), linear).eval()


def student(seed=0):
    """An untrained network of LipSim's layers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first, conv = nn.PixelUnshuffle(2), SLLConv2d(12, 12)
        dense = nn.Sequential(nn.Flatten(), SLLLinear(192, 32), AOLLinear(192, 16))
        return LipSimNet(first, nn.Sequential(conv), dense, image_size=SIZE, out_features=16).eval()


def images(n=300, seed=0, contrast=0.08):
    """References of grey noise, and two noisier versions of each."""
    generator = torch.Generator().manual_seed(seed)
    ref, *noise = torch.randn(3, n, 3, SIZE, SIZE, generator=generator)
    ref = 0.5 + contrast * ref
    return tuple(x.clamp(0, 1) for x in (ref, ref + contrast * noise[0], ref + contrast * noise[1]))


def attacked(metric, ref, p0, p1, budget, steps=40, seed=0):
    """References pushed inside balls of radius `budget`, (n,), so that the other candidate comes closer.

    Projected gradient with steps that shrink, from a random start; the last point is on the best side found.
    """
    with torch.no_grad():
        fixed = [metric.embed(p) for p in (p0, p1)]
        sign = (metric.between(metric.embed(ref), fixed[1]) - metric.between(metric.embed(ref), fixed[0])).sign()
    budget = (budget * (1 - 1e-5) - 1e-6).clamp_min(0)[:, None, None, None]  # float32 rounds the changed pixels

    def inside(x):
        change = x - ref
        length = change.flatten(1).norm(dim=1)[:, None, None, None].clamp_min(1e-12)
        return (ref + change * (budget / length).clamp(max=1)).clamp(0, 1)

    x = inside(ref + torch.randn(ref.shape, generator=torch.Generator().manual_seed(seed)) * budget / 50)
    best, best_gap = x, torch.full_like(sign, torch.inf)
    for step in range(steps):
        x = x.detach().requires_grad_(True)
        e = metric.embed(x)
        gap = sign * (metric.between(e, fixed[1]) - metric.between(e, fixed[0]))
        better = gap.detach() < best_gap
        best = torch.where(better[:, None, None, None], x.detach(), best)
        best_gap = torch.where(better, gap.detach(), best_gap)
        (slope,) = torch.autograd.grad(gap.sum(), x)
        slope = slope / slope.flatten(1).norm(dim=1)[:, None, None, None].clamp_min(1e-12)
        x = inside(x.detach() - slope * budget * 2 * (1 - step / steps))
    return best


METRICS = {
    "isometry cosine": lambda: CertifiedMetric(isometry(), "cosine"),
    "isometry euclidean": lambda: CertifiedMetric(isometry(), "euclidean"),
    "student cosine": lambda: CertifiedMetric(student(), "cosine"),
    "student euclidean": lambda: CertifiedMetric(student(), "euclidean"),
}
