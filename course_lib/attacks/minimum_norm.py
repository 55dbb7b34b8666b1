"""Attacks that look for the smallest change that succeeds: DeepFool, DDN and Carlini-Wagner."""

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib.attacks.balls import check_norm, direction, lengths, per_example
from course_lib.attacks.objectives import Objective
from course_lib.attacks.search import Attacked, Search, check_attack


def deepfool(objective: Objective, *, norm: str = "l2", steps: int = 50, overshoot: float = 0.02) -> Attacked:
    """Step to where the linearised objective reaches its threshold, and again from there, until it really does.

    Fast, and a good first guess at the smallest change; it does not look for a smaller one. One gradient per step.

    Args:
        objective: what to attack; its gradient must not vanish at the start.
        norm: "l2" or "linf".
        steps: at most so many gradients per example.
        overshoot: how much further than to the boundary to go, as a share of the change so far.

    Raises:
        ValueError: for an unknown norm, a count below 1, or an objective without a threshold.

    Source: Moosavi-Dezfooli, Fawzi, Frossard, DeepFool, CVPR 2016, algorithm 1.
    """
    check_attack(steps=steps)
    check_threshold(objective)
    search = Search(objective, better=norm)
    change, images = torch.zeros_like(objective.start), objective.start.clone()
    for _ in range(steps):
        which = search.standing()
        if not len(which):
            break
        value, gradient = search.ascend(which, images[which])
        change[which] += to_boundary(images[which], gradient, objective.threshold[which] - value, norm)
        images[which] = (objective.start[which] + (1 + overshoot) * change[which]).clamp(0, 1)
    which = search.standing()
    search.evaluate(which, images[which])
    return search.result()


def ddn(
    objective: Objective,
    *,
    norm: str = "l2",
    steps: int = 100,
    gamma: float = 0.05,
    initial_norm: float | None = None,
    generator: torch.Generator | None = None,
) -> Attacked:
    """Decouple direction and norm: ascend on a sphere that shrinks after a success and grows after a failure.

    One gradient per step; step sizes fall from 1 to 0.01 along a cosine. Where the gradient is 0 the step is random.
    Ends with :func:`tighten`, because the spheres are gamma apart.

    Args:
        objective: what to attack.
        norm: "l2"; a sphere of another norm has no use for the projection.
        steps: gradients per example.
        gamma: the sphere shrinks or grows by this share after every step.
        initial_norm: radius of the first sphere; None takes for every example how far the linearised objective has to
            go, which saves small changes many steps of shrinking. (1 in the paper.)
        generator: makes the random steps.

    Raises:
        ValueError: for another norm than "l2", a count below 1, or an objective without a threshold.

    Source: Rony et al., Decoupling direction and norm for efficient gradient-based L2 adversarial attacks and
    defenses, CVPR 2019, algorithm 1; without quantisation, with the bisection.
    """
    check_norm(norm)
    if norm != "l2":
        raise ValueError('ddn works for norm="l2" only; take fab or deepfool for norm="linf"')
    check_attack(steps=steps)
    check_threshold(objective)
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    search = Search(objective, better=norm)
    which = search.standing()
    if not len(which):
        return search.result()
    start, threshold = objective.start[which], objective.threshold[which]
    farthest = lengths(torch.maximum(start, 1 - start), norm)  # the corner of the box
    images = start
    for step in range(steps):
        value, gradient = search.ascend(which, images)
        if step == 0:
            guess = lengths(to_boundary(start, gradient, threshold - value, norm), norm)
            guess = torch.where(guess > 0, guess, 1)
            radius = guess if initial_norm is None else torch.full_like(guess, initial_norm)
        noise = torch.randn(objective.start.shape, generator=generator, device=generator.device)[which].to(start)
        gradient = torch.where(lengths(gradient, norm) > 0, gradient, noise)
        factor = torch.where(value > threshold, 1 - gamma, 1 + gamma)
        radius = torch.minimum(radius * per_example(factor, radius), farthest)
        rate = 0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2
        images = (start + radius * direction(images - start + rate * direction(gradient, norm), norm)).clamp(0, 1)
    search.evaluate(which, images)
    tighten(search)
    return search.result()


