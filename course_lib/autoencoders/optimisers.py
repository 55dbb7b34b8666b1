"""Optimisers written out, and learning rate schedules.

Each optimiser equals torch's of the same name at the same settings, and fits wherever torch's do: in
:func:`course_lib.training.train`, under a schedule, in a checkpoint.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

Schedule = Callable[[int], float]


class Rule(Optimizer):
    """What the optimisers share: `step` updates every weight that has a gradient.

    Raises:
        ValueError: if the learning rate is not positive, or there are no parameters.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, **settings: float):
        if lr <= 0:
            raise ValueError(f"the learning rate is {lr}; it is positive")
        self.names = ("lr", *settings)
        super().__init__(parameters, {"lr": lr, **settings})

    def update(self, weight: Tensor, gradient: Tensor, memory: dict[str, Any], **settings: float) -> None:
        """Change `weight` in place; `memory` is this weight's own and starts empty."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take one step along the gradients that are there."""
        for group in self.param_groups:
            settings = {name: group[name] for name in self.names}
            for weight in group["params"]:
                if weight.grad is not None:
                    self.update(weight, weight.grad, self.state[weight], **settings)


class SGD(Rule):
    """Downhill: w <- w - lr g."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float = 1e-3):
        super().__init__(parameters, lr)

    def update(self, weight, gradient, memory, *, lr):
        """One step."""
        weight -= lr * gradient


class Momentum(Rule):
    """Like a heavy ball: v <- momentum v + g, w <- w - lr v.

    Source: Polyak, 1964, as torch.optim.SGD(momentum=...) has it.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float = 1e-3, momentum: float = 0.9):
        super().__init__(parameters, lr, momentum=momentum)

    def update(self, weight, gradient, memory, *, lr, momentum):
        """One step."""
        memory["v"] = momentum * memory.get("v", 0) + gradient
        weight -= lr * memory["v"]


class RMSprop(Rule):
    """Gradients divided by their recent size: s <- alpha s + (1 - alpha) g^2, w <- w - lr g / (sqrt(s) + eps).

    Source: Hinton, Coursera lecture 6e, 2012.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8):
        super().__init__(parameters, lr, alpha=alpha, eps=eps)

    def update(self, weight, gradient, memory, *, lr, alpha, eps):
        """One step."""
        memory["s"] = alpha * memory.get("s", 0) + (1 - alpha) * gradient**2
        weight -= lr * gradient / (memory["s"].sqrt() + eps)


class Adam(Rule):
    """Momentum and RMSprop together, both corrected for their start at zero.

    Source: Kingma and Ba, ICLR 2015, algorithm 1.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float = 1e-3, beta1: float = 0.9, beta2: float = 0.999,
        eps: float = 1e-8,
    ):  # fmt: skip
        super().__init__(parameters, lr, beta1=beta1, beta2=beta2, eps=eps)

    def update(self, weight, gradient, memory, *, lr, beta1, beta2, eps):
        """One step."""
        t = memory["t"] = memory.get("t", 0) + 1
        memory["m"] = beta1 * memory.get("m", 0) + (1 - beta1) * gradient
        memory["v"] = beta2 * memory.get("v", 0) + (1 - beta2) * gradient**2
        m, v = memory["m"] / (1 - beta1**t), memory["v"] / (1 - beta2**t)
        weight -= lr * m / (v.sqrt() + eps)


class AdamW(Adam):
    """Adam whose weight decay acts on the weights directly, not through the gradient and its division.

    Source: Loshchilov and Hutter, ICLR 2019, algorithm 2; `decay` is multiplied by the learning rate, as in torch.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float = 1e-3, beta1: float = 0.9, beta2: float = 0.999,
        eps: float = 1e-8, decay: float = 1e-2,
    ):  # fmt: skip
        Rule.__init__(self, parameters, lr, beta1=beta1, beta2=beta2, eps=eps, decay=decay)

    def update(self, weight, gradient, memory, *, lr, decay, **adam):
        """One step."""
        weight *= 1 - lr * decay
        super().update(weight, gradient, memory, lr=lr, **adam)


# Schedules: the learning rate's factor at a step, for torch's LambdaLR


def step_decay(every: int, factor: float = 0.1) -> Schedule:
    """Multiply by `factor` after every so many steps."""
    check_steps(every)
    return lambda step: factor ** (step // every)


def cosine(steps: int, floor: float = 0.0) -> Schedule:
    """From 1 down to `floor` along half a cosine, and stay there.

    Source: Loshchilov and Hutter, ICLR 2017, equation (5), without restarts.
    """
    check_steps(steps)
    return lambda step: floor + (1 - floor) * (1 + math.cos(math.pi * min(step / steps, 1))) / 2


def warm_up(steps: int, then: Schedule = lambda step: 1.0) -> Schedule:
    """Rise in equal steps to 1, reached with the last of `steps`; then follow another schedule from its start."""
    check_steps(steps)
    return lambda step: (step + 1) / steps if step < steps else then(step - steps)


def check_steps(steps: int) -> int:
    """Return `steps`, or raise ValueError if it is not positive."""
    if steps < 1:
        raise ValueError(f"a schedule of {steps} steps is empty; give it at least 1")
    return steps


class Plateau(LRScheduler):
    """Multiply the learning rate by `factor` when a validation loss has not fallen for more than `patience` epochs.

    Call :meth:`observe` in the `validate` of :func:`course_lib.training.train`, and pass this as its `schedule`; then
    it is part of the checkpoint, and a run resumes exactly.

    Args:
        optimizer: whose learning rate is changed.
        factor: below 1.
        patience: epochs without a gain that are forgiven.
        threshold: the relative gain that counts.
    """

    def __init__(self, optimizer: Optimizer, factor: float = 0.1, patience: int = 10, threshold: float = 1e-4):
        if not 0 < factor < 1:
            raise ValueError(f"factor is {factor}; it lies between 0 and 1, so that the learning rate falls")
        self.factor, self.patience, self.threshold = factor, patience, threshold
        self.best, self.waited, self.scale = math.inf, 0, 1.0
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Learning rate of each parameter group."""
        return [rate * self.scale for rate in self.base_lrs]

    def observe(self, loss: float) -> None:
        """Take note of a validation loss, and lower the learning rate if it is time."""
        if loss < self.best * (1 - self.threshold):
            self.best, self.waited = loss, 0
        else:
            self.waited += 1
        if self.waited > self.patience:
            self.scale, self.waited = self.scale * self.factor, 0
            for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
                group["lr"] = rate
