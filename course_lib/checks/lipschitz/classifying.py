"""Exercises 10.1 and 10.8: certificates of a classifier, and a classifier of one's own."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized

from course_lib.checks import Mistake, exercise, expect_close, expect_shape
from course_lib.checks.autoencoders.calling import call
from course_lib.checks.lipschitz.calling import spectral_norm
from course_lib.data import digits
from course_lib.lipschitz.bounds import upper_bound

STEPS, BATCH, EPSILON, TARGET = 150, 128, 36 / 255, 0.89


@exercise("10.1")
def certified_radius(attempt: Callable, random: torch.Generator) -> None:
    """Radius (n,) within which an L-Lipschitz classifier's right decision cannot change; 0 for a wrong one."""
    constant = 1.5 + torch.rand((), generator=random).item()
    logits = 3 * torch.randn(12, 5, generator=random)
    ordered, order = logits.sort(1, descending=True)
    labels = order[:, 0].clone()
    labels[::4], labels[1::4] = order[::4, 2], order[1::4, 1]  # wrong, by one place and by two
    right = order[:, 0] == labels
    own = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    unsigned = ordered[:, 0] - ordered[:, 1]
    margin = (own - others).clamp_min(0)
    scale = math.sqrt(2) * constant
    softmax = logits.softmax(1).sort(1, descending=True).values
    zeroed = (own - logits.scatter(1, labels[:, None], 0).amax(1)) / scale
    expect_close(
        call(attempt, logits, labels, constant),
        margin / scale,
        {
            "you forgot sqrt(2): the *difference* of two logits moves up to sqrt(2) times as fast as the network": (
                margin / constant
            ),
            "you divided by 2: true, but needlessly small; the difference of two logits has constant sqrt(2) L": (
                margin / (2 * constant)
            ),
            "you multiplied by sqrt(2); divide by it": margin * math.sqrt(2) / constant,
            "the constant L is missing: a network twice as fast certifies half": margin / math.sqrt(2),
            "you multiplied by L; a faster network certifies *less*": margin * constant / math.sqrt(2),
            "L is not under the root: it is sqrt(2) * L": margin / math.sqrt(2 * constant),
            "a wrong prediction got a radius; there is nothing to certify, so it is 0": unsigned / scale,
            "the radius is negative where the prediction is wrong; clamp it at 0": (own - others) / scale,
            "reversed: the wrong predictions got a radius, and the right ones 0": (unsigned * ~right / scale),
            "you used probabilities; the certificate is about the logits, before the softmax": [
                (softmax[:, 0] - softmax[:, 1]) * right / scale,
                (softmax[:, 0] - softmax[:, 1]) / scale,
            ],
            "that is the margin over the *smallest* logit; the runner-up is the second largest": (
                (ordered[:, 0] - ordered[:, -1]) * right / scale
            ),
            "that is the top logit alone; subtract the runner-up": ordered[:, 0] * right / scale,
            "the wrong predictions were left out; each keeps its place, with radius 0": (margin / scale)[right],
            "the right logit was replaced by 0, which can win among negative ones; replace it by -inf": [
                zeroed,
                zeroed.clamp_min(0),
            ],
            "pixels are in [0, 1], and so is the radius; leave out the 255": [
                255 * margin / scale,
                margin / scale / 255,
            ],
            "that is the margin over the *smallest* logits: sort begins with them; take topk, or [:, -1] and [:, -2]": [
                (ordered[:, -1] - ordered[:, -2]) * right / scale,
                (ordered[:, -2] - ordered[:, -1]) * right / scale,
            ],
            "you compared the inputs with each other; a row holds the logits of one input: dim=1": (
                lambda found: found.shape == (5,)
            ),
            "every radius stands in a row of its own, (n, 1); take [:, 0] instead of [:, :1]": (
                lambda found: found.shape == (12, 1)
            ),
            "the radii are (n, n): (n, 1) times (n,) makes a table; take [:, 0] instead of [:, :1]": (
                lambda found: found.shape == (12, 12)
            ),
            "you returned one number; every input has its own radius: shape (n,)": lambda found: found.numel() == 1,
            "wrong predictions got a radius; there is nothing to certify, so it is 0": (
                lambda found: found.shape == right.shape and bool((found[~right] > 0).any())
            ),
        },
    )


