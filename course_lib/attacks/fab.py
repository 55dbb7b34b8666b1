"""FAB, the fast adaptive boundary attack: the smallest change, by projecting onto the linearised decision boundary."""

import torch
from torch import Tensor
from tqdm import tqdm

from course_lib.attacks.balls import lengths, per_example, sizes
from course_lib.attacks.minimum_norm import check_threshold, inner, tighten, to_boundary
from course_lib.attacks.objectives import Objective
from course_lib.attacks.search import Attacked, Search, check_attack

FIRST_RADIUS = {"l2": 1.0, "linf": 0.3}  # of random starts, until something has succeeded


def fab(
    objective: Objective,
    *,
    norm: str = "l2",
    steps: int = 100,
    restarts: int = 1,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Attacked:
    """Project onto the boundary of the linearised objective, leaning towards the start, and step back after a success.

    Every step linearises the objective at the current images, projects both these and the start onto the plane where
    the linear function reaches the threshold, and goes to a mixture of the two, a little beyond the plane. A bisection
    ends the search. One gradient and one more forward pass per step, ten forward passes at the end.

    Args:
        objective: what to attack.
        norm: "l2" or "linf".
        steps: gradients per example and restart.
        restarts: the first run begins at the start, as far as there is a gradient; others at a random point around it.
        alpha_max: largest weight of the start's projection.
        eta: how far beyond the plane to go; 1 is onto it.
        beta: after a success, this share of the change is kept.
        generator: draws the random points.
        progress: show a progress bar, on a terminal.

    Raises:
        ValueError: for an unknown norm, a count below 1, or an objective without a threshold.

    Source: Croce, Hein, Minimally distorted adversarial examples with a fast adaptive boundary attack, ICML 2020,
    algorithm 1, with a plain bisection as the final search.
    """
    check_attack(steps=steps, restarts=restarts)
    check_threshold(objective)
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    search = Search(objective, better=norm)
    which = search.standing()
    if not len(which):
        return search.result()
    start, threshold = objective.start[which], objective.threshold[which]
    bar = tqdm(total=restarts * steps, desc="FAB", disable=None if progress else True)
    for restart in range(restarts):
        images = start if restart == 0 else _nearby(search, norm, generator)[which]
        for _ in range(steps):
            value, gradient = search.ascend(which, images)
            flat = lengths(gradient, "linf").flatten(1).amax(1) == 0
            if flat.any():
                images = torch.where(per_example(flat, images), _nearby(search, norm, generator)[which], images)
            gap = threshold - value
            onwards = to_boundary(images, gradient, gap, norm)
            outwards = to_boundary(start, gradient, gap + inner(gradient, images - start), norm)
            near, far = sizes(onwards, norm), sizes(outwards, norm)
            alpha = per_example((near / (near + far).clamp_min(1e-12)).clamp(max=alpha_max).to(images), images)
            images = torch.lerp(images + eta * onwards, start + eta * outwards, alpha).clamp(0, 1)
            success = search.evaluate(which, images) > threshold
            images = torch.where(per_example(success, images), torch.lerp(start, images, beta), images)
            bar.update()
    bar.close()
    tighten(search)
    return search.result()


def _nearby(search: Search, norm: str, generator: torch.Generator) -> Tensor:
    """A random point around every start, half as far away as the nearest success so far."""
    start = search.objective.start
    noise = torch.randn(start.shape, generator=generator, device=generator.device).to(start)
    if norm == "linf":
        noise = torch.rand(start.shape, generator=generator, device=generator.device).to(start) * 2 - 1
    radius = search.size.clamp(max=FIRST_RADIUS[norm]).to(start) / 2
    return (start + per_example(radius, start) * noise / lengths(noise, norm)).clamp(0, 1)
