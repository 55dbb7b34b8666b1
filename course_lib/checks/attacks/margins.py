"""Exercises 9.3 and 9.8: the margin of a decision, and how far it is to the other side."""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.checks import Mistake, exercise, expect_close, expect_shape
from course_lib.checks.judgments.calling import call


@exercise("9.3")
def margin(attempt: Callable, random: torch.Generator) -> None:
    """d(right) - d(wrong), where the majority says which candidate is right: negative while the metric agrees."""
    n = int(torch.randint(12, 20, (), generator=random))
    d0, d1 = (torch.rand(2, n, generator=random) + 0.1).unbind()
    judge = torch.randint(6, (n,), generator=random) / 5
    judge[:6] = torch.arange(6) / 5
    rows = zip(d0.tolist(), d1.tolist(), judge.tolist(), strict=True)
    expected = torch.tensor([b - a if votes > 0.5 else a - b for a, b, votes in rows])
    sign = torch.where(judge > 0.5, -1.0, 1.0)
    weighed = (1 - 2 * judge) * (d0 - d1)
    shares = torch.where(judge > 0.5, d1 / (d0 + d1), d0 / (d0 + d1))
    expect_close(
        call(attempt, d0, d1, judge),
        expected,
        {
            "one number for the batch; an attack needs one per triplet, or the easy ones hide the others": [
                expected.mean(),
                expected.sum(),
                weighed.mean(),
                -expected.mean(),
            ],
            "reversed: it has to be negative while the metric is right. p1 is right where judge > 0.5, and right is "
            "d(right) < d(wrong)": -expected,
            "that is how sure the metric is, whoever is right; take d(right) - d(wrong), with its sign": [
                (d0 - d1).abs(),
                -(d0 - d1).abs(),
            ],
            "you took p0 for right everywhere; where judge > 0.5 it is p1": [d0 - d1],
            "you took p1 for right everywhere; where judge < 0.5 it is p0": [d1 - d0],
            "you weighed with the votes; a decision is right or wrong: take judge > 0.5 for the label": [
                weighed,
                -weighed,
                (1 - judge) * d0 + judge * d1,
                (1 - judge) * d0 - judge * d1,
                (judge - 0.5) * (d1 - d0),
            ],
            "your label is judge == 1 or judge == 0, when all agree; a majority is enough: judge > 0.5": [
                torch.where(judge == 1, d1 - d0, d0 - d1),
                torch.where(judge == 0, d0 - d1, d1 - d0),
            ],
            "cut off at 0: all right decisions look the same, and there is no slope to climb": [
                expected.clamp_min(0),
                expected.clamp_max(0),
            ],
            "that says only whether the metric is fooled; a step has no slope to climb": [
                (expected > 0).float(),
                (expected > 0),
                expected.sign(),
                (expected < 0).float(),
                (expected < 0),
            ],
            "you divided by the sum of the distances; take the plain difference": [
                expected / (d0 + d1),
                shares,
            ],
            "only the distance to the right candidate; subtract that to the wrong one": (
                torch.where(judge > 0.5, d1, d0)
            ),
        },
    )
    d0, d1 = d0.clone().requires_grad_(), d1.clone().requires_grad_()
    found = attempt(d0, d1, judge.clone())
    if not found.requires_grad:
        raise Mistake("right, but the gradient is lost: no .item(), .detach() or torch.no_grad() on the way")
    slopes = torch.autograd.grad(found.sum(), (d0, d1), allow_unused=True)
    for slope, wanted in zip(slopes, (sign, -sign), strict=True):
        if slope is None or not torch.allclose(slope, wanted):
            raise Mistake("right, but its gradient is not that of a difference of distances; no .detach() on the way")


