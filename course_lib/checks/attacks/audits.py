"""Exercise 9.6: attacks that say "robust", and what is wrong with them."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.attacks import Ball, direction
from course_lib.checks import Mistake, exercise
from course_lib.checks.attacks.calling import call

Value = Callable[[Tensor], Tensor]
Attack = Callable[[Value, Tensor, Ball], Tensor]
FAULTS = ("too short", "masked", "stops everyone", "sound")
STEPS = 20
EPS = 0.5


def _climb(
    value: Value,
    start: Tensor,
    ball: Ball,
    *,
    step: float | None = None,
    raw: bool = False,
    random: bool = False,
    stop: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """PGD that leaves examples alone once their value is above 0, or else ends for all when `stop` says so.

    With `raw`, a step is as long as the gradient says, times `step`.
    """
    step = 2.5 * ball.eps / STEPS if step is None else step
    images = ball.random(start, torch.Generator().manual_seed(0)) if random else start
    for _ in range(STEPS):
        images = images.detach().requires_grad_()
        values = value(images)
        if stop is not None and stop(values):
            break
        (gradient,) = torch.autograd.grad(values.sum(), images)
        ahead = ball.project(images + step * (gradient if raw else direction(gradient, ball.norm)), start)
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
    margins: tuple[float, ...]  # how far each example is from success, in units of eps
    bend: Callable[[Tensor], Tensor] = lambda value: value
    grey: int = 0  # levels that pixels are rounded to
    hints: Mapping[str, str] = MappingProxyType({})  # by what is said, in place of HINTS
    sparse: bool = False  # only the first channel counts


def _levels(images: Tensor, levels: int) -> Tensor:
    return (images * levels).round() / levels if levels else images


def _cases() -> list[_Case]:
    mixed, far = (0.1, 0.15, 0.2, 0.3, 0.85, 0.7), (0.5, 0.55, 0.6, 0.65, 0.7, 0.8)
    sound = _climb

    def short(value: Value, start: Tensor, ball: Ball) -> Tensor:
        return _climb(value, start, ball, step=0.02 * ball.eps)

    def mean(value: Value, start: Tensor, ball: Ball) -> Tensor:
        return _climb(value, start, ball, stop=lambda values: values.mean() > 0)

    def first(value: Value, start: Tensor, ball: Ball) -> Tensor:
        return _climb(value, start, ball, stop=lambda values: (values > 0).any())

    def scattered(value: Value, start: Tensor, ball: Ball) -> Tensor:
        return _climb(value, start, ball, random=True)

    def by_slope(value: Value, start: Tensor, ball: Ball) -> Tensor:
        return _climb(value, start, ball, step=0.1 * ball.eps**2, raw=True)

    def first_by_slope(value: Value, start: Tensor, ball: Ball) -> Tensor:
        return _climb(value, start, ball, step=0.05 * ball.eps**2, raw=True, stop=lambda values: (values > 0).any())

    def slower(value: Tensor) -> Tensor:  # far away the slope is small, so that steps by slope are short
        return torch.where(value > -0.5, value, 0.2 * (value + 0.5) - 0.5) - 1

    def faster(value: Tensor) -> Tensor:
        return torch.where(value > -0.7, value, 5 * (value + 0.7) - 0.7)

    one_is_enough = "one example that stands with a gradient of exactly 0 is enough; look at all who stand"
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
        _Case("sound", "an honest attack on tiny values", sound, (1.5, 1.7, 2.0), bend=lambda v: 1e-10 * v),
        _Case("too short", "too few steps, on tiny values", short, far, bend=lambda v: 1e-10 * v),
        _Case(
            "masked", "a value that is flat for one example, while others stand at the border", sound, (0.2, 0.85, 0.3),
            lambda v: v.clamp_min(-0.5) - 1, hints={"sound": one_is_enough, "too short": one_is_enough},
        ),
        _Case(
            "too short", "an attack that moves some to the border and others not", by_slope, (0.2, 0.3, 1.2, 1.25, 1.3),
            slower, hints={"sound": "one that stands inside the ball is enough, even if not all who stand are there"},
        ),
        _Case(
            "too short", "an attack that moves all but one to the border", by_slope,
            (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 1.3), slower,
            hints={"sound": "each change has a size of its own, which a mean hides; one that is too short is enough"},
        ),
        _Case(
            "sound", "a value that is flat only for an example that is turned from the beginning", sound,
            (-0.5, 0.2, 1.3), lambda v: v.clamp_max(0.3),
            hints={"masked": "it does not stand; only the gradients of those who *stand* matter"},
        ),
        _Case(
            "stops everyone", "an attack that ends once the first is fooled, on examples of which one does stand",
            first_by_slope, (1.9, 0.2, 0.45), faster,
            hints=dict.fromkeys(FAULTS, "attack *each* of those who stand alone, not only the first"),
        ),
        _Case(
            "sound", "a value that reads one channel only", sound, (0.2, 1.3, 1.4), sparse=True,
            hints={"masked": "most numbers of its gradient are 0, but not all: it has a slope"},
        ),
        _Case(
            "masked", "a value that is cut off at 0", sound, far, lambda v: v.clamp_min(0),
            hints={"sound": "a decision is turned *above* 0; who ends at exactly 0 stands"},
        ),
        _Case(
            "sound", "a value that ends at 0, at the border", sound, (0.95, 0.93, 0.9), lambda v: v.clamp_max(0),
            hints={
                "masked": "the gradient counts at `start`, and there it is not 0",
                "stops everyone": "a decision is turned *above* 0; who ends at exactly 0, alone, stands",
            },
        ),
    ]  # fmt: skip


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
    shape = (3, *torch.randint(6, 9, (2,), generator=random).tolist())
    for case in _cases():
        slope = torch.randn(shape, generator=random)
        if case.sparse:
            slope[1:] = 0
        slope /= slope.norm()
        noise = 0.05 * torch.randn(len(case.margins), *shape, generator=random)
        noise -= (noise * slope).sum((1, 2, 3), keepdim=True) * slope
        start = _levels(0.5 + noise, case.grey) if case.grey else 0.5 + noise
        offset = EPS * torch.tensor(case.margins)
        start = start - (offset + ((start - 0.5) * slope).sum((1, 2, 3)))[:, None, None, None] * slope
        ball = Ball("l2", EPS)

        def value(images: Tensor, slope: Tensor = slope, case: _Case = case) -> Tensor:
            return case.bend(((_levels(images, case.grey) - 0.5) * slope).sum((1, 2, 3)) / EPS)

        said = call(attempt, case.attack, value, start, ball)
        if said is None:
            raise Mistake("your function returns nothing; did you forget `return`, or the case that no fault is found?")
        if said not in FAULTS:
            raise Mistake(f"you return {said!r}; return one of {', '.join(map(repr, FAULTS))}")
        if said != case.truth:
            hint = case.hints.get(said) or HINTS[case.truth, said]
            raise Mistake(f"{case.what}: you say {said!r}, it is {case.truth!r}; {hint}")
