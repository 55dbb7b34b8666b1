"""Auto-PGD: projected gradient ascent with momentum that finds every example's step size by itself."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from tqdm import tqdm

from course_lib.attacks.balls import Ball, direction, per_example
from course_lib.attacks.objectives import Objective
from course_lib.attacks.search import Attacked, Search, check_attack

RHO = 0.75  # the share of steps that has to raise the value
MOMENTUM = 0.75  # the weight of the new step; what is left goes to the change of the step before


def apgd(
    objective: Objective,
    ball: Ball,
    *,
    steps: int = 100,
    restarts: int = 1,
    loss: str = "margin",
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Attacked:
    """Steps along the gradient that begin at 2 eps and halve, for an example that no longer gains, at checkpoints.

    At a checkpoint an example halves its step if at most RHO of the steps since the last checkpoint raised its value,
    or if neither its step nor its best value has changed since then; it then goes on from its best images.

    Args:
        objective: what to make large.
        ball: how far images may change.
        steps: gradients per example and restart, while it stands.
        restarts: how often to begin, at a random point, for examples that still stand.
        loss: "margin", or "ce", the cross-entropy of two classes. That rises with the margin and has the gradient's
            direction, so both take the same steps, until the cross-entropy underflows and its gradient is 0.
        generator: draws the random points; None seeds one with 0.
        progress: show a progress bar, on a terminal.

    Raises:
        ValueError: for numbers that make no sense, or a gradient that is not finite.

    Source: Croce, Hein, Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks, ICML 2020, algorithm 1; ties and rounding of checkpoints as in the authors' AutoAttack.
    """
    check_attack(loss=loss, steps=steps, restarts=restarts)
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    search = Search(objective)
    ends = checkpoints(steps)
    bar = tqdm(total=restarts * steps, desc="APGD", disable=None if progress else True)
    for _ in range(restarts):
        run = _Run.begin(search.standing(), ball.random(objective.start, generator), ball.eps)
        since = 0
        for step in range(steps):
            run = run.select(~search.success[run.which])
            run.note(*search.ascend(run.which, run.images, loss))
            if step in ends:
                run.halve(step - since)
                since = step
            run.move(ball, objective.start[run.which], MOMENTUM if step else 1.0)
            bar.update()
        search.evaluate(run.which, run.images)
    bar.close()
    return search.result()


def checkpoints(steps: int) -> list[int]:
    """After which steps APGD may halve: 22 % of all, then in shrinking intervals of 19 %, 16 %, ... at least 6 %.

    Source: Croce, Hein, ICML 2020, section 3.1: p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06).
    """
    interval, shortest, shrink = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    ends = [interval]
    while ends[-1] < steps:
        interval = max(interval - shrink, shortest)
        ends.append(ends[-1] + interval)
    return ends[:-1]


@dataclass
class _Run:
    """What one run remembers of every example that still stands."""

    which: Int64[Tensor, "m"]
    images: Float[Tensor, "m *parts c h w"]
    before: Float[Tensor, "m *parts c h w"]  # the images a step ago
    gradient: Float[Tensor, "m *parts c h w"]
    value: Float[Tensor, "m"]
    best_images: Float[Tensor, "m *parts c h w"]
    best_gradient: Float[Tensor, "m *parts c h w"]
    best_value: Float[Tensor, "m"]
    step_size: Float[Tensor, "m"]
    rises: Float[Tensor, "m"]  # since the last checkpoint
    value_to_beat: Float[Tensor, "m"]  # the best at the last checkpoint
    halved: Bool[Tensor, "m"]  # at the last checkpoint

    @classmethod
    def begin(cls, which: Tensor, images: Tensor, eps: float) -> "_Run":
        images = images[which]
        zero, one = torch.zeros_like(images), images.new_ones(len(which))
        worst = -torch.inf * one
        return cls(
            which, images, images, zero, -worst, images, zero, worst,
            step_size=2 * eps * one, rises=0 * one, value_to_beat=worst, halved=one.bool(),
        )  # fmt: skip

    def select(self, left: Bool[Tensor, "m"]) -> "_Run":
        """The same for some of the examples."""
        return self if left.all() else _Run(*(getattr(self, field.name)[left] for field in fields(self)))

    def note(self, value: Tensor, gradient: Tensor) -> None:
        """Take in what was found at the images."""
        self.rises = self.rises + (value > self.value)
        better = value > self.best_value
        choose = per_example(better, gradient)
        self.value, self.gradient = value, gradient
        self.best_value = torch.where(better, value, self.best_value)
        self.best_images = torch.where(choose, self.images, self.best_images)
        self.best_gradient = torch.where(choose, gradient, self.best_gradient)

    def halve(self, interval: int) -> None:
        """Halve the steps that are too long, and go back to the best images there."""
        stuck = ~self.halved & (self.best_value <= self.value_to_beat)
        self.halved = (self.rises <= RHO * interval) | stuck
        choose = per_example(self.halved, self.images)
        self.step_size = torch.where(self.halved, self.step_size / 2, self.step_size)
        self.images = torch.where(choose, self.best_images, self.images)
        self.gradient = torch.where(choose, self.best_gradient, self.gradient)
        self.value_to_beat, self.rises = self.best_value, torch.zeros_like(self.rises)

    def move(self, ball: Ball, center: Tensor, weight: float) -> None:
        """One projected gradient step, mixed with the step before, projected again."""
        step = per_example(self.step_size, self.images) * direction(self.gradient, ball.norm)
        ahead = ball.project(self.images + step, center)
        mixed = self.images + weight * (ahead - self.images) + (1 - weight) * (self.images - self.before)
        self.before, self.images = self.images, ball.project(mixed, center)
