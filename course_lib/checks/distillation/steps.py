"""Exercise 11.2: a loop of distillation that teaches the student, and nobody else."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from course_lib.checks import Mistake, exercise, expect_close

BETAS = (0.5, 0.9)


class _Calls(list):
    """A list that a copy of its owner shares, so that whoever asks a copy of the teacher has asked the teacher."""

    def __deepcopy__(self, memo: dict) -> "_Calls":
        return self


class _Watched(nn.Module):
    """A linear network with something like dropout, which notes how it was called."""

    def __init__(self, weight: Tensor, factor: float):
        super().__init__()
        self.weight, self.factor = nn.Parameter(weight.clone()), factor
        self.calls: list[tuple[bool, Tensor]] = _Calls()

    def forward(self, images: Tensor) -> Tensor:
        self.calls.append((self.training, images.detach().clone()))
        return images.flatten(1) @ self.weight.T * (self.factor if self.training else 1.0)


@exercise("11.2")
def distil(attempt: Callable, random: torch.Generator) -> None:
    """Train a student with Adam on batches of (images, jittered), and return the loss of every step."""
    n, d = int(torch.randint(3, 6, (), generator=random)), int(torch.randint(3, 6, (), generator=random))
    weights = 0.2 * torch.randn(2, d, 75, generator=random)
    batches = [tuple(torch.rand(2, n - step // 3, 3, 5, 5, generator=random)) for step in range(4)]
    rate = 0.01 + 0.02 * torch.rand((), generator=random).item()
    given = [tuple(part.clone() for part in pair) for pair in batches]
    student, teacher = _Watched(weights[0], 0.8).eval(), _Watched(weights[1], 1.5).train()
    student.weight.grad = torch.ones_like(student.weight)  # left over from something before
    try:
        losses = attempt(student, teacher, given, rate)
        if not torch.is_grad_enabled():
            raise Mistake("you switched gradients off and not on again; with torch.no_grad(): ends by itself")
    finally:
        torch.set_grad_enabled(True)
    for pair, kept in zip(given, batches, strict=True):
        if not all(map(torch.equal, pair, kept)):
            raise Mistake("you changed a batch in place, and the next epoch still needs it")
    _expect_untouched(teacher, weights[1])
    _expect_calls(student, teacher, batches)
    if torch.equal(student.weight, weights[0]):
        if student.weight.grad is None or not student.weight.grad.any():
            raise Mistake(
                "the student did not change: optimizer.zero_grad(), loss.backward(), optimizer.step(), in this order"
            )
        raise Mistake("the student has a gradient but did not change: the optimizer gets student.parameters()")
    variants: dict[str, dict] = {
        "gradients pile up from step to step: optimizer.zero_grad() before loss.backward()": {"zero": "never"},
        "the gradient that the student came with was not cleared: optimizer.zero_grad() *before* loss.backward()": {
            "zero": "after"
        },
        "gradients were cleared once and pile up from then on: optimizer.zero_grad() in every step": {"zero": "once"},
        "those are Adam's default betas; the published recipe has (0.5, 0.9)": {"betas": (0.9, 0.999)},
        "Adam's learning rate is not `rate` but its default": {"rate": 1e-3},
        "that is AdamW, which also shrinks the weights; take Adam": {"optimizer": torch.optim.AdamW},
        "that is SGD; take Adam": {"optimizer": torch.optim.SGD},
        "every step made a new Adam, which forgets its momentum; make it once, before the loop": {"anew": True},
        "one step after all batches; a step for each": {"once": True},
    }
    found = student.weight.detach()
    expected, true = _reference(weights, batches, rate=rate)
    wrong = {message: _reference(weights, batches, **{"rate": rate, **change}) for message, change in variants.items()}
    if not torch.allclose(found, expected, rtol=1e-3, atol=1e-5):
        if losses is None and not any(torch.allclose(found, w, rtol=1e-3, atol=1e-5) for w, _ in wrong.values()):
            raise Mistake("your function returns nothing; did you forget `return`?")
        expect_close(found, expected, {message: value for message, (value, _) in wrong.items()}, rtol=1e-3)
    _expect_losses(losses, true)


def _expect_untouched(teacher: _Watched, weight: Tensor) -> None:
    if not torch.equal(teacher.weight, weight):
        raise Mistake("the teacher has learnt, too: the optimizer gets student.parameters() and nothing else")
    if teacher.weight.grad is not None:
        raise Mistake("a gradient has reached the teacher: embed under torch.no_grad(); it costs time and memory")


def _expect_calls(student: _Watched, teacher: _Watched, batches: Sequence[tuple[Tensor, Tensor]]) -> None:
    if not teacher.calls:
        raise Mistake("nobody asked the teacher")
    if any(training for training, _ in teacher.calls):
        raise Mistake("the teacher is in training mode, where dropout makes it guess: teacher.eval()")
    jittered = [pair[1] for pair in batches]
    if any(seen.shape == other.shape and torch.equal(seen, other) for _, seen in teacher.calls for other in jittered):
        raise Mistake("the teacher saw jittered images; its target is the embedding of the unjittered ones, for both")
    if not student.calls:
        raise Mistake("nobody asked the student")
    if not all(training for training, _ in student.calls):
        raise Mistake("the student is in evaluation mode, as an exam has left it: student.train() before the loop")
    seen, asked = (torch.cat([images for _, images in network.calls]) for network in (student, teacher))
    if len(asked) < sum(len(pair[0]) for pair in batches):
        raise Mistake("the teacher was not asked about every batch; did you return inside the loop?")
    if len(seen) < sum(len(pair[0]) for pair in batches) * 2:
        raise Mistake("the student did not see every batch in both views")


def _expect_losses(losses: object, expected: list[float]) -> None:
    if losses is None:
        raise Mistake("your function returns nothing; did you forget `return`?")
    if isinstance(losses, Tensor) and losses.ndim == 1:
        losses = list(losses)
    if not isinstance(losses, list | tuple):
        raise Mistake(f"your function returns a {type(losses).__name__}; a list of losses was expected")
    if any(isinstance(loss, Tensor) and loss.requires_grad for loss in losses):
        raise Mistake("the losses still hold their graphs, of every step, in memory: loss.item()")
    if len(losses) != len(expected):
        raise Mistake(f"you return {len(losses)} losses for {len(expected)} batches; one for each")
    last = "these are losses after the step; return what the step was computed from"
    expect_close(
        torch.tensor([float(loss) for loss in losses]),
        torch.tensor(expected),
        {last: lambda found: bool((found < torch.tensor(expected) - 1e-6).all())},
        rtol=1e-3,
    )


def _reference(
    weights: Tensor,
    batches: Sequence[tuple[Tensor, Tensor]],
    *,
    rate: float,
    betas: tuple[float, float] = BETAS,
    zero: str = "before",
    optimizer: type[torch.optim.Optimizer] = torch.optim.Adam,
    anew: bool = False,
    once: bool = False,
) -> tuple[Tensor, list[float]]:
    """Weights and losses of a loop that is right, or wrong in one way; gradients by hand."""
    weight, target_weight = weights[0].clone(), weights[1]
    options: dict = {"lr": rate} if optimizer is torch.optim.SGD else {"lr": rate, "betas": betas}
    adam, losses = optimizer([weight], **options), []
    weight.grad = torch.zeros_like(weight) if zero in ("before", "once") else torch.ones_like(weight)
    for images, jittered in batches:
        target, slope, loss = images.flatten(1) @ target_weight.T, torch.zeros_like(weight), 0.0
        for view in (images.flatten(1), jittered.flatten(1)):
            error = 0.8 * view @ weight.T - target
            length = error.norm()
            loss += (length / error.numel() ** 0.5 / 2).item()
            slope += 0.8 * error.T @ view / (2 * length * error.numel() ** 0.5)
        losses.append(loss)
        weight.grad += slope
        if anew:
            adam = optimizer([weight], **options)
        if not once:
            adam.step()
        if zero in ("before", "after") and not once:
            weight.grad = torch.zeros_like(weight)
    if once:
        adam.step()
    return weight, losses
