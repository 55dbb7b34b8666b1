"""Exercise 2.4: the losses of two players who see the same pictures."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.checks import Mistake, exercise, expect_close
from course_lib.checks.autoencoders.calling import expect_gradient

Losses = tuple[Tensor, Tensor]


class Scores(nn.Module):
    """A small discriminator that likes bright images; its scores are spread around 1 for these, -1 for dark ones."""

    def __init__(self, random: torch.Generator):
        super().__init__()
        self.weight = nn.Parameter(0.6 + torch.randn(1, 3, 2, 2, generator=random))
        self.bias = nn.Parameter(torch.tensor([0.05]))

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) -> (n, 1, h / 2, w / 2)."""
        return F.conv2d(images - 0.45, self.weight, self.bias, stride=2)


def _play(discriminator: nn.Module, restored: Tensor, truth: Tensor, cut: str = "") -> Losses:
    """Both losses, in the plainest way, with one of their parts cut out of the gradient."""
    real, fake = discriminator(truth), discriminator(restored.detach())
    real, fake = (score.detach() if part == cut else score for part, score in (("real", real), ("fake", fake)))
    return (1 - real).clamp_min(0).mean() + (1 + fake).clamp_min(0).mean(), -discriminator(restored).mean()


@exercise("2.4")
def hinge(attempt: Callable, random: torch.Generator) -> None:
    """Mean relu(1 - D(truth)) + mean relu(1 + D(restored)) for the discriminator; minus mean D(restored)."""
    n = int(torch.randint(3, 6, (), generator=random))
    discriminator = Scores(random)
    truth = 0.3 + 0.7 * torch.rand(n, 3, 8, 8, generator=random)
    restored = (0.5 * torch.rand(n, 3, 8, 8, generator=random)).requires_grad_()
    found, other = _both(attempt(discriminator, restored, truth))
    if not all(parameter.requires_grad for parameter in discriminator.parameters()):
        raise Mistake("you froze the discriminator and left it so; its own loss needs its gradient: detach restored")
    if not restored.requires_grad:
        raise Mistake("you detached the caller's restored itself, in place; .detach(), without _, makes another tensor")
    if any(leaf.grad is not None for leaf in (restored, *discriminator.parameters())):
        raise Mistake("you called .backward(); return the losses, the training loop does the rest")
    with torch.no_grad():
        real, fake = discriminator(truth), discriminator(restored)
    _expect_values(found, other, real, fake)
    _expect_discriminators_gradient(discriminator, found, restored, truth)
    _expect_restorers_gradient(discriminator, other, restored, truth)


def _both(found: Any) -> tuple[Any, Any]:
    if found is None:
        raise Mistake("your function returns nothing; did you forget `return`?")
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise Mistake("return two losses: the discriminator's, then the restorer's")
    return found[0], found[1]