def carlini_wagner(
    objective: Objective,
    *,
    steps: int = 100,
    search_steps: int = 9,
    learning_rate: float = 0.01,
    initial_constant: float | None = None,
    confidence: float = 0.0,
) -> Attacked:
    """Minimise |change|^2 + c max(threshold - value, 0) with Adam, and search for the best c of every example.

    Pixels are (tanh(w) + 1) / 2, so that they stay in [0, 1] whatever w is. L2 only. The objective is a difference,
    so that the signs of a classifier's logits do not matter. One gradient per step: steps * search_steps of them.

    Args:
        objective: what to attack; its gradient must not vanish at the start.
        steps: steps of Adam for every c.
        search_steps: values of c: ten times as large until one succeeds, then halving the interval.
        learning_rate: of Adam, in units of w.
        initial_constant: the first c; None takes for every example the one whose minimum lies on the boundary of the
            linearised objective, 2 (threshold - value) / |gradient|^2, whatever the scale of values. (0.001 in the
            authors' code.)
        confidence: how far above its threshold the value has to be for a success.

    Raises:
        ValueError: for a count below 1, or an objective without a threshold.

    Source: Carlini, Wagner, Towards evaluating the robustness of neural networks, S&P 2017, section VI.
    """
    check_attack(steps=steps, search_steps=search_steps)
    check_threshold(objective)
    objective = replace(objective, threshold=objective.threshold + confidence)
    search = Search(objective, better="l2")
    which = search.standing()
    if not len(which):
        return search.result()
    start, threshold = objective.start[which], objective.threshold[which]
    origin = torch.atanh((2 * start - 1) * 0.999999)  # pixels of 0 and 1 would be infinitely far out
    constant = torch.full_like(threshold, initial_constant or 0)
    fails, succeeds = torch.zeros_like(constant), torch.full_like(constant, torch.inf)
    for search_step in range(search_steps):
        w = origin.clone().requires_grad_()
        adam = torch.optim.Adam([w], lr=learning_rate)
        found = torch.zeros_like(which, dtype=torch.bool)
        for step in range(steps):
            squashed = w.detach().tanh()
            images = (squashed + 1) / 2
            value, gradient = search.ascend(which, images)
            if initial_constant is None and search_step == step == 0:
                constant = 2 * (threshold - value) / inner(gradient, gradient).clamp_min(1e-12)
            found |= value > threshold
            weight = torch.where(value > threshold, 0, constant)
            slope = 2 * (images - start) - per_example(weight, images) * gradient
            w.grad = slope * (1 - squashed**2) / 2
            adam.step()
        succeeds, fails = torch.where(found, constant, succeeds), torch.where(found, fails, constant)
        constant = torch.where(succeeds.isinf(), 10 * constant, (fails + succeeds) / 2)
    tighten(search)
    return search.result()


def tighten(search: Search, halvings: int = 10) -> None:
    """Bisect the line from the start to the nearest success of every example. Forward passes only."""
    which = (search.success & (search.size > 0)).nonzero()[:, 0]
    if not len(which):
        return
    start, found = search.objective.start[which], search.images[which]
    fails, succeeds = torch.zeros_like(search.value[which]), torch.ones_like(search.value[which])
    for _ in range(halvings):
        middle = (fails + succeeds) / 2
        value = search.evaluate(which, torch.lerp(start, found, per_example(middle, start)).clamp(0, 1))
        good = value > search.objective.threshold[which]
        fails, succeeds = torch.where(good, fails, middle), torch.where(good, middle, succeeds)


def to_boundary(
    images: Float[Tensor, "n *parts c h w"],
    gradient: Float[Tensor, "n *parts c h w"],
    gap: Float[Tensor, "n"],
    norm: str,
) -> Float[Tensor, "n *parts c h w"]:
    """The smallest change by which a linear function rises by `gap` while pixels stay in [0, 1].

    Without the box it is a multiple of :func:`course_lib.attacks.balls.direction`. With it, pixels that arrive at 0 or
    1 stay there and the others go on for them; if that does not suffice, all end there. In the L2 norm every change is
    the multiple times the gradient, in the L-infinity norm the multiple or its negative, but for pixels that arrived.
    For an example of several images this is exact where no pixel arrives, else a change of at most that multiple.

    Source: Croce, Hein, ICML 2020, section 2.2 and appendix A, where breakpoints are sorted instead.
    """
    ahead = direction(gradient * per_example(gap.sign(), gradient), norm)
    free = ahead != 0
    room = torch.where(free, (ahead > 0).to(images) - images, 0)  # how far a pixel can go
    gains = (gradient * ahead).abs()
    while True:
        arrived = torch.where(free, 0, room)
        rest = (gap - inner(gradient, arrived)).abs()
        slope = torch.where(free, gains, 0).flatten(1).sum(1)
        multiple = per_example(rest / torch.where(slope > 0, slope, torch.inf), images)
        change = torch.where(free, multiple * ahead, arrived)
        beyond = free & (change.abs() >= room.abs())
        if not beyond.any():
            return change
        free = free & ~beyond


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of every example, (n,)."""
    return (a * b).flatten(1).sum(1)


def check_threshold(objective: Objective) -> None:
    """Raise ValueError where no change would ever be a success."""
    if not objective.threshold.isfinite().all():
        raise ValueError("the objective has no finite threshold, so that nothing succeeds; give one, as in push(...)")
