"""Exercises 8.5 to 8.7: what LPIPS learns from votes."""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.checks import Mistake, exercise, expect_close
from course_lib.checks.judgments.calling import call, random_votes


@exercise("8.5")
def ranking_loss(attempt: Callable, random: torch.Generator) -> None:
    """Binary cross-entropy of sigmoid(d0 - d1) against the votes, finite for any distances."""
    n = int(torch.randint(8, 14, (), generator=random))
    d0, d1 = 3 * torch.rand(2, n, generator=random)
    judge = random_votes(n, 5, random)
    z = (d0 - d1).double()

    def entropy(z: Tensor, votes: Tensor = judge) -> Tensor:
        likely = 1 / (1 + (-z).exp())
        return -(votes * likely.log() + (1 - votes) * (1 - likely).log())

    likely = 1 / (1 + (-z).exp())
    expected = float(entropy(z).mean())
    found = call(attempt, d0, d1, judge)
    if isinstance(found, Tensor) and found.isnan().any():
        raise Mistake("NaN: is that the logarithm of a negative difference? Take its sigmoid first")
    expect_close(
        found,
        expected,
        {
            "reversed: votes go to p1 when d0 is the *larger* distance, so it is sigmoid(d0 - d1)": entropy(-z).mean(),
            "the minus is missing: a loss is -log of a probability, and positive": -expected,
            "sigmoid was taken twice: binary_cross_entropy_with_logits takes d0 - d1 itself": [
                entropy(1 / (1 + (-z).exp())).mean(),
                entropy(1 / (1 + z.exp())).mean(),
            ],
            "votes were rounded to 0 or 1; judge is a fraction, and the loss takes it as it is": [
                entropy(z, rounded.double()).mean() for rounded in (judge > 0.5, judge >= 0.5)
            ],
            "half of it is missing: add (1 - judge) * log(1 - probability)": [
                (-judge * likely.log()).mean(),
                (-judge * likely.log()).sum(),
            ],
            "that is the squared error of the probability; take the cross-entropy": (likely - judge).square().mean(),
            "that is the sum over the triplets; take the mean": expected * n,
            "one loss per triplet; take the mean": entropy(z),
            "that is a margin loss; take the cross-entropy": [
                (m - z * (2 * judge.double() - 1)).clamp_min(0).mean() for m in (0, 0.1, 1)
            ],
            "that is a margin loss of rounded votes; take the cross-entropy against the fraction": [
                (m - z * (judge.double() - 0.5).sign()).clamp_min(0).mean() for m in (0, 0.05, 0.1, 1)
            ],
        },
    )
    _finite_far_away(attempt)


def _finite_far_away(attempt: Callable) -> None:
    """Loss and gradient of distances that are 200 apart, where a probability rounds to 0 or 1."""
    d0 = torch.tensor([200.0, 0.0, 200.0, 0.0], requires_grad=True)
    d1 = torch.tensor([0.0, 200.0, 0.0, 200.0], requires_grad=True)
    judge = torch.tensor([1.0, 0.0, 0.2, 0.4])
    loss = attempt(d0, d1, judge)
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        raise Mistake("the value is right, but no gradient reaches the distances; return a tensor, without .item()")
    if not loss.isfinite():
        raise Mistake(
            f"the loss is {loss.item()} where |d0 - d1| = 200: the sigmoid rounds to 0 or 1, and log(0) is infinite; "
            "use F.binary_cross_entropy_with_logits or F.logsigmoid"
        )
    expect_close(
        loss,
        (0 + 0 + 0.8 * 200 + 0.4 * 200) / 4,
        {
            "wrong where |d0 - d1| = 200: the sigmoid rounds to 0 or 1, and clamping its logarithm makes it finite but "
            "not right; use F.binary_cross_entropy_with_logits or F.logsigmoid": lambda value: True
        },
    )
    (slope,) = torch.autograd.grad(loss, d0)
    if not torch.allclose(slope, torch.tensor([0, 0, 0.2, -0.1]), atol=1e-4):
        raise Mistake(
            f"the loss is right where |d0 - d1| = 200, but its gradient is {slope.tolist()}; "
            "use F.binary_cross_entropy_with_logits or F.logsigmoid"
        )


