"""Exercise 9.6: attacks that say "robust", and what is wrong with them."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.attacks import Ball, direction
from course_lib.checks import Mistake, exercise
from course_lib.checks.judgments.calling import call

Value = Callable[[Tensor], Tensor]
Attack = Callable[[Value, Tensor, Ball], Tensor]
FAULTS = ("too short", "masked", "stops everyone", "sound")
STEPS = 20


def _climb(
    value: Value,
    start: Tensor,
    ball: Ball,
    *,
    step: float | None = None,
    random: bool = False,
    stop: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """PGD that leaves examples alone once their value is above 0, or else ends for all when `stop` says so."""
    step = 2.5 * ball.eps / STEPS if step is None else step
    images = ball.random(start, torch.Generator().manual_seed(0)) if random else start
    for _ in range(STEPS):
        images = images.detach().requires_grad_()
        values = value(images)
        if stop is not None and stop(values):
            break
        (gradient,) = torch.autograd.grad(values.sum(), images)
        ahead = ball.project(images + step * direction(gradient, ball.norm), start)
        images = ahead if stop is not None else torch.where(values[:, None, None, None] > 0, images, ahead)
    return images.detach()


AUDITS: dict[str, Attack] = {
    "A": lambda value, start, ball: _climb(value, start, ball, stop=lambda values: values.mean() > 0),
    "B": lambda value, start, ball: _climb(value, start, ball),
    "C": lambda value, start, ball: _climb(value, start, ball, step=0.01),
}


class _Case(NamedTuple):
    truth: str
    what: str
    attack: Attack
    margins: tuple[float, ...]  # how far each example is from success
    bend: Callable[[Tensor], Tensor] = lambda value: value
    grey: int = 0  # levels that pixels are rounded to


def _levels(images: Tensor, levels: int) -> Tensor:
    return (images * levels).round() / levels if levels else images


def _cases() -> list[_Case]:
    mixed, far = (0.1, 0.15, 0.2, 0.3, 0.85, 0.7), (0.5, 0.55, 0.6, 0.65, 0.7, 0.8)
    sound = _climb

    def short(value: Value, start: Tensor, ball: Ball) -> Tensor:
        return _climb(value, start, ball, step=0.02)

    def mean(value: Value, start: Tensor, ball: Ball) -> Tensor:
        return _climb(value, start, ball, stop=lambda values: values.mean() > 0)

    def first(value: Value, start: Tensor, ball: Ball) -> Tensor:
        return _climb(value, start, ball, stop=lambda values: (values > 0).any())

    def scattered(value: Value, start: Tensor, ball: Ball) -> Tensor:
        return _climb(value, start, ball, random=True)

    return [
        _Case("sound", "an attack that turns all", sound, mixed),
        _Case("too short", "steps that reach 0.4 of eps", short, far),
        _Case("too short", "steps that reach 0.4 of eps, enough for some", short, mixed),
        _Case("masked", "a value of rounded pixels", sound, far, grey=8),
        _Case("masked", "a value of rounded pixels, from a random start", scattered, far, grey=8),
        _Case("masked", "a value that is flat for some examples", sound, mixed, bend=lambda v: v.clamp_min(-0.5)),
        _Case("masked", "a value that saturates", sound, far, bend=lambda v: torch.tanh(100 * v)),
        _Case("stops everyone", "an attack that ends once the first is fooled", first, mixed),
        _Case("stops everyone", "an attack that ends by the batch's mean", mean, mixed),
        _Case("sound", "an honest attack on examples that do stand", sound, (0.2, 1.5, 1.7, 2.0, 0.3, 1.6)),
        _Case("sound", "an honest attack on tiny values", sound, (1.5, 1.7, 2.0), bend=lambda v: 1e-7 * v),
        _Case("too short", "too few steps, on tiny values", short, far, bend=lambda v: 1e-7 * v),
    ]


HINTS = {
    ("sound", "too short"): "only those who stand have to be at the border; who is fooled may stop before it",
    ("sound", "masked"): "masked is a gradient of exactly 0; a small one will do, as a step has its own length",
    ("sound", "stops everyone"): "nobody stands here who falls when attacked alone; only those that *stand* matter",
    ("too short", "sound"): "some stand although they have not reached the border: measure the sizes of their changes",
    ("too short", "masked"): "masked is a gradient of exactly 0, and here it is not; the steps end too soon",
    ("too short", "stops everyone"): "attacked alone, those that stand stand again, and as far from the border",
    ("masked", "sound"): "those that stand have a gradient of exactly 0, so nobody looked for a way",
    ("masked", "too short"): "nothing moves where the gradient is exactly 0; look at the gradient before the size",
    ("masked", "stops everyone"): "attacked alone, those that stand stand again; their gradient is exactly 0",
    ("stops everyone", "sound"): "some stand here and fall when they are attacked *alone*",
    ("stops everyone", "too short"): "some stand here, inside the ball, and fall when they are attacked *alone*",
    ("stops everyone", "masked"): "their gradient is not 0; attacked *alone* they fall",
}


@exercise("9.6")
def diagnose(attempt: Callable, random: torch.Generator) -> None:
    """Which fault lets decisions stand under an attack: found by running it, not by reading it."""
    shape = (3, *torch.randint(5, 8, (2,), generator=random).tolist())
    for case in _cases():
        slope = torch.randn(shape, generator=random)
        slope /= slope.norm()
        noise = 0.05 * torch.randn(len(case.margins), *shape, generator=random)
        noise -= (noise * slope).sum((1, 2, 3), keepdim=True) * slope
        start = _levels(0.5 + noise, case.grey) if case.grey else 0.5 + noise
        offset = torch.tensor(case.margins)
        start = start - (offset + ((start - 0.5) * slope).sum((1, 2, 3)))[:, None, None, None] * slope
        ball = Ball("l2", 1.0)

        def value(images: Tensor, slope: Tensor = slope, case: _Case = case) -> Tensor:
            return case.bend(((_levels(images, case.grey) - 0.5) * slope).sum((1, 2, 3)))

        said = call(attempt, case.attack, value, start, ball)
        if said is None:
            raise Mistake("your function returns nothing; did you forget `return`, or the case that no fault is found?")
        if said not in FAULTS:
            raise Mistake(f"you return {said!r}; return one of {', '.join(map(repr, FAULTS))}")
        if said != case.truth:
            raise Mistake(f"{case.what}: you say {said!r}, it is {case.truth!r}; {HINTS[case.truth, said]}")
