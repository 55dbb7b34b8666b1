"""Exercise 1.8, open-ended: a code that tells digits apart under noise it never saw."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.autoencoders import Autoencoder, explained, gaussian_noise, halved, linear_accuracy, parameter_count
from course_lib.checks import Mistake, exercise, expect_shape
from course_lib.data import digits

STEPS, BATCH, RATE = 300, 100, 1e-2
NUMBERS, PARAMETERS, SIGMA = 64, 30_000, 0.5
TARGET, EXPLAINED = 0.68, 0.25


class Score(NamedTuple):
    """What :func:`probe` measures.

    Attributes:
        clean, noisy: shares of the test digits, without and with noise, that a linear classifier recognises.
        explained: share of the clean test digits' variance that the reconstructions have right.
    """

    clean: float
    noisy: float
    explained: float


@functools.cache
def _digits(split: str) -> tuple[Tensor, Tensor]:
    images, labels = digits.load(split)
    return halved(images.float() / 255), labels


def train(model: Autoencoder, loss: Callable[[Tensor], Tensor], steps: int = STEPS) -> Autoencoder:
    """Train in place, the same way for everybody, and return the model in evaluation mode.

    Adam over `steps` batches of 100 of the 4,000 training digits (14 x 14), its learning rate falling from 0.01 to 0
    along a cosine. The model starts as it is.

    Args:
        model: (n, 1, 14, 14) in [0, 1].
        loss: of a batch of clean images; as from :func:`course_lib.autoencoders.objective`.
        steps: how many.
    """
    images, _ = _digits("train")
    random = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for step in range(steps):
        value = loss(images[torch.randint(len(images), (BATCH,), generator=random)])
        if not value.isfinite():
            raise Mistake(f"the loss is {value.item()} at step {step}; start smaller, or with a smaller penalty")
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def probe(model: Autoencoder, sigma: float = SIGMA) -> Score:
    """A linear classifier learns the codes of clean training digits; how many digits does it recognise?

    Args:
        model: a trained autoencoder.
        sigma: standard deviation of the Gaussian noise on the noisy test digits; each is tried four times.
    """
    (images, labels), (test, test_labels) = _digits("train"), _digits("test")
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        code, clean = model.encode(images), model.encode(test)
        noisy = torch.cat([model.encode(gaussian_noise(test, sigma, random)) for _ in range(4)])
    if not (code.isfinite().all() and noisy.isfinite().all()):
        raise Mistake("the code contains NaN or infinity after training")
    return Score(
        linear_accuracy(code, labels, clean, test_labels),
        linear_accuracy(code, labels, noisy, test_labels.repeat(4)),
        explained(model, test),
    )


@exercise("1.8")
def robust_code(attempt: Callable, random: torch.Generator) -> None:
    """Open-ended: an autoencoder and its loss, whose code of noisy digits a linear classifier can still read."""
    found = attempt()
    if found is None:
        raise Mistake("your function returns nothing; did you forget `return`?")
    if not isinstance(found, tuple) or len(found) != 2:
        raise Mistake("return two things: the model, and the loss of a batch")
    model, loss = found
    if not isinstance(model, Autoencoder):
        raise Mistake(f"the model is a {type(model).__name__}; return one of the chapter's autoencoders, or a subclass")
    if not callable(loss):
        raise Mistake(f"the loss is a {type(loss).__name__}; return a function of a batch: library.objective(model)")
    _expect_small(model)
    before = [p.detach().clone() for p in model.parameters()]
    train(model, _scalar(loss))
    if all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)):
        raise Mistake("training the loss leaves the model as it is; is the loss that of another model?")
    score = probe(model)
    if score.explained < EXPLAINED:
        raise Mistake(
            f"it explains only {score.explained:.0%} of the digits' variance; it should still be an autoencoder: "
            f"{EXPLAINED:.0%} at least"
        )
    if score.noisy < TARGET:
        raise Mistake(
            f"of the clean digits {score.clean:.0%} are recognised, of the noisy ones {score.noisy:.1%}; "
            f"reach {TARGET:.0%}"
        )


def _expect_small(model: Autoencoder) -> None:
    if parameter_count(model) > PARAMETERS:
        raise Mistake(f"the model has {parameter_count(model):,} parameters; {PARAMETERS:,} are allowed")
    images = _digits("test")[0][:5]
    model.eval()
    with torch.no_grad():
        code = model.encode(images)
        again = model.encode(images)
        alone = model.encode(images[:1])
    if not isinstance(code, Tensor) or code.ndim != 2 or len(code) != 5:
        expect_shape(code, (5, model.code_size), "one row of numbers for every image")
    if code.shape[1] > NUMBERS:
        raise Mistake(f"the code has {code.shape[1]} numbers; {NUMBERS} are allowed")
    if not torch.equal(code, again) or not torch.allclose(code[:1], alone, atol=1e-5):
        raise Mistake("in evaluation mode an image's code depends on chance, or on the other images of the batch")


def _scalar(loss: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def checked(images: Tensor) -> Tensor:
        value = loss(images)
        expect_shape(value, (), "the loss of a batch is one number")
        if not value.requires_grad:
            raise Mistake("the loss has no gradient: no .detach(), .item() or no_grad()")
        return value

    return checked