@exercise("8.6")
def channel_differences(attempt: Callable, random: torch.Generator) -> None:
    """Squared differences of unit features, averaged over positions: one number per channel of every layer."""
    shapes = [(2, 4, 4, 3), (2, 3, 2, 2), (2, 5, 1, 3)]
    fx, fy = ([torch.randn(shape, generator=random) for shape in shapes] for _ in range(2))
    differences = [(_unit(a) - _unit(b)).square() for a, b in zip(fx, fy, strict=True)]

    def joined(maps: Iterable[Tensor], reduce: Callable = lambda m: m.mean((2, 3))) -> Tensor:
        return torch.cat([reduce(m) for m in maps], 1)

    def divided_by_sum(power: Callable[[Tensor], Tensor]) -> Tensor:
        scaled = [[f / power(f).sum(1, keepdim=True) for f in features] for features in (fx, fy)]
        return joined((a - b).square() for a, b in zip(*scaled, strict=True))

    expected = _differences_by_loops(fx, fy)
    found = call(attempt, fx, fy)
    if isinstance(found, list | tuple):
        raise Mistake("these are separate layers; join them: torch.cat(layers, 1)")
    raw = [(a - b).square() for a, b in zip(fx, fy, strict=True)]
    expect_close(
        found,
        expected,
        {
            "you compared the raw features; scale every position's channel vector to length 1 first": joined(raw),
            "you scaled the difference; scale each feature map, *then* subtract": joined(
                _unit(a - b).square() for a, b in zip(fx, fy, strict=True)
            ),
            "you averaged before squaring; square the difference at every position, *then* average": [
                joined(_unit(a) - _unit(b) for a, b in zip(fx, fy, strict=True)).square()
            ],
            "you forgot to square the difference": joined(_unit(a) - _unit(b) for a, b in zip(fx, fy, strict=True)),
            "these are absolute differences; square them": joined(d.sqrt() for d in differences),
            "you took the square root at the end; a weighted sum of *squares* is LPIPS": expected.sqrt(),
            "you summed over the positions; LPIPS takes their mean": joined(differences, lambda m: m.sum((2, 3))),
            "you averaged over the channels; they have to stay, each gets a weight of its own": [
                joined(differences, lambda m: m.mean((1, 2, 3))[:, None]),
                joined(differences, lambda m: m.mean(1).flatten(1)),
                torch.stack([d.mean((1, 2, 3)) for d in differences], 1),
                torch.stack([d.sum(1).mean((1, 2)) for d in differences], 1),
            ],
            "you normalised over space, not channels: dim=1 is the channel axis": joined(
                (_unit(a, (2, 3)) - _unit(b, (2, 3))).square() for a, b in zip(fx, fy, strict=True)
            ),
            "you divided by the squared length; take its root": divided_by_sum(torch.square),
            "you divided by the sum of the channels; the length is the root of the sum of their squares": [
                divided_by_sum(torch.clone),
                divided_by_sum(torch.abs),
            ],
            "the mean over the batch is in it; every pair keeps its own row": expected.mean(0),
            "the layers are in reverse order; the weights are from the first layer to the last": joined(
                differences[::-1]
            ),
            "one layer only; join all of them with torch.cat(layers, 1)": [d.mean((2, 3)) for d in differences],
            "all positions are still there; average over them: .mean((2, 3))": joined(
                differences, lambda m: m.flatten(1)
            ),
        },
    )
    for features in (fx[0], fy[1]):
        features[0, :, 0, 1] = 0
    again = call(attempt, fx, fy)
    if again.isnan().any():
        raise Mistake("NaN where no channel fires, because of 0 / 0; add a tiny number to the length")
    expect_close(again, _differences_by_loops(fx, fy))


def _unit(features: Tensor, axes: int | tuple[int, int] = 1) -> Tensor:
    return features / torch.linalg.vector_norm(features, dim=axes, keepdim=True).clamp_min(1e-12)


def _differences_by_loops(fx: list[Tensor], fy: list[Tensor]) -> Tensor:
    """One pair, layer and position at a time, in Python's own numbers."""

    def unit(vector: list[float]) -> list[float]:
        length = math.sqrt(sum(v * v for v in vector)) or 1.0
        return [v / length for v in vector]

    rows = []
    for i in range(len(fx[0])):
        row: list[float] = []
        for a, b in zip(fx, fy, strict=True):
            height, width = a.shape[2:]
            positions = [(r, c) for r in range(height) for c in range(width)]
            squares = [
                [(u - v) ** 2 for u, v in zip(unit(a[i, :, r, c].tolist()), unit(b[i, :, r, c].tolist()), strict=True)]
                for r, c in positions
            ]
            row += [sum(column) / len(positions) for column in zip(*squares, strict=True)]
        rows.append(row)
    return torch.tensor(rows)


STEPS = 3


