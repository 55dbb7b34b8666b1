"""Exercises 11.1 and 11.6: the published loss, and one about distances."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.checks import Mistake, exercise, expect_close
from course_lib.checks.autoencoders.calling import call, expect_gradient, gradient


class _Embedding(nn.Module):
    """Some pixels, each times a number: the same to the last digit whatever the batch."""

    def __init__(self, weight: Tensor, which: Tensor):
        super().__init__()
        self.weight, self.which = nn.Parameter(weight), which

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, self.which] * self.weight


@exercise("11.1")
def published_loss(attempt: Callable, random: torch.Generator) -> None:
    """½ [sqrt MSE(f(x), T(x)) + sqrt MSE(f(jitter x), T(x))], with a finite gradient where both agree."""
    n, d = (int(torch.randint(3, 7, (), generator=random)) for _ in range(2))
    which = torch.randperm(48, generator=random)[: d + 2]
    student = _Embedding(1 + torch.rand(len(which), generator=random), which)
    teacher = _Embedding(2 + torch.rand(len(which), generator=random), which)
    images, jittered = torch.rand(2, n, 3, 4, 4, generator=random)
    with torch.no_grad():
        f, g, t, u = student(images), student(jittered), teacher(images), teacher(jittered)
    loss = call(attempt, student, teacher, images, jittered)
    unit = [F.normalize(part) for part in (f, g, t)]
    expect_close(
        loss,
        (_rmse(f, t) + _rmse(g, t)) / 2,
        {
            "the half is missing: the mean of the two roots, not their sum": _rmse(f, t) + _rmse(g, t),
            "the target was jittered: the teacher sees the *unjittered* images, for both terms": [
                (_rmse(f, t) + _rmse(g, u)) / 2,
                (_rmse(f, u) + _rmse(g, u)) / 2,
            ],
            "you exchanged student and teacher: it is the student who sees both views": (_rmse(t, f) + _rmse(u, f)) / 2,
            "that is the mean over the images of a root for each; one mean over all numbers, then the root": sum(
                (a - t).square().mean(1).sqrt().mean() for a in (f, g)
            )
            / 2,
            "a root for each number of the embedding; one mean over all numbers, then the root": sum(
                (a - t).square().mean(0).sqrt().mean() for a in (f, g)
            )
            / 2,
            "a sum in the place of the mean: the loss would grow with the batch": [
                ((f - t).norm() + (g - t).norm()) / 2,
                (f - t).norm() + (g - t).norm(),
            ],
            "that is the mean length of the error; divide by the number of dimensions before the root": sum(
                (a - t).norm(dim=1).mean() for a in (f, g)
            )
            / 2,
            "the root is missing: sqrt MSE, not MSE": [
                (F.mse_loss(f, t) + F.mse_loss(g, t)) / 2,
                F.mse_loss(f, t) + F.mse_loss(g, t),
            ],
            "one root over both views; each view has its own": [
                ((F.mse_loss(f, t) + F.mse_loss(g, t)) / 2).sqrt(),
                (F.mse_loss(f, t) + F.mse_loss(g, t)).sqrt(),
                (F.mse_loss(f, t) + F.mse_loss(g, t)).sqrt() / 2,
            ],
            "the jittered view is missing": [_rmse(f, t), _rmse(f, t) / 2],
            "the unjittered view is missing": [_rmse(g, t), _rmse(g, t) / 2],
            "the two views of the student were averaged before the comparison": _rmse((f + g) / 2, t),
            "the student was compared with itself: T(x) is what both views have to be": [
                _rmse(f, g),
                (_rmse(f, t) + _rmse(f, g)) / 2,
            ],
            "mean absolute differences; take squares, and the root of their mean": (
                ((f - t).abs().mean() + (g - t).abs().mean()) / 2
            ),
            "you normalised the embeddings; the student has to learn their lengths as well": (
                (_rmse(unit[0], unit[2]) + _rmse(unit[1], unit[2])) / 2
            ),
        },
    )
    few = images[: n - 1]
    with torch.no_grad():
        expected = (_rmse(f[:-1], t[:-1]) + _rmse(student(jittered[:-1]), t[:-1])) / 2
    expect_close(call(attempt, student, teacher, few, jittered[: n - 1]), expected)
    slope = gradient(lambda weight: attempt(_with(student, weight), teacher, images, jittered), [student.weight], 0)
    halves = [_slope(student, [(images, t)]), _slope(student, [(jittered, t)])]
    expect_gradient(
        slope,
        (halves[0] + halves[1]) / 2,
        {
            "right, but the jittered view has no gradient; nothing of the student is detached": halves[0] / 2,
            "right, but the unjittered view has no gradient; nothing of the student is detached": halves[1] / 2,
        },
        "student's weights",
    )
    for small in (1e-4, 1e-3):
        near = _Embedding(student.weight.detach() * (1 + small), which)
        with torch.no_grad():
            t = near(images)
            true = float((_rmse(f, t) + _rmse(f, t)) / 2)
        value = _number(attempt(student, near, images.clone(), images.clone()))
        if abs(value - true) > 0.002 * true:
            raise Mistake(
                f"{value:.3g} where it should be {true:.3g}: what you add under the root, so that it is safe at 0, "
                "is larger than a small error; at most 1e-12"
            )
    _expect_safe(attempt, student, images, images, "where student and teacher agree")
    _expect_safe(attempt, student, images, jittered, "where they agree on the unjittered view")


def _expect_safe(attempt: Callable, student: _Embedding, images: Tensor, jittered: Tensor, where: str) -> None:
    """Raise :class:`Mistake` unless loss and gradient are right for a teacher that is the student."""
    teacher = _Embedding(student.weight.detach().clone(), student.which)
    with torch.no_grad():
        target = teacher(images)
        true = float((_rmse(student(images), target) + _rmse(student(jittered), target)) / 2)
    value = _number(attempt(student, teacher, images.clone(), jittered.clone()))
    if not abs(value - true) <= 1e-5:
        raise Mistake(f"{value:.3g} {where}, it should be {true:.3g}; what you add under the root has to be smaller")
    slope = gradient(lambda weight: attempt(_with(student, weight), teacher, images, jittered), [student.weight], 0)
    if not slope.isfinite().all():
        raise Mistake(
            f"right, but the gradient is NaN {where}: the root is infinitely steep at 0; "
            "torch.linalg.vector_norm of the flat difference is not"
        )
    if not torch.equal(images, jittered):
        expected = _slope(student, [(jittered, target)]) / 2
        if not torch.allclose(slope, expected, rtol=1e-2, atol=1e-5):
            raise Mistake(f"the gradient is wrong {where}: the jittered view still has one")


def _with(student: _Embedding, weight: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda images: images.flatten(1)[:, student.which] * weight


def _slope(student: _Embedding, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Gradient by the weights of the sum of sqrt MSE, by hand in float64."""
    weight, total = student.weight.detach().double(), torch.zeros(len(student.which), dtype=torch.float64)
    for images, target in pairs:
        pixels = images.flatten(1)[:, student.which].double()
        error = pixels * weight - target.double()
        total += (error * pixels).sum(0) / (error.square().sum().sqrt() * error.numel() ** 0.5)
    return total.float()


