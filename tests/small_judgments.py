"""Triplets small enough for tests: real photographs, really distorted, with made-up votes."""

import functools

import torch

from course_lib.data import distortions, photos
from course_lib.data.triplets import Triplets
from course_lib.judgments import CachedDifferences

WIDTHS = (30, 20)


@functools.cache
def small_triplets(n=24, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    crops = photos.crops("test", n, size=size, seed=seed)
    ref = crops.images.float() / 255
    p0, p1 = ((255 * distortions.random_sequence(ref, generator)[0]).byte() for _ in range(2))
    judge = torch.randint(0, 6, (n,), generator=generator) / 5
    return Triplets(f"made up {seed}", crops.images, p0, p1, judge, crops.photo)


def small_differences(n=600, seed=0):
    """Channel differences of no image, judged by 5 simulated observers who look at the first four channels only."""
    generator = torch.Generator().manual_seed(seed)
    d0, d1 = torch.empty(2, n, sum(WIDTHS)).exponential_(generator=generator) / 10
    odds = 10 * (d0 - d1)[:, :4].sum(1)
    votes = torch.rand(n, 5, generator=generator) < torch.sigmoid(odds)[:, None]
    return CachedDifferences("made up", WIDTHS, d0, d1, votes.float().mean(1), torch.arange(n) % 4)