def _expect_values(found: Any, other: Any, real: Tensor, fake: Tensor) -> None:
    def hinges(margin: float = 1.0) -> Tensor:
        return F.relu(margin - real).mean() + F.relu(margin + fake).mean()

    true, fooling = hinges(), -fake.mean()
    if _equal(found, fooling) and _equal(other, true):
        raise Mistake("the two losses are swapped; the discriminator's comes first")
    expect_close(
        found,
        true,
        {
            "the discriminator's signs are swapped: real scores should be *above* 1, restored ones below -1": (
                F.relu(1 + real).mean() + F.relu(1 - fake).mean()
            ),
            "there is no hinge: a real score above 1 costs nothing, so relu(1 - score)": [
                (1 - real).mean() + (1 + fake).mean(),
                fake.mean() - real.mean(),
                real.mean() - fake.mean(),
            ],
            "you took the mean before the hinge; every patch has a margin of its own": [
                F.relu(1 - real.mean()) + F.relu(1 + fake.mean()),
                F.relu(1 - real.mean((1, 2, 3))).mean() + F.relu(1 + fake.mean((1, 2, 3))).mean(),
            ],
            "the margin is missing: real scores should be above 1, not only above 0": hinges(0.0),
            "there is a 1/2 in front; the discriminator's loss is the sum of its two halves": true / 2,
            "the discriminator's half about the truth is missing": F.relu(1 + fake).mean(),
            "the discriminator's half about restored images is missing": F.relu(1 - real).mean(),
            "both halves of the discriminator's loss have 1 minus the score; restored ones should be below -1": (
                F.relu(1 - real).mean() + F.relu(1 - fake).mean()
            ),
            "both halves of the discriminator's loss have 1 plus the score; real ones should be above 1": (
                F.relu(1 + real).mean() + F.relu(1 + fake).mean()
            ),
            "the two halves of the discriminator's loss are added": F.relu(1 - real).mean() - F.relu(1 + fake).mean(),
            "that is the cross-entropy of the first GANs; the hinge is relu(1 - score)": [
                F.softplus(-real).mean() + F.softplus(fake).mean(),
                (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2,
            ],
            "that is the squared error of LSGAN; the hinge is relu(1 - score)": [
                (1 - real).square().mean() + fake.square().mean(),
                (1 - real).square().mean() + (1 + fake).square().mean(),
            ],
            "the sign of the discriminator's loss is wrong; it is small where the discriminator is right": -true,
            "the discriminator's loss is summed; average over the patches": (
                F.relu(1 - real).sum() + F.relu(1 + fake).sum()
            ),
            "one number for every patch or image; average the discriminator's loss over all of them": (
                lambda loss: isinstance(loss, Tensor) and loss.numel() > 1
            ),
        },
    )
    expect_close(
        other,
        fooling,
        {
            "the restorer's sign is wrong: it wants *high* scores for what it restored": -fooling,
            "the restorer's loss has no hinge: a score above 1 is still worth raising": F.relu(1 - fake).mean(),
            "that is the discriminator's half about restored images; the restorer wants the opposite: -score": [
                F.relu(1 + fake).mean()
            ],
            "the restorer is scored by its own images, not by the truth": [-real.mean(), real.mean()],
            "the truth has no part in the restorer's loss": [real.mean() - fake.mean(), fake.mean() - real.mean()],
            "that is the cross-entropy of the first GANs; the restorer's loss is minus the mean score": [
                F.softplus(-fake).mean(),
                -F.softplus(fake).mean(),
            ],
            "the restorer's loss is not minus the discriminator's": [-true, true],
            "the restorer's loss is summed; average over the patches": -fake.sum(),
            "one number for every patch or image; average the restorer's loss over all of them": (
                lambda loss: isinstance(loss, Tensor) and loss.numel() > 1
            ),
        },
    )


def _expect_discriminators_gradient(discriminator: Scores, loss: Tensor, restored: Tensor, truth: Tensor) -> None:
    if not loss.requires_grad:
        raise Mistake("right, but the discriminator's loss has no gradient, so it learns nothing: no no_grad()")
    slope, leak = torch.autograd.grad(loss, [discriminator.weight, restored], allow_unused=True, retain_graph=True)
    if leak is not None and leak.abs().max() > 0:
        raise Mistake(
            "right, but the discriminator's loss has a gradient by restored: the restorer would learn to *help* it; "
            "discriminator(restored.detach())"
        )

    def by_weight(cut: str = "") -> Tensor:
        return torch.autograd.grad(_play(discriminator, restored, truth, cut)[0], discriminator.weight)[0]

    expect_gradient(
        torch.zeros_like(discriminator.weight) if slope is None else slope,
        by_weight(),
        {
            "right, but you detached the *score* of restored, so that the discriminator learns nothing from it; "
            "detach the image": by_weight("fake"),
            "right, but the score of the truth is detached, so that the discriminator learns nothing from it": (
                by_weight("real")
            ),
        },
        "discriminator's weight",
    )


def _expect_restorers_gradient(discriminator: Scores, loss: Tensor, restored: Tensor, truth: Tensor) -> None:
    slope = torch.autograd.grad(loss, restored, allow_unused=True)[0] if loss.requires_grad else None
    if slope is None:
        raise Mistake(
            "right, but the restorer's loss has no gradient by restored, so that it learns nothing; score restored "
            "again, not detached"
        )
    wanted = torch.autograd.grad(_play(discriminator, restored, truth)[1], restored)[0]
    expect_gradient(slope, wanted, what="restored image")


def _equal(found: Any, value: Tensor) -> bool:
    found = torch.as_tensor(found).detach()
    return found.shape == value.shape and torch.allclose(found, value, rtol=1e-4, atol=1e-5)
