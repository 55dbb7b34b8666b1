"""Exercise 12.7: training for the radius that will be certified."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from course_lib.checks import Mistake, exercise, expect_close
from course_lib.checks.autoencoders.calling import call, expect_gradient
from course_lib.checks.certification.calling import embeddings, expect_exact


def _radius(ref: Tensor, p0: Tensor, p1: Tensor) -> Tensor:
    d0, d1 = (ref - p0).square().sum(1), (ref - p1).square().sum(1)
    return (d1 - d0) / (2 * (p0 - p1).norm(dim=1))


def _hinge(radius: Tensor, judge: Tensor, margin: float) -> Tensor:
    """(n,) each triplet's share of the loss."""
    return (1 - judge) * (margin - radius).clamp_min(0) + judge * (margin + radius).clamp_min(0)


def _slopes(loss: Callable[..., Tensor], triplet: tuple[Tensor, ...]) -> Tensor:
    """Gradients by all three embeddings (3, n, d)."""
    leaves = [e.detach().clone().requires_grad_() for e in triplet]
    value = loss(*leaves)
    if not isinstance(value, Tensor) or not value.requires_grad:
        raise Mistake("right, but without a gradient, so nothing can be trained: no .detach(), .item() or no_grad()")
    found = torch.autograd.grad(value, leaves, allow_unused=True)
    return torch.stack([
        torch.zeros_like(leaf) if slope is None else slope for leaf, slope in zip(leaves, found, strict=True)
    ])  # fmt: skip


def _detached(radius: Callable[..., Tensor], which: tuple[int, ...]) -> Callable[..., Tensor]:
    return lambda *triplet: radius(*(e.detach() if i in which else e for i, e in enumerate(triplet)))


