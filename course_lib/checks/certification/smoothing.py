"""Exercise 12.6: randomized smoothing of one decision."""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from scipy.stats import beta, norm
from torch import Tensor

from course_lib.checks import Mistake, exercise
from course_lib.checks.autoencoders.calling import call
from course_lib.checks.lipschitz.calling import near


class _Judge:
    """Decides images in the order in which they come, as it was told to, and remembers them."""

    def __init__(self, ref: Tensor, decisions: list[int]):
        self.ref, self.decisions = ref, decisions
        self.seen: list[Tensor] = []

    def __call__(self, images: Any) -> Tensor:
        if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1:] != self.ref.shape:
            shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
            want = ", ".join(map(str, self.ref.shape))
            raise Mistake(f"you gave {shape} to decide(images); it takes noisy references (m, {want})")
        start = sum(map(len, self.seen))
        if start + len(images) > len(self.decisions):
            raise Mistake(f"you asked for more than n0 + n = {len(self.decisions)} decisions")
        self.seen.append(images.detach().clone())
        return torch.tensor(self.decisions[start : start + len(images)])


def _bound(k: int, n: int, alpha: float) -> float:
    return float(beta.ppf(alpha, k, n - k + 1)) if k else 0.0


def _reach(share: float, sigma: float) -> float:
    return sigma * float(norm.ppf(share)) if share > 0.5 else 0.0


def _mistakes(votes: list[int], n0: int, sigma: float, alpha: float) -> dict[str, list[float]]:
    """Message -> radii that this mistake leads to."""
    n = len(votes) - n0
    chosen = int(sum(votes[:n0]) > n0 / 2)
    first = sum(vote == chosen for vote in votes[:n0])
    k = sum(vote == chosen for vote in votes[n0:])
    p = _bound(k, n, alpha)
    z, hoeffding = float(norm.ppf(1 - alpha)), math.sqrt(math.log(1 / alpha) / (2 * n))
    spread = math.sqrt(max(k / n * (1 - k / n), 0) / n)
    wald = [k / n - w * spread for w in (z, float(norm.ppf(1 - alpha / 2)))]
    return {
        "without a confidence bound: k / n is an estimate, too large half of the time": [
            _reach(min(k / n, 1 - 1e-9), sigma), math.inf if k == n else _reach(k / n, sigma),
        ],
        "that is alpha / 2, the bound of a *two-sided* interval: true, but loose; only the lower end matters": [
            _reach(_bound(k, n, alpha / 2), sigma),
        ],
        "the upper end of the interval: take the lower one, beta.ppf(alpha, k, n - k + 1)": [
            _reach(float(beta.ppf(1 - alpha, k + 1, n - k)), sigma) if k < n else math.inf,
            _reach(float(beta.ppf(1 - alpha, k, n - k + 1)), sigma),
            _reach(float(beta.ppf(1 - alpha / 2, k + 1, n - k)), sigma) if k < n else math.inf,
        ],
        "the samples that chose were counted again: a decision chosen for its luck is estimated too high; k is of "
        "the n others": [_reach(_bound(k + first, n + n0, alpha), sigma), _reach(_bound(k + first, n, alpha), sigma)],
        "you estimated from the n0 samples that chose; take the n others": [_reach(_bound(first, n0, alpha), sigma)],
        "sigma is forgotten: the radius is sigma times Phi^-1(p)": [_reach(p, 1.0)],
        "you divided by sigma; the radius is sigma times Phi^-1(p)": [_reach(p, 1 / sigma)],
        "that is sigma squared times Phi^-1(p); the radius is sigma times it": [_reach(p, sigma**2)],
        "halved: sigma / 2 (Phi^-1(p_A) - Phi^-1(p_B)) is the same as sigma Phi^-1(p_A) only with p_B = 1 - p_A": [
            _reach(p, sigma) / 2,
        ],
        "that is Phi; its *inverse* turns a probability into a distance: norm.ppf": [
            sigma * float(norm.cdf(p)), float(norm.cdf(p)),
        ],
        "you return the probability; the radius is sigma Phi^-1(p)": [p, sigma * p, k / n],
        "p - 1/2 is no radius: sigma Phi^-1(p)": [sigma * (p - 0.5), p - 0.5],
        "the normal approximation is no bound: at k = n it says 1, and its error is not known": [
            math.inf if w >= 1 else _reach(w, sigma) for w in wald
        ] + [_reach(min(w, 1 - 1e-9), sigma) for w in wald],
        "Hoeffding's bound is true, but loose; Clopper-Pearson knows the binomial distribution": [
            _reach(k / n - hoeffding, sigma),
        ],
        "beta.ppf(alpha, k, n - k + 1), one-sided, not (k, n - k) or (k + 1, n - k)": [
            _reach(float(beta.ppf(alpha, k, n - k)), sigma) if k < n else math.nan,
            _reach(float(beta.ppf(alpha, k + 1, n - k + 1)), sigma),
            _reach(float(beta.ppf(alpha, k + 1, n - k)), sigma) if k < n else math.nan,
        ],
    }  # fmt: skip