def fit(network: nn.Module, steps: int = STEPS) -> nn.Module:
    """Train a classifier of digits in place, the same way for everybody, and return it in evaluation mode.

    Adam over `steps` batches of 128 of the 4,000 training digits, on cross-entropy of the logits after 0.4 was taken
    from the right one (so that right answers go on growing their margin) and everything multiplied by 8.

    Args:
        network: (n, 1, 28, 28) in [0, 1] -> (n, 10).
        steps: how many.
    """
    images, labels = digits.load("train")
    random = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    network.train()
    for _ in range(steps):
        batch = torch.randint(len(images), (BATCH,), generator=random)
        logits = network(images[batch].float() / 255) - 0.4 * F.one_hot(labels[batch], 10)
        optimizer.zero_grad()
        F.cross_entropy(8 * logits, labels[batch]).backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def radii(network: nn.Module) -> Tensor:
    """Certified radius (500,) of each test digit, 0 where the prediction is wrong, of a 1-Lipschitz classifier."""
    images, labels = digits.load("test")
    with torch.no_grad():
        logits = network(images.float() / 255)
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(1, keepdim=True)
    return ((own - others).clamp_min(0) / math.sqrt(2)).squeeze(1)


@exercise("10.8")
def classifier(attempt: Callable, random: torch.Generator) -> None:
    """Open-ended: a 1-Lipschitz network for the digits, trained by :func:`fit`, that certifies many of them."""
    network = attempt()
    if network is None:
        raise Mistake("your function returns nothing; did you forget `return`?")
    if not isinstance(network, nn.Module):
        raise Mistake(f"your function returns a {type(network).__name__}; return a network, such as nn.Sequential(...)")
    images = digits.load("train")[0][:5].float() / 255
    network.train()
    with torch.no_grad():
        expect_shape(network(images), (5, 10), "one logit per digit")
        if not torch.equal(network(images), network(images)):
            if any(map(is_parametrized, network.modules())):
                raise Mistake("PyTorch's spectral_norm iterates on at every call, from below; take SpectralLinear")
            raise Mistake("the same digits give different logits: no dropout, no noise, in training neither")
    if not any(p.requires_grad for p in network.parameters()):
        raise Mistake("the network has no parameters to train")
    _expect_slow(network.eval(), images, "")
    fit(network)
    _expect_slow(network, images, " after training")
    certified = (radii(network) > EPSILON).double().mean().item()
    if certified < TARGET:
        raise Mistake(
            f"1-Lipschitz, but only {certified:.0%} of the test digits are certified at 36/255 after {STEPS} steps; "
            f"reach {TARGET:.0%}"
        )


def _expect_slow(network: nn.Module, images: Tensor, when: str) -> None:
    try:
        bound = upper_bound(network)
    except (TypeError, ValueError) as error:
        raise Mistake(f"no bound from above: {' '.join(str(error).split())}") from None
    if bound > 1 + 1e-5:
        raise Mistake(
            f"the bound from above is {bound:.3g}{when}, so it is not 1-Lipschitz; use layers whose bound is 1"
        )
    jacobians = [torch.autograd.functional.jacobian(lambda x: network(x)[0], image[None]) for image in images]
    fastest = max(spectral_norm(jacobian.reshape(10, -1)) for jacobian in jacobians)
    if fastest > max(bound, 0) * (1 + 1e-4):
        raise Mistake(
            f"upper_bound() of the network says {bound:.3g}, but at a digit it moves by {fastest:.3g}{when}; "
            "a bound has to be true"
        )
