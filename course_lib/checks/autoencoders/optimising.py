"""Exercise 1.5: one step of AdamW."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course_lib.checks import Mistake, exercise

STEPS = 20
SETTINGS = {"lr": 0.1, "beta1": 0.8, "beta2": 0.9, "eps": 0.7, "decay": 0.3}  # large, so that each of them shows


def _torch_path(start: Tensor, gradients: Tensor) -> Tensor:
    """Where torch's AdamW goes, (steps, k)."""
    weight = torch.nn.Parameter(start.clone())
    s = SETTINGS
    adamw = torch.optim.AdamW([weight], s["lr"], (s["beta1"], s["beta2"]), s["eps"], s["decay"])
    path = []
    for gradient in gradients:
        weight.grad = gradient.clone()
        adamw.step()
        path.append(weight.detach().clone())
    return torch.stack(path)


def _path(start: Tensor, gradients: Tensor, *wrong: str) -> Tensor:
    """Where AdamW goes with something wrong in it, (steps, k); what the names mean is in the lines that use them."""
    lr, b1, b2, eps, decay = SETTINGS.values()
    if "swapped" in wrong:
        b1, b2 = b2, b1

    def pick(usual: Any, options: dict[str, Any]) -> Any:
        return next((value for name, value in options.items() if name in wrong), usual)

    w, m, v, path = start.clone(), torch.zeros_like(start), torch.zeros_like(start), []
    for t, gradient in enumerate(gradients, 1):
        g = gradient + decay * w if "L2" in wrong else gradient
        m = pick(b1, {"forget": 0}) * m + pick(1 - b1, {"m grows": 1}) * g
        squared = pick(g**2, {"sizes": g.abs(), "plain": g, "one v": (g**2).mean()})
        v = pick(b2, {"forget": 0}) * v + pick(1 - b2, {"v grows": 1}) * squared
        power = pick(t, {"no exponent": 1, "double": 2 * t, "late": t + 1})
        c1, c2 = pick(1 - b1**power, {"raw m": 1}), pick(1 - b2**power, {"raw v": 1})
        if "multiply" in wrong:
            c1, c2 = 1 / c1, 1 / c2
        if "keep" in wrong:
            m, v, c1, c2 = m / c1, v / c2, 1, 1
        size = v / c2
        below = {
            "inside": (size + eps).sqrt(), "before": (v.sqrt() + eps) / c2**0.5, "no eps": size.sqrt(),
            "no root": size + eps, "limit": size.sqrt().clamp_min(eps),
        }  # fmt: skip
        move = lr * pick(m / c1, {"no mean": g}) / pick(size.sqrt() + eps, below) * pick(1, {"uphill": -1})
        keep = 1 - pick(lr * decay, {"L2": 0, "no decay": 0, "bare": decay, "plus": -lr * decay})
        w = (w - move) * keep if "late decay" in wrong else w * keep - move
        path.append(w)
    return torch.stack(path)


MISTAKES: dict[str, tuple[tuple[str, ...], ...]] = {
    "the bias correction is missing: m and v begin at 0, so divide them by 1 - beta^t": (("raw m", "raw v"),),
    "only v is corrected for its start at 0; divide m by 1 - beta1^t": (("raw m",),),
    "only m is corrected for its start at 0; divide v by 1 - beta2^t": (("raw v",),),
    "eps is inside the root; it is added after it: sqrt(v) + eps": (("inside",),),
    "eps is added before the bias correction; correct v, take the root, then add eps": (("before",),),
    "eps is missing": (("no eps",),),
    "eps is added, not a lower limit": (("limit",),),
    "the root is missing: divide by sqrt(v) + eps": (("no root",),),
    "the decay went through the gradient: that is Adam with L2, where the division shrinks it; AdamW shrinks the "
    "weight itself": (("L2",),),
    "the decay is multiplied by the learning rate: 1 - lr * decay": (("bare",),),
    "the decay is missing": (("no decay",),),
    "the decay has the wrong sign: weights shrink, 1 - lr * decay": (("plus",),),
    "the decay comes first, then the step": (("late decay",),),
    "the bias correction stays 1 - beta, as in the first step: the exponent is missing, or t is not kept": (
        ("no exponent",),
    ),
    "wrong exponent in the bias correction: 1 - beta^t, not beta^(2t)": (("double",),),
    "t is one too large: it is 1 in the first step": (("late",),),
    "you multiplied by 1 - beta^t; divide by it": (("multiply",),),
    "the corrected m and v went into the memory; keep them as they are, and correct copies": (("keep",),),
    "beta1 and beta2 are swapped": (("swapped",),),
    "v is a mean of *squared* gradients": (("sizes",), ("plain",)),
    "v is one number for the whole weight; keep one for each of its entries": (("one v",),),
    "without the factor 1 - beta, m and v grow": (("m grows", "v grows"), ("m grows",), ("v grows",)),
    "the step is along the gradient; it is along its mean, m": (("no mean",),),
    "wrong sign: downhill is minus": (("uphill",),),
    "nothing is remembered: write m, v and t back into `memory`": (("forget", "raw m", "raw v"), ("forget",)),
}