def _answer(found: Any) -> tuple[int, float]:
    if found is None:
        raise Mistake("your function returns nothing; did you forget `return`?")
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise Mistake(f"your function returns a {type(found).__name__}; return two numbers: decision, radius")
    values = []
    for one in found:
        if not isinstance(one, Real | Tensor) and not hasattr(one, "item"):
            raise Mistake(f"your function returns a {type(one).__name__} among the two; both are numbers")
        values.append(float(one))
    decision, radius = values
    if decision not in (-1, 0, 1):
        raise Mistake(f"the decision is {decision:.3g}; it is 0, 1 or, to abstain, -1: return decision, radius")
    return int(decision), radius


def _votes(share: float, n: int, random: torch.Generator, exact: bool = True) -> list[int]:
    """A share of ones among n votes, in random order."""
    votes = (torch.arange(n) < round(share * n)).long()
    return votes[torch.randperm(n, generator=random)].tolist()


@exercise("12.6")
def smoothed(attempt: Callable, random: torch.Generator) -> None:
    """Decision and certified radius of a smoothed decision, from noise on the reference."""
    # (share of p1 among those that choose, among those that estimate): the first two are plain, then come traps
    cases = ((0.9, 0.83), (0.15, 0.3), (1.0, 1.0), (0.6, 0.53), (0.55, 0.2), (0.0, 1.0))
    for number, (first, then) in enumerate(cases):
        height, width = torch.randint(7, 12, (2,), generator=random).tolist()
        ref = 0.2 + 0.6 * torch.rand(3, height, width, generator=random)
        n0, n = 21 + 2 * int(torch.randint(10, (), generator=random)), 100 * (4 + number)
        sigma, alpha = 0.15 + 0.5 * torch.rand((), generator=random).item(), (0.001, 0.01)[number % 2]
        votes = _votes(first, n0, random) + _votes(then, n, random)
        judge = _Judge(ref, votes)
        generator = torch.Generator().manual_seed(number)
        decision, radius = _answer(call(attempt, judge, ref, sigma, n0, n, alpha, generator))
        _expect_noise(judge, sigma, n0, n)
        if number == 0:
            for seed, same in ((number, True), (number + 1, False)):
                again = _Judge(ref, votes)
                call(attempt, again, ref, sigma, n0, n, alpha, torch.Generator().manual_seed(seed))
                if torch.equal(torch.cat(again.seen), torch.cat(judge.seen)) != same:
                    what = "the same generator, other noise" if same else "another generator, the same noise"
                    raise Mistake(f"{what}: torch.randn(..., generator=generator), from it alone")
        chosen = int(sum(votes[:n0]) > n0 / 2)
        k = sum(vote == chosen for vote in votes[n0:])
        share = _bound(k, n, alpha)
        expected = _reach(share, sigma)
        if math.isnan(radius):
            raise Mistake(f"NaN for k = {k} of n = {n}: beta.ppf(alpha, 0, ...) is NaN; with no hits the bound is 0")
        if expected == 0:
            _expect_abstention(decision, radius, chosen, k, n, share)
            continue
        if not near(radius, expected, 1e-3):
            for message, wrongs in _mistakes(votes, n0, sigma, alpha).items():
                if any(near(radius, wrong, 1e-3) for wrong in wrongs if not math.isnan(wrong)):
                    raise Mistake(message)
            if near(-radius, expected, 1e-3):
                raise Mistake(
                    "the radius is negative: the decision says which one is closer, the radius how surely: >= 0"
                )
            if radius == 0:
                raise Mistake(f"you abstain though {k} of {n} agree, whose lower bound is {share:.3f}, above 1/2")
            raise Mistake(f"radius {radius:.4g} for {k} hits in {n}, sigma {sigma:.3g}, alpha {alpha}: {expected:.4g}")
        if decision != chosen:
            what = "you abstain" if decision == -1 else f"decision {decision}"
            raise Mistake(f"{what}, but {chosen} is what most of the first n0 samples say; the radius is right")


