"""The rival: randomized smoothing gives any metric's 2AFC decision a certificate, of another metric and with a caveat.

The smoothed decision is the one that the metric takes most often when Gaussian noise is added to the reference. Within
the radius *that* decision stands, not the metric's own. It is estimated from samples, so the certificate may itself be
wrong, with probability alpha for each triplet at most, and it costs hundreds of calls of the metric.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from scipy.special import betaincinv, ndtri
from torch import Tensor
from tqdm import tqdm

from course_lib.certification.evaluation import EPS, Certified
from course_lib.certification.radii import check_eps
from course_lib.judgments import Metric, load
from course_lib.judgments.evaluation import Distance
from course_lib.validation import check_pair


class Smoothed(NamedTuple):
    """Decisions of a smoothed metric; each (n,).

    Attributes:
        decision: 0 where p0 is closer under noise, 1 where p1 is, -1 where the samples do not tell: it abstains.
        radius: signed L2 radius, + for p0, 0 where it abstains; wrong with probability alpha at most.
        share: lower confidence bound of the probability of the decision.
    """

    decision: Int64[Tensor, "n"]
    radius: Float[Tensor, "n"]
    share: Float[Tensor, "n"]


def lower_bound_of_share(k: int, n: int, alpha: float) -> float:
    """Clopper-Pearson: a share that is larger than the true one with probability alpha at most, from k hits in n draws.

    Raises:
        ValueError: for counts or an alpha that make no sense.

    Source: Clopper, Pearson, The use of confidence or fiducial limits, Biometrika 26, 1934 (one-sided).
    """
    if not (0 <= k <= n and n > 0 and 0 < alpha < 1):
        raise ValueError(f"k is {k}, n is {n}, alpha is {alpha}; use 0 <= k <= n, n > 0 and 0 < alpha < 1")
    return 0.0 if k == 0 else float(betaincinv(k, n - k + 1, alpha))


def largest_smoothed_radius(sigma: float, n: int = 1000, alpha: float = 0.001) -> float:
    """What no certificate from n samples exceeds, even if all agree: 2.46 sigma for 1,000 samples and alpha 0.001."""
    return sigma * float(ndtri(lower_bound_of_share(n, n, alpha)))


@torch.no_grad()
def smoothed_2afc(
    distance: str | Path | Distance | Metric,
    ref: Float[Tensor, "n 3 h w"],
    p0: Float[Tensor, "n 3 h w"],
    p1: Float[Tensor, "n 3 h w"],
    sigma: float,
    *,
    n0: int = 100,
    n: int = 1000,
    alpha: float = 0.001,
    generator: torch.Generator | None = None,
    batch_size: int = 100,
) -> Smoothed:
    """Decide by majority under Gaussian noise on the reference, and certify that decision.

    The n0 first samples only choose the decision; n others estimate its probability p. The base classifier cuts pixels
    off at 0 and 1 after the noise, which is a part of it and costs no validity. Where the lower bound of p is above one
    half, the radius is sigma Φ^-1(that bound).

    Proof: as a function of the reference, Φ^-1 of a probability under Gaussian noise is 1/sigma-Lipschitz (by the
    Neyman-Pearson lemma), so p stays above one half for any change shorter than sigma Φ^-1(p).

    Args:
        distance: any metric, as :func:`course_lib.judgments.load` takes it; it need not be differentiable.
        ref: references in [0, 1].
        p0: first candidates.
        p1: second candidates.
        sigma: standard deviation of the noise, in units of pixel values.
        n0: samples that choose.
        n: samples that estimate.
        alpha: probability, for each triplet, that its certificate is wrong.
        generator: draws the noise; None seeds one with 0.
        batch_size: noisy references at a time.

    Raises:
        TypeError, ValueError: for images that do not fit together, or numbers that make no sense.

    Source: Cohen, Rosenfeld, Kolter, Certified adversarial robustness via randomized smoothing, ICML 2019, theorem 1
    and section 3.2.2.
    """
    metric = distance if isinstance(distance, Metric) else load(distance, ref.device)
    check_pair(ref, p0, ("ref", "p0"))
    check_pair(ref, p1, ("ref", "p1"))
    if not 0 < sigma < float("inf") or min(n0, n, batch_size) < 1 or not 0 < alpha < 1:
        numbers = f"sigma is {sigma}, n0 {n0}, n {n}, alpha {alpha}, batch_size {batch_size}"
        raise ValueError(f"{numbers}; use sigma > 0, 0 < alpha < 1, and 1 or more of the others")
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    rows = []
    for triplet in zip(ref, p0, p1, strict=True):
        votes = _NoisyVotes(metric, *triplet, sigma, generator, batch_size)
        for_p0, for_p1 = votes(n0)
        decision = int(for_p1 > for_p0)
        bound = lower_bound_of_share(votes(n)[decision], n, alpha)
        reach = sigma * float(ndtri(bound)) if bound > 0.5 else 0.0
        rows.append((decision if reach else -1, (1 - 2 * decision) * reach, bound))
    decisions, radii, shares = zip(*rows, strict=True)
    radius, share = (torch.tensor(column, dtype=torch.float32, device=ref.device) for column in (radii, shares))
    return Smoothed(torch.tensor(decisions, device=ref.device), radius, share)


def certify_smoothed(
    distance: str | Path | Distance | Metric,
    data: Any,
    sigma: float,
    eps: tuple[float | int, ...] = EPS,
    *,
    n0: int = 100,
    n: int = 1000,
    alpha: float = 0.001,
    seed: int = 0,
    batch_size: int = 100,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Certified:
    """:func:`smoothed_2afc` on whole data, as a table like that of :func:`~course_lib.certification.certify`.

    Abstention counts as wrong. Each triplet's certificate is wrong with probability alpha at most, and so of all
    certified ones are about alpha times their number.

    Raises:
        TypeError, ValueError: as :func:`smoothed_2afc`.
    """
    metric = distance if isinstance(distance, Metric) else load(distance, device)
    for one in eps:
        check_eps(one)
    generator, parts = torch.Generator().manual_seed(seed), []
    options: dict[str, Any] = {"n0": n0, "n": n, "alpha": alpha, "generator": generator, "batch_size": batch_size}
    batches = tqdm(data.batches(10), total=-(-len(data) // 10), desc="smoothed", disable=None if progress else True)
    for batch in batches:
        ref, p0, p1 = (part.to(device) for part in batch[:3])
        found = smoothed_2afc(metric, ref, p0, p1, sigma, **options)
        parts.append([column.cpu() for column in found[:2]])
    decision, radius = (torch.cat(column) for column in zip(*parts, strict=True))
    about = f"smoothed, sigma {sigma:.3g}, wrong with probability {alpha:.3g}"
    radii = tuple(sorted({float(one) for one in eps if one}))
    norm = torch.full_like(radius, torch.nan)
    return Certified(metric.name, data.name, about, radii, decision, radius, norm, data.judge, data.photo)


class _NoisyVotes:
    """Counts how often one triplet is decided for p0, and for p1, under noise on its reference."""

    def __init__(
        self,
        metric: Metric,
        ref: Tensor,
        p0: Tensor,
        p1: Tensor,
        sigma: float,
        generator: torch.Generator,
        at_once: int,
    ):
        self.metric, self.ref, self.sigma, self.generator, self.at_once = metric, ref, sigma, generator, at_once
        self.network: Any = metric.distance if hasattr(metric.distance, "between") else None
        self.fixed = [self.network.embed(p[None]) if self.network else p[None] for p in (p0, p1)]

    def __call__(self, n: int) -> list[int]:
        """Of n new decisions, how many are for p0 and how many for p1; ties are for neither."""
        counts = [0, 0]
        for start in range(0, n, self.at_once):
            size = min(self.at_once, n - start)
            noise = torch.randn((size, *self.ref.shape), generator=self.generator, device=self.generator.device)
            noisy = (self.ref + self.sigma * noise.to(self.ref)).clamp(0, 1)
            fixed = [one.expand(size, *one.shape[1:]) for one in self.fixed]
            if self.network:
                e = self.network.embed(noisy)
                d0, d1 = (self.network.between(e, one) for one in fixed)
            else:
                d0, d1 = self.metric.triplet_distances(noisy, *fixed)
            counts[0] += int((d0 < d1).sum())
            counts[1] += int((d1 < d0).sum())
        return counts
