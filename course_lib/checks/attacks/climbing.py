"""Exercise 9.4: projected gradient ascent, followed step by step."""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.attacks import NORMS, Ball, sizes
from course_lib.checks import Mistake, exercise
from course_lib.checks.attacks.calling import Changed, Watched, attacked, expect_inside

N, STEPS = 6, 6


class _Waves:
    """A sum of sines over pixels: its slope turns from step to step, and its best is soon passed.

    With `below`, it is never above 0.
    """

    def __init__(self, shape: tuple[int, ...], eps: float, random: torch.Generator, below: bool = False):
        self.weight = torch.randn(shape, generator=random)
        self.phase = 6.3 * torch.rand(shape, generator=random)
        self.speed = 1.5 / eps
        self.lift = self.weight.abs().sum() if below else 0.0

    def __call__(self, images: Tensor) -> Tensor:
        return (self.weight * torch.sin(self.speed * images + self.phase)).sum((1, 2, 3)) - self.lift

    def slope(self, images: Tensor) -> Tensor:
        return self.weight * self.speed * torch.cos(self.speed * images + self.phase)


@exercise("9.4")
def pgd(attempt: Callable, random: torch.Generator) -> None:
    """Gradient steps of one size from a random point of a ball, projected; the best images seen of each example."""
    height, width = torch.randint(4, 7, (2,), generator=random).tolist()
    start = torch.rand(N, 3, height, width, generator=random) * 0.1 + 0.45
    for norm, eps in zip(NORMS, (1.0, 0.1), strict=True):
        ball, step_size = Ball(norm, eps), 0.6 * eps
        waves = _Waves(
            tuple(start.shape), eps / (start[0].numel() ** 0.5 if norm == "l2" else 1), random, norm == "linf"
        )
        watched = Watched(waves, start)
        # what comes back is judged last: where it went wrong on the way is the more useful message
        found, error = None, None
        try:
            found = attacked(attempt, watched, start, ball, STEPS, step_size, torch.Generator().manual_seed(1))
        except Changed:
            raise
        except Mistake as mistake:
            if not watched.seen:
                raise
            error = mistake
        _follow(watched.seen, waves, start, ball, step_size)
        if error:
            raise error
        _expect_best(found, watched, start)
    again = attempt(Watched(waves, start), start.clone(), ball, STEPS, step_size, torch.Generator().manual_seed(1))
    if found is None or not torch.equal(found, again):
        raise Mistake("the same generator, other images: all chance has to come from it: ball.random(start, generator)")
    other = Watched(waves, start)
    attempt(other, start.clone(), ball, STEPS, step_size, torch.Generator().manual_seed(2))
    if torch.equal(_journey(other.seen, start)[0], _journey(watched.seen, start)[0]):
        raise Mistake("another generator, the same first images: give yours to ball.random(start, generator)")
    one = Watched(waves, start)
    attempt(one, start.clone(), ball, 1, eps, torch.Generator().manual_seed(1))
    if len(_journey(one.seen, start)) != 2:
        raise Mistake(
            f"with steps=1 you looked at {len(_journey(one.seen, start))} points; there are 2, before and after"
        )
    _expect_patience(attempt, start[:1], random)


def _expect_patience(attempt: Callable, start: Tensor, random: torch.Generator) -> None:
    """Raise :class:`Mistake` for an end before the last step, where one step loses and a later one wins."""
    ball = Ball("l2", 1.0)
    for _ in range(100):
        waves, journey = _Waves(tuple(start.shape), 1.0 / start.numel() ** 0.5, random), []
        images = ball.random(start, torch.Generator().manual_seed(1))
        for _ in range(STEPS + 1):
            journey.append(images)
            images = ball.project(images + 0.6 * _unit(waves.slope(images), "l2"), start)
        best = torch.cat([waves(images) for images in journey]).cummax(0).values
        if (best.diff()[:-1] == 0).any() and best[-1] > best[-2]:
            break
    watched = Watched(waves, start)
    found = attacked(attempt, watched, start, ball, STEPS, 0.6, torch.Generator().manual_seed(1))
    moves = len(_journey(watched.seen, start)) - 1
    if moves < STEPS:
        raise Mistake(f"you ended after {moves} of {STEPS} steps; a step may lose, and a later one win: go on")
    _expect_best(found, watched, start)


def _journey(seen: list[Tensor], start: Tensor) -> list[Tensor]:
    """What was looked at, without the start where that was looked at first."""
    return seen[1:] if len(seen) > 1 and torch.equal(seen[0], start) else seen