@exercise("1.5")
def adamw_step(attempt: Callable, random: torch.Generator) -> None:
    """A weight after one step of AdamW; what it remembers is in a dict of its own, empty at first."""
    k = int(torch.randint(4, 8, (), generator=random))
    starts = torch.randn(2, k, generator=random).double()
    gradients = (0.3 + torch.randn(2, STEPS, k, generator=random)).double()
    gradients[:, 0] *= 3
    memory: dict[str, Any] = {}
    w, path = starts[0], []
    for gradient in gradients[0]:
        w = _step(attempt, w, gradient, memory)
        path.append(w)
    found, expected = torch.stack(path), _torch_path(starts[0], gradients[0])
    if not torch.allclose(found, expected, rtol=1e-5, atol=1e-7):
        _explain(found, expected, starts[0], gradients[0])
    memories: list[dict[str, Any]] = [{}, {}]
    both = [starts[0], starts[1]]
    for pair in gradients.unbind(1):
        both = [_step(attempt, w, g, memory) for w, g, memory in zip(both, pair, memories, strict=True)]
    for i in range(2):
        if not torch.allclose(both[i], _torch_path(starts[i], gradients[i])[-1], rtol=1e-5, atol=1e-7):
            raise Mistake("right for one weight, but two share their state; keep m, v and t in `memory`, nowhere else")
    resting = _step(attempt, starts[0], torch.zeros(k).double(), {}, decay=0.0)
    if not torch.allclose(resting, starts[0]):
        raise Mistake("right, but without gradient and decay the weight moves; it should rest")


def _step(attempt: Callable, weight: Tensor, gradient: Tensor, memory: dict[str, Any], **changed: float) -> Tensor:
    given = weight.clone(), gradient.clone()
    found = attempt(*given, memory, *(SETTINGS | changed).values())
    if found is None:
        raise Mistake("your function returns nothing; return the new weight")
    if not isinstance(found, Tensor):
        raise Mistake(f"your function returns a {type(found).__name__}; return the new weight")
    if any(not torch.allclose(a, b, 0, 0, equal_nan=True) for a, b in zip(given, (weight, gradient), strict=True)):
        raise Mistake("you changed the weight or the gradient in place; return a new weight: w = w * ..., not w *= ...")
    if found.shape != weight.shape:
        raise Mistake(f"the new weight has shape {tuple(found.shape)}, the old one {tuple(weight.shape)}")
    return found.detach().clone()


def _explain(found: Tensor, expected: Tensor, start: Tensor, gradients: Tensor) -> None:
    for message, variants in MISTAKES.items():
        for wrong in variants:
            if torch.allclose(found, _path(start, gradients, *wrong), rtol=1e-5, atol=1e-7, equal_nan=True):
                raise Mistake(message)
    if torch.allclose(found[0], expected[0] - start):
        raise Mistake("you return the change; return the new weight")
    if not found[0].isfinite().all():
        raise Mistake("NaN or infinity in the first step; t begins at 1, because 1 - beta^0 is 0")
    if not found.isfinite().all():
        raise Mistake("NaN or infinity; is there a root of a negative number?")
    off = (found - expected).abs().amax(1)
    first = int((off > 1e-6).nonzero()[0])
    after = f"right for {first} step{'s' * (first > 1)}, then not: is all of m, v and t kept?" if first else "wrong"
    raise Mistake(f"{after}; step {first + 1} is off by {off[first]:.2g}")