@exercise("12.7")
def radius_hinge(attempt: Callable, random: torch.Generator) -> None:
    """Mean of max(0, margin - certified radius of the right decision), for shares of votes."""
    for n, d in ((12, 5), (1, 3), (7, 40)):
        triplet = embeddings(random, n, d)
        judge = torch.tensor([0.0, 0.0, 0.2, 0.6, 1.0, 1.0]).double()[torch.randint(0, 6, (n,), generator=random)]
        judge[0] = 0.2  # not unanimous, also where it is alone
        radius = _radius(*triplet)
        margin = radius.abs().mean().item() * (0.3 + 0.3 * torch.rand((), generator=random).item())
        terms = _hinge(radius, judge, margin)
        hard = (judge > 0.5).double()
        signed = (1 - 2 * judge) * radius
        right = (radius > 0) == (judge < 0.5)
        small = [e.float() for e in triplet]
        found = call(attempt, *small, judge.float(), margin)
        if isinstance(found, Tensor) and found.ndim and n > 1:
            if found.shape == (n,):
                raise Mistake("you return one value for each triplet; the loss is their mean")
            raise Mistake(f"the loss has shape {tuple(found.shape)}; it is one number, ()")
        cosines = F.cosine_similarity(triplet[0], triplet[1]) - F.cosine_similarity(triplet[0], triplet[2])
        unit = [e / e.norm(dim=1, keepdim=True) for e in triplet]
        lengths, apart = triplet[0].norm(dim=1), (triplet[1] - triplet[2]).norm(dim=1)
        d0, d1 = ((triplet[0] - e).norm(dim=1) for e in triplet[1:])
        normal = unit[1] - unit[2]

        def mean(r: Tensor, judge: Tensor = judge, margin: float = margin) -> Tensor:
            return _hinge(r, judge, margin).mean().float()

        expect_close(
            found,
            terms.mean().float(),
            {
                "the labels are turned round: judge is the share of votes for p1, the radius is + for p0": (
                    mean(-radius)
                ),
                "right decisions only: what is wrong now has the most to learn; mean over *all* triplets": [
                    terms[right].mean().float(),
                    terms[right].sum().float() / n,
                    terms[signed > 0].mean().float(),
                ],
                "wrong decisions only: a right one with a small radius has something to learn as well": [
                    terms[~right].mean().float(),
                    terms[~right].sum().float() / n,
                ],
                "a mean over those that still lose: their number changes, and with it the loss; mean over all": (
                    terms[terms > 0].mean().float() if bool((terms > 0).any()) else torch.inf
                ),
                "you divided by |e_ref|: what is certified is not relative to it, and short embeddings would win": [
                    mean(radius / lengths),
                    mean(radius / (triplet[1].norm(dim=1) + triplet[2].norm(dim=1))),
                ],
                "the embeddings are normalised, so their lengths learn nothing; the radius is about e itself": [
                    mean(_radius(*unit)),
                    mean(_radius(unit[0], triplet[1], triplet[2])),
                ],
                "that is the published hinge, on a difference of cosines; the hinge here is on the certified radius": [
                    mean(cosines),
                    mean((unit[0] * (unit[1] - unit[2])).sum(1) / 2),
                ],
                "that is the hinge on d1 - d0; the hinge here is on the certified radius": [
                    mean(d1 - d0),
                    mean((d1 - d0) / 2),
                    mean(d1.square() - d0.square()),
                ],
                "that is the cosine radius; the metric is Euclidean": (
                    mean((triplet[0] * normal).sum(1) / normal.norm(dim=1))
                ),
                "the radius lacks its factor 2: (d1^2 - d0^2) / (2 |e_0 - e_1|)": [
                    mean(2 * radius),
                    mean(radius / apart),
                ],
                "votes that are not unanimous count for both sides, each with its share; you rounded them": [
                    _hinge(radius, hard, margin).mean().float(),
                    _hinge(radius, judge.round(), margin).mean().float(),
                    _hinge(radius, (judge > 0).double(), margin).mean().float(),
                    _hinge(radius, (judge == 1).double(), margin).mean().float(),
                ],
                "(1 - 2 judge) r mixes both sides *before* the hinge; each side has its own hinge, with its share": [
                    (margin - signed).clamp_min(0).mean().float(),
                ],
                "one hinge over the mean: a few large radii pay for all the small ones; first max(0, .), then mean": [
                    (margin - signed.mean()).clamp_min(0).float(),
                    ((1 - judge) * (margin - radius) + judge * (margin + radius)).mean().clamp_min(0).float(),
                ],
                "there is no hinge: above the margin nothing more is gained: max(0, .)": [
                    ((1 - judge) * (margin - radius) + judge * (margin + radius)).mean().float(),
                    (margin - signed).mean().float(),
                    -signed.mean().float(),
                ],
                "the hinge is the wrong way round: max(0, margin - r), not max(0, r - margin)": [
                    ((1 - judge) * (radius - margin).relu() + judge * (-radius - margin).relu()).mean().float(),
                ],
                "the sign of the loss: training makes it small": -terms.mean().float(),
                "the margin is missing, so a right decision is enough, however small its radius": [
                    _hinge(radius, judge, 0.0).mean().float(),
                ],
                "the margin is taken off, not asked for: margin - r": _hinge(radius, judge, -margin).mean().float(),
                "|r| rewards certainty of a wrong decision as well; take the signed radius": [
                    mean(radius.abs()),
                    (margin - radius.abs()).clamp_min(0).mean().float(),
                ],
                "that is the sum; the loss is a mean": terms.sum().float(),
                "the hinge is squared": [
                    terms.square().mean().float(),
                    ((1 - judge) * (margin - radius).clamp_min(0).square()
                     + judge * (margin + radius).clamp_min(0).square()).mean().float(),
                ],
                "votes for p1 teach nothing here: judge * max(0, margin + r) belongs to it": [
                    ((1 - judge) * (margin - radius).clamp_min(0)).mean().float(),
                    (margin - radius).clamp_min(0).mean().float(),
                ],
                "votes for p0 teach nothing here: (1 - judge) * max(0, margin - r) belongs to it": [
                    (judge * (margin + radius).clamp_min(0)).mean().float(),
                ],
                "both sides count in full; each counts with its share of the votes": [
                    ((margin - radius).clamp_min(0) + (margin + radius).clamp_min(0)).mean().float(),
                ],
                "every row met every other: judge (n,) with radii (n, 1) makes a table": [
                    _hinge(radius[:, None], judge, margin).mean().float(),
                ] if n > 1 else [],
            },
        )  # fmt: skip
        value = call(attempt, *triplet, judge, margin)
        expect_exact(torch.as_tensor(value), terms.mean())
        _expect_slopes(attempt, triplet, judge, margin)
    ref, p0, p1 = embeddings(random, 4, 6)
    p1 = torch.cat([p0[:1], p1[1:]])
    judge = torch.tensor([0.0, 1.0, 0.0, 0.4]).double()
    slopes = _slopes(lambda *t: attempt(*t, judge, 1.0), (ref, p0, p1))
    if not slopes.isfinite().all():
        raise Mistake("the gradient is NaN where p0 = p1, and one such triplet spoils the weights: guard against 0 / 0")


def _expect_slopes(attempt: Callable, triplet: tuple[Tensor, ...], judge: Tensor, margin: float) -> None:
    def loss(radius: Callable[..., Tensor]) -> Tensor:
        return _slopes(lambda *t: _hinge(radius(*t), judge, margin).mean(), triplet)

    def fixed_norm(ref: Tensor, p0: Tensor, p1: Tensor) -> Tensor:
        d0, d1 = (ref - p0).square().sum(1), (ref - p1).square().sum(1)
        return (d1 - d0) / (2 * (p0 - p1).norm(dim=1).detach())

    def fixed_normal(ref: Tensor, p0: Tensor, p1: Tensor) -> Tensor:
        normal = ((p0 - p1) / (p0 - p1).norm(dim=1, keepdim=True)).detach()
        return ((ref - (p0 + p1) / 2) * normal).sum(1)

    names = ("ref", "p0", "p1")
    cut = {
        f"right, but no gradient reaches the embedding of {' and '.join(names[i] for i in which)}; detached": loss(
            _detached(_radius, which)
        )
        for which in ((0,), (1,), (2,), (1, 2), (0, 1), (0, 2))
    }
    expect_gradient(
        _slopes(lambda *t: attempt(*t, judge, margin), triplet),
        loss(_radius),
        {
            "right, but the norm |e_0 - e_1| is detached: the loss would go down by growing the embeddings, which the "
            "network cannot do": loss(fixed_norm),
            "right, but the direction from p1 to p0 is detached, and cannot learn": loss(fixed_normal),
            **cut,
        },
        "embeddings",
    )