def _follow(seen: list[Tensor], waves: _Waves, start: Tensor, ball: Ball, step_size: float) -> None:
    """Raise :class:`Mistake` for the first move that is not a projected step along the gradient."""
    if not seen:
        raise Mistake("you never asked for a value: value(images) gives (n,)")
    if any(images.isnan().any() for images in seen):
        raise Mistake("the images contain NaN")

    def step(images: Tensor, slope: Tensor, size: float = step_size, norm: str = ball.norm) -> Tensor:
        return ball.project(images + size * _unit(slope, norm), start)

    def about(center: Tensor) -> bool:
        moves = zip(_journey(seen, start), _journey(seen, start)[1:], strict=False)
        return all(_same(b, ball.project(a + step_size * _unit(waves.slope(a), ball.norm), center)) for a, b in moves)

    for number, images in enumerate(seen):
        far = sizes(images.double() - start.double(), ball.norm).max()
        if number and far > 1.001 * ball.eps and about(_journey(seen, start)[0]):
            raise Mistake("you project about the random point; that is not in the ball around `start`")
        expect_inside(images, start, ball, f"no projection: look {number + 1} is at images")
    if torch.equal(seen[0], start) and (len(seen) == 1 or _same(seen[1], step(start, waves.slope(start)))):
        raise Mistake("you begin at the start, where d(x, x) has no slope: begin at ball.random(start, generator)")
    journey = _journey(seen, start)
    other = "linf" if ball.norm == "l2" else "l2"
    slopes: list[Tensor] = []
    for k in range(len(journey) - 1):
        here, there = journey[k], journey[k + 1]
        slopes.append(waves.slope(here))
        if _same(there, step(here, slopes[-1])):
            continue
        wrong = {
            "you go down: the step is *added*, to make the value larger": [step(here, -slopes[-1])],
            "the gradients of all steps add up; take only the last: torch.autograd.grad, or set .grad to None": [
                step(here, torch.stack(slopes).sum(0))
            ],
            "a stale gradient, of images that you have left; compute it anew, where you are": [
                step(here, old) for old in (*slopes[:-1], waves.slope(start))
            ],
            "every step begins at the start again; go on from where you are: images + step": [
                step(point, slopes[-1]) for point in (start, journey[0]) if not (k == 0 and point is journey[0])
            ],
            "the raw gradient, whose length says nothing: step_size * direction(gradient, ball.norm)": [
                ball.project(here + step_size * slopes[-1], start),
                ball.project(here + slopes[-1], start),
            ],
            "steps of length 1, or eps; the length is step_size": [
                step(here, slopes[-1], size) for size in (1.0, ball.eps, ball.eps / STEPS, step_size / STEPS)
            ],
            f"a step for the other norm; this ball is {ball.norm}: direction(gradient, ball.norm)": [
                step(here, slopes[-1], norm=other)
            ],
            "one length for the whole batch; every example has its own: direction(gradient, ball.norm)": [
                ball.project(here + step_size * slopes[-1] / slopes[-1].norm(), start)
            ],
            "a new random point at every step; begin at random once, before the loop": (
                [there] if k == 0 and all(_far(journey[i], journey[i + 1], step_size, ball) for i in (0, 1, 2)) else []
            )
            if len(journey) > 3
            else [],
        }
        for message, points in wrong.items():
            if any(_same(there, point) for point in points):
                raise Mistake(message)
        raise Mistake(f"step {k + 1} does not go where the gradient points: project(images + step_size * direction)")
    moves = len(journey) - 1
    if moves < STEPS - 1 or moves > STEPS:
        raise Mistake(f"you made {moves} steps instead of {STEPS}")


def _expect_best(found: Tensor | None, watched: Watched, start: Tensor) -> None:
    """Raise :class:`Mistake` unless every example is the best of those looked at."""
    assert found is not None
    journey = _journey(watched.seen, start)
    if len(journey) == STEPS:
        raise Mistake("nobody looked at the images after the last step: value(images) once more, after the loop")
    values = torch.stack([watched.function(images) for images in journey])
    mine, best = watched.function(found), values.amax(0)
    if torch.allclose(mine, best, rtol=1e-4, atol=1e-4):
        return
    if values.max() < 0 and (_same(found, journey[0]) or _same(found, start)):
        raise Mistake("you return what you began with; values may be negative: does `highest` begin at -torch.inf?")
    if _same(found, journey[-1]):
        raise Mistake("you return the last images; a step may lose: return the best that each example had on the way")
    whole = values.sum(1).argmax()
    if _same(found, journey[int(whole)]):
        raise Mistake("you return the step that was best for the batch; every example has its own best step")
    if torch.allclose(mine, values.amin(0), rtol=1e-4, atol=1e-4):
        raise Mistake("you return the *worst* images: the value is to be made large")
    before = torch.stack([_pick(journey[1:], values[:-1])])
    if _same(found, before[0]):
        raise Mistake("best value and images do not belong together: compare before the images move on")
    at = int((best - mine).argmax())
    raise Mistake(f"example {at} comes back with value {mine[at]:.3f}; on the way it had {best[at]:.3f}")


def _pick(images: list[Tensor], values: Tensor) -> Tensor:
    return torch.stack(images)[values.argmax(0), torch.arange(values.shape[1])]


def _unit(slope: Tensor, norm: str) -> Tensor:
    """Number by number what `direction` does."""
    return slope.sign() if norm == "linf" else torch.stack([one / one.square().sum().sqrt() for one in slope])


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-4)


def _far(a: Tensor, b: Tensor, step_size: float, ball: Ball) -> bool:
    moved = (a - b).flatten(1)
    return bool(((moved.norm(dim=1) if ball.norm == "l2" else moved.abs().amax(1)) > 1.5 * step_size).all())