def _number(loss: Tensor) -> float:
    return loss.detach().item()


def _rmse(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() - b.double()).square().mean().sqrt().float()


@exercise("11.6")
def relational_loss(attempt: Callable, random: torch.Generator) -> None:
    """|D - D*| / |D*| over all pairs of a batch, whose scale is the teacher's, with a finite gradient everywhere."""
    n, d = (int(torch.randint(6, 10, (), generator=random)) for _ in range(2))
    e, t = 0.3 * torch.randn(n, d, generator=random), 2 * torch.randn(n, d + 3, generator=random)
    own, wanted = _distances(e), _distances(t)
    error, size = own - wanted, wanted.norm()
    flat, teachers = own / own.mean(), wanted / wanted.mean()
    unit, units = F.normalize(e), F.normalize(t)
    cosines, theirs = unit @ unit.T, units @ units.T
    neighbours = (e[::2][: n // 2] - e[1::2]).norm(dim=1), (t[::2][: n // 2] - t[1::2]).norm(dim=1)
    first = (e[1:] - e[0]).norm(dim=1), (t[1:] - t[0]).norm(dim=1)
    free = "you divided by the student's own distances: then it may shrink to nothing; the scale is D*'s alone"
    expect_close(
        call(attempt, e, t),
        (error.norm() / size).float(),
        {
            free: [
                ((flat - teachers).norm() / teachers.norm()).float(),
                ((flat - wanted).norm() / size).float(),
                (flat - teachers).norm().float(),
                (flat - teachers).square().mean().float(),
                (flat - teachers).square().mean().sqrt().float(),
                (flat - teachers).abs().mean().float(),
                (error.norm() / own.norm()).float(),
                (own / own.norm() - wanted / size).norm().float(),
                F.smooth_l1_loss(flat, teachers).float(),
            ],
            "you chose the factor that fits best: then the student may shrink to nothing; compare D itself": (
                (own * (own @ wanted) / (own @ own) - wanted).norm() / size
            ).float(),
            "the division by |D*| is missing": [
                error.norm().float(),
                (2**0.5 * error.norm()).float(),
                error.square().mean().sqrt().float(),
                error.square().mean().float(),
                error.abs().mean().float(),
            ],
            "that is the square; take the length |D - D*|": (error.norm() / size).square().float(),
            "the difference of two lengths; take the length of the difference": [
                ((own.norm() - size) / size).float(),
                ((own.norm() - size).abs() / size).float(),
            ],
            "mean absolute differences; |D - D*| is the root of a sum of squares": (
                (error.abs().sum() / wanted.sum()).float()
            ),
            "that is relative to the *mean* of D*; divide by its length": [
                (error.norm() / wanted.mean()).float(),
                (error.square().mean().sqrt() / wanted.mean()).float(),
                (error / wanted.mean()).square().mean().float(),
            ],
            "every pair was divided by its own distance; one division, by the length of them all": [
                (error / wanted).norm().float(),
                (error / wanted).square().mean().float(),
                (error / wanted).square().mean().sqrt().float(),
            ],
            "squared distances; take the root of each": (
                (own.square() - wanted.square()).norm() / wanted.square().norm()
            ).float(),
            "the diagonal is in it: the distance of an image to itself is not one of the pairs": [
                (error.norm() * (2 / n**2) ** 0.5 / (wanted.sum() * 2 / n**2)).float(),
                (2 * error.square().sum() / n**2).float(),
                (2 * error.square().sum() / n**2).sqrt().float(),
            ],
            "only neighbours are compared; all pairs: torch.pdist": (
                (neighbours[0] - neighbours[1]).norm() / neighbours[1].norm()
            ),
            "all images are compared with the first only; all pairs: torch.pdist": (
                (first[0] - first[1]).norm() / first[1].norm()
            ),
            "angles in the place of distances": (cosines - theirs).norm() / theirs.norm(),
            "you normalised the embeddings; the student has to learn their distances as they are": (
                ((_distances(unit) - _distances(units)).norm() / _distances(units).norm()).float()
            ),
        },
    )
    more = torch.cat((e, e[:3] + 1)), torch.cat((t, t[:3] - 2))
    size = _distances(more[1]).norm()
    expect_close(call(attempt, *more), ((_distances(more[0]) - _distances(more[1])).norm() / size).float())
    slope = gradient(attempt, [e, t], 0)
    if slope.isnan().any():
        raise Mistake(
            "right, but the gradient is NaN: the root of the diagonal, where each image is compared with itself; "
            "torch.pdist has no diagonal"
        )
    expect_gradient(slope, _pair_slope(e, t), what="student's embedding")
    for what, same in (("two embeddings are", e), ("two images, so both embeddings and both targets, are", t)):
        double = e.clone()
        double[1] = double[0]
        target = t.clone()
        if same is t:
            target[1] = target[0]
        wanted = _distances(target)
        expect_close(attempt(double, target), ((_distances(double) - wanted).norm() / wanted.norm()).float())
        slope = gradient(attempt, [double, target], 0)
        if not slope.isfinite().all():
            raise Mistake(
                f"right, but the gradient is NaN where {what} equal: the root of 0 is infinitely steep; "
                "torch.pdist knows that"
            )
        if not torch.allclose(slope, _pair_slope(double, target), rtol=1e-2, atol=1e-4):
            raise Mistake(f"the gradient is wrong where {what} equal: of that one pair it is 0")
    if not abs(_number(attempt(t.clone(), t.clone()))) < 1e-4:
        raise Mistake("not 0 for the teacher's own distances")
    if not gradient(attempt, [t, t.clone()], 0).isfinite().all():
        raise Mistake(
            "right, but the gradient is NaN for the teacher's own distances; torch.linalg.vector_norm is safe"
        )


def _distances(rows: Tensor) -> Tensor:
    """Distance of every pair once, one after the other in float64."""
    rows = rows.double()
    return torch.stack([(a - b).square().sum().sqrt() for a, b in itertools.combinations(rows, 2)])


def _pair_slope(e: Tensor, t: Tensor) -> Tensor:
    """Gradient of the relational loss by e, by hand in float64, 0 for a pair at distance 0."""
    x, wanted = e.double(), _distances(t)
    own, slope = _distances(e), torch.zeros_like(e, dtype=torch.float64)
    error = own - wanted
    for k, (i, j) in enumerate(itertools.combinations(range(len(e)), 2)):
        if own[k] > 0:
            pull = error[k] * (x[i] - x[j]) / own[k]
            slope[i] += pull
            slope[j] -= pull
    return (slope / (error.norm() * wanted.norm())).float()
