"""Attacks that follow the gradient with steps of one size: FGM, PGD and its form with momentum."""

import torch
from torch import Tensor
from tqdm import tqdm

from course_lib.attacks.balls import IMAGE, Ball, direction
from course_lib.attacks.objectives import Objective
from course_lib.attacks.search import Attacked, Search, check_attack


def fgm(objective: Objective, ball: Ball) -> Attacked:
    """One step from the start to the border of the ball: FGSM for L-infinity, FGM for L2.

    The best change of a linear objective, away from the limits of pixels.

    Source: Goodfellow, Shlens, Szegedy, Explaining and harnessing adversarial examples, ICLR 2015, section 4.
    """
    return pgd(objective, ball, steps=1, step_size=ball.eps, random_start=False)


def pgd(
    objective: Objective,
    ball: Ball,
    *,
    steps: int = 40,
    step_size: float | None = None,
    restarts: int = 1,
    momentum: float = 0.0,
    random_start: bool = True,
    generator: torch.Generator | None = None,
    loss: str = "margin",
    progress: bool = False,
) -> Attacked:
    """Steps along the gradient, each followed by a projection onto the ball.

    It gets no further than ``reach(steps, step_size)`` from where it begins: begun at the image itself, 100 steps of
    0.01 make the same of eps = 1 as of eps = 3. Use the default step size, or see to it that the reach is above eps.

    Args:
        objective: what to make large.
        ball: how far images may change.
        steps: gradients per example and restart, while it stands.
        step_size: length of a step, in the ball's norm; None takes 2.5 eps / steps.
        restarts: how often to begin anew for examples that still stand.
        momentum: above 0, follow the sum of all gradients so far, where the last has L1 norm 1 and every earlier one
            weighs `momentum` times as much as the one after it; 1 is the published value.
        random_start: begin at a random point of the ball, not in its middle.
        generator: draws the random points; None seeds one with 0.
        loss: "margin", or "ce" (see :meth:`Search.ascend`).
        progress: show a progress bar, on a terminal.

    Raises:
        ValueError: for numbers that make no sense, restarts without a random start, or a gradient that is not finite.

    Source: Madry et al., Towards deep learning models resistant to adversarial attacks, ICLR 2018; momentum: Dong et
    al., Boosting adversarial attacks with momentum, CVPR 2018, algorithm 1, and its L2 form.
    """
    check_attack(loss=loss, steps=steps, restarts=restarts)
    step_size = 2.5 * ball.eps / steps if step_size is None else step_size
    if not (step_size > 0 and momentum >= 0):
        raise ValueError(f"step_size is {step_size} and momentum {momentum}; they have to be > 0 and >= 0")
    if restarts > 1 and not random_start:
        raise ValueError(f"{restarts} restarts from the same point are all the same; use random_start=True")
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    search = Search(objective)
    bar = tqdm(total=restarts * steps, desc="PGD", disable=None if progress else True)
    for _ in range(restarts):
        images = ball.random(objective.start, generator) if random_start else objective.start
        which = torch.arange(len(objective), device=images.device)
        velocity = torch.zeros_like(images)
        for _ in range(steps):
            left = ~search.success[which]
            which, images, velocity = which[left], images[left], velocity[left]
            _, gradient = search.ascend(which, images, loss)
            if momentum:
                gradient = velocity = momentum * velocity + _unit_l1(gradient)
            images = ball.project(images + step_size * direction(gradient, ball.norm), objective.start[which])
            bar.update()
        search.evaluate(which, images)
    bar.close()
    return search.result()


def reach(steps: int, step_size: float) -> float:
    """How far steps of one size can go, in the norm they are measured in: 100 of 0.01 never get further than 1."""
    return steps * step_size


def _unit_l1(gradient: Tensor) -> Tensor:
    length = gradient.abs().sum(IMAGE, keepdim=True)
    return gradient / torch.where(length > 0, length, 1)