def _expect_abstention(decision: int, radius: float, chosen: int, k: int, n: int, share: float) -> None:
    if decision == -1 and radius == 0:
        return
    if decision == 1 - chosen:
        raise Mistake(
            f"you decided by the n samples, of which {n - k} are for {decision}, and measured with them as well: that "
            "chooses the luckier side; the n0 first choose, and if the others disagree, abstain"
        )
    if radius < 0:
        raise Mistake(
            f"radius {radius:.3g}: {k} of {n} prove no majority (lower bound {share:.2f}, not above 1/2), so abstain: "
            "-1, 0"
        )
    if decision == -1:
        raise Mistake(f"you abstain, but with radius {radius:.3g}; where nothing is decided it is 0")
    if radius == 0:
        raise Mistake(
            f"radius 0, but decision {decision} with {k} of {n} for it, lower bound {share:.2f}: abstain, decision -1"
        )
    if k / n > 0.5:
        raise Mistake(
            f"radius {radius:.3g} for {k} of {n}: the lower bound is {share:.2f}, not above 1/2, so abstain: -1, 0"
        )
    raise Mistake(f"decision {decision} with radius {radius:.3g}, though only {k} of {n} samples agree: abstain, -1, 0")


def _expect_noise(judge: _Judge, sigma: float, n0: int, n: int) -> None:
    """Raise :class:`Mistake` unless n0 + n references with fresh Gaussian noise were decided."""
    asked = sum(map(len, judge.seen))
    if asked != n0 + n:
        more = "; n0 samples choose, n *others* estimate" if asked in (n, n0) else ""
        raise Mistake(f"you asked for {asked} decisions, n0 + n are {n0 + n}{more}")
    noise = torch.cat(judge.seen).double() - judge.ref.double()
    if not noise.any():
        raise Mistake("you added no noise to the reference")
    spread = noise.std().item()
    if len(noise.flatten(1).unique(dim=0)) < len(noise):
        raise Mistake("the same noisy images were decided more than once: each sample needs noise of its own")
    if noise.flatten(2).std(2).max() < spread / 10 or noise.flatten(1).std(1).max() < spread / 10:
        raise Mistake("all pixels of an image get the same noise; every number needs its own: randn of (m, 3, h, w)")
    if noise.mean().abs() > sigma / 5:
        if torch.allclose(torch.cat(judge.seen).mean(), torch.tensor(0.0), atol=sigma / 5):
            raise Mistake("you decide noise alone; add it to the reference")
        raise Mistake(f"the noise has mean {noise.mean():.2g}; torch.rand is uniform, torch.randn is Gaussian")
    if judge.seen[0].min() >= 0 and torch.cat(judge.seen).max() <= 1:
        raise Mistake(
            "you cut the noisy images off at 0 and 1; decide() does that itself, and the proof needs the noise"
        )
    if not near(spread, sigma, 0.05):
        if near(spread, sigma**2, 0.05):
            raise Mistake("sigma is the standard deviation of the noise, not its variance; multiply randn by sigma")
        if near(spread, sigma**0.5, 0.05):
            raise Mistake("sigma is the standard deviation, not the variance: no root; multiply randn by sigma")
        raise Mistake(f"the noise has standard deviation {spread:.3g}, sigma is {sigma:.3g}")
    if noise.abs().max() < 3.2 * sigma:
        raise Mistake("the noise is not Gaussian: it has no tails; torch.randn draws it")
    with_channels = noise[:, 0] - noise[:, 1]
    if with_channels.std() < sigma / 10:
        raise Mistake("all colours of a pixel get the same noise; every number needs its own: randn of (m, 3, h, w)")