@exercise("8.7")
def train_step(attempt: Callable, random: torch.Generator) -> None:
    """One step of training heads on channel differences that leaves no weight negative, and every one in place."""
    n, channels = 12, 9
    batches = []
    for _ in range(STEPS):
        d0, d1 = torch.rand(2, n, channels, generator=random)
        judge = random_votes(n, 5, random)
        against = (1 - 2 * judge[:, None]) / 2  # two channels against the votes: every step pushes their weights down
        d0[:, 2:4], d1[:, 2:4] = 0.5 + against, 0.5 - against
        batches.append((d0, d1, judge))
    start = torch.rand(channels, generator=random) * 0.1
    start[:2] = torch.tensor([1.5, 0.8])
    make = functools.partial(torch.optim.SGD, lr=2.0)

    def after(**change: Any) -> Tensor:
        return _steps(make, start, batches, **change)

    heads = _linear(start)
    optimiser = make(heads.parameters())
    weight = heads.weight
    for k, batch in enumerate(batches):
        loss = call(attempt, heads, optimiser, *batch)
        if k == 0:
            _check_loss(loss, start, batch, weight.detach().flatten().clone())
        if heads.weight is not weight or optimiser.param_groups[0]["params"][0] is not heads.weight:
            raise Mistake(
                "you replaced the Parameter: the optimiser still moves the old one, and this one never learns; change "
                "it in place, under torch.no_grad(): heads.weight.clamp_(min=0)"
            )
        if not heads.weight.requires_grad:
            raise Mistake("after your step the weights no longer require a gradient; leave requires_grad alone")
    expect_close(
        weight.detach().flatten(),
        after(),
        {
            "the weights did not move; call optimiser.step() after loss.backward()": [start, start.clamp(0, 1)],
            "weights are negative: after optimiser.step(), clamp them at 0 *in place*, with clamp_": (
                after(project=lambda w: w)
            ),
            "you clamped before the step, and the step can make weights negative again; clamp after it": (
                after(project=lambda w: w, first=True)
            ),
            "abs() turns a weight that fell below 0 into a positive one; the nearest weight allowed is 0: clamp": (
                after(project=torch.abs)
            ),
            "gradients add up from step to step; call optimiser.zero_grad() before loss.backward()": [
                after(stale=True),
                after(stale=True, project=lambda w: w),
            ],
            "a relu in the forward pass leaves the weights themselves negative; clamp the weights after the step": [
                after(relu=True, project=lambda w: w),
                after(relu=True),
            ],
            "reversed: the weights move away from the votes; the loss takes (d0, d1, judge) in this order": [
                after(sign=-1),
                after(sign=-1, project=lambda w: w),
            ],
            "you clamped the gradient; clamp the weights": after(clip=True, project=lambda w: w),
            "weights above 1 were cut; only the lower end is bounded: clamp_(min=0)": after(
                project=lambda w: w.clamp(0, 1)
            ),
            "a softmax moves every weight; set only the negative ones to 0": after(project=lambda w: w.softmax(0)),
            "the weights were scaled to a sum of 1; set only the negative ones to 0": [
                after(project=lambda w: w.clamp(min=0) / w.clamp(min=0).sum()),
                after(project=lambda w: w.abs() / w.abs().sum()),
            ],
        },
        rtol=1e-3,
    )
    heads = _linear(start)
    adam = torch.optim.Adam(heads.parameters(), lr=0.05)
    for batch in batches:
        attempt(heads, adam, *batch)
    by_adam = _steps(functools.partial(torch.optim.Adam, lr=0.05), start, batches)
    if not torch.allclose(heads.weight.detach().flatten(), by_adam, atol=1e-3):
        raise Mistake("right with SGD, wrong with Adam: leave the step to the optimiser that you were given")


def _linear(start: Tensor) -> nn.Linear:
    heads = nn.Linear(len(start), 1, bias=False)
    heads.weight.data.copy_(start)
    return heads


def _check_loss(loss: Any, start: Tensor, batch: tuple[Tensor, Tensor, Tensor], moved: Tensor) -> None:
    """The loss that `train_step` returns is that of the weights it was given."""
    d0, d1, judge = batch
    z = (d0 - d1) @ start

    def mean(z: Tensor, judge: Tensor = judge) -> Tensor:
        return (-judge * torch.nn.functional.logsigmoid(z) - (1 - judge) * torch.nn.functional.logsigmoid(-z)).mean()

    if loss is None:
        raise Mistake("your function returns nothing; return the loss")
    expect_close(
        loss,
        float(mean(z)),
        {
            "(n, 1) met (n,) and every distance was compared with every vote; use heads(d0).squeeze(1)": [
                mean(z[:, None]),
                mean(z[:, None]) * len(z) ** 2,
            ],
            "reversed: the loss takes (d0, d1, judge) in this order": mean(-z),
            "that is the loss after the step; compute it once, before": mean((d0 - d1) @ moved),
        },
        rtol=1e-3,
    )


def _steps(
    make: Callable,
    start: Tensor,
    batches: Sequence[tuple[Tensor, Tensor, Tensor]],
    *,
    project: Callable[[Tensor], Tensor] = lambda w: w.clamp(min=0),
    first: bool = False,
    stale: bool = False,
    relu: bool = False,
    clip: bool = False,
    sign: int = 1,
) -> Tensor:
    """Weights after a step on every batch, by the gradient on paper, (sigmoid(z) - judge) (d0 - d1) / n."""
    w = nn.Parameter(start.clone())
    optimiser = make([w])
    total = torch.zeros_like(start)
    for d0, d1, judge in batches:
        gaps = sign * (d0 - d1)
        with torch.no_grad():
            if first:
                w.clamp_(min=0)
            used = w.relu() if relu else w
            gradient = ((gaps @ used).sigmoid() - judge) @ gaps / len(judge)
            gradient = gradient * (w > 0) if relu else gradient.clamp(min=0) if clip else gradient
        total = total + gradient if stale else gradient
        w.grad = total.clone()
        optimiser.step()
        w.data.copy_(project(w.data))
    return w.detach()