@exercise("9.8")
def smallest_flip(attempt: Callable, random: torch.Generator) -> None:
    """Smallest change of the reference that puts it as far from p0 as from p1, in pixel L2, pixel limits aside."""
    height, width = torch.randint(4, 8, (2,), generator=random).tolist()
    n = 6
    ref, p0, p1 = torch.rand(3, n, 3, height, width, generator=random).unbind()
    p1[1] = 0.8 * ref[1] + 0.2 * p1[1]  # here p1 is the closer one, elsewhere chance decides
    p0[2] = 0.9 * ref[2] + 0.1 * p0[2]
    expected = torch.stack([_to_plane(*one) for one in zip(ref, p0, p1, strict=True)])

    def dot(x: Tensor, y: Tensor) -> Tensor:
        return (x * y).sum((1, 2, 3), keepdim=True)

    across = p1 - p0
    s0, s1, gap = dot(ref - p0, ref - p0), dot(ref - p1, ref - p1), dot(across, across)
    nearest = (s1 - s0) / (2 * gap)
    channels = [x.square().sum((2, 3), keepdim=True) for x in (ref - p0, ref - p1, across)]
    wrong = torch.where(s0 < s1, p1, p0)
    toward = wrong - ref
    found = call(attempt, ref, p0, p1)
    if isinstance(found, Tensor) and found.shape == (n,):
        raise Mistake("that is one number per triplet; return the change itself, (n, 3, h, w)")
    expect_close(
        found,
        expected,
        {
            "you returned the images; return their change": ref + expected,
            "away from the plane: the sign is wrong; if d0 < d1 the reference has to go from p0 towards p1": [
                -expected,
                nearest.abs() * (p0 - p1),
            ],
            "always towards p1; a reference that is closer to p1 has to go towards p0: keep the sign of d1² - d0²": (
                nearest.abs() * across
            ),
            "twice as far as needed; the plane lies half-way: divide by 2 |p1 - p0|²": 2 * expected,
            "you divided by |p1 - p0| once; its square is due: once for the length, once for the direction": [
                nearest * gap.sqrt() * across
            ],
            "that is d1 - d0, of the distances; the difference of their *squares* is linear in the reference": [
                (s1.sqrt() - s0.sqrt()) / (2 * gap) * across,
                (s1.sqrt() - s0.sqrt()) / 2 * across / gap.sqrt(),
                (s1.sqrt() - s0.sqrt()) / 2 * across,
            ],
            "the direction is not p1 - p0: straight to the other candidate reaches the plane as well, but later; the "
            "shortest way is at right angles to it": (
                lambda found: (
                    found.shape == ref.shape
                    and torch.allclose(dot(found, toward) ** 2, dot(found, found) * dot(toward, toward), rtol=1e-3)
                )
            ),
            "the direction is that from the reference to a candidate; it has to be p1 - p0, at right angles to the "
            "plane": [nearest * (p1 - ref), nearest * (p0 - ref), nearest * (ref - p0), nearest * (ref - p1)],
            "one length per channel; a triplet has a single one: .sum((1, 2, 3), keepdim=True)": [
                (channels[1] - channels[0]) / (2 * channels[2]) * across
            ],
            "to the middle between p0 and p1: that is *one* point of the plane; the nearest one is the reference's "
            "projection onto it": [(p0 + p1) / 2 - ref],
            "lengths were taken over the whole batch; every triplet has its own: .sum((1, 2, 3), keepdim=True)": [
                (s1.sum() - s0.sum()) / (2 * gap.sum()) * across,
                (s1 - s0) / (2 * gap.sum()) * across,
            ],
            "you cut off pixels; pixel limits do not count here": [
                (ref + expected).clamp(0, 1) - ref,
                expected.clamp(0, 1),
            ],
        },
    )
    expect_shape(found, tuple(ref.shape))


def _to_plane(ref: Tensor, p0: Tensor, p1: Tensor) -> Tensor:
    """Shortest solution of one linear equation: <2 (p1 - p0), x> = |p1|^2 - |p0|^2 for x = ref + change."""
    shape = ref.shape
    ref, p0, p1 = (x.double().flatten() for x in (ref, p0, p1))
    row = 2 * (p1 - p0)[None]
    change = torch.linalg.pinv(row) @ (p1 @ p1 - p0 @ p0 - row @ ref)
    return change.float().view(shape)
