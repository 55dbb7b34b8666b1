"""Exercise 12.3: the distances that are still possible after a change."""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.checks import Mistake, exercise, expect_close
from course_lib.checks.autoencoders.calling import call
from course_lib.checks.certification.calling import embeddings, expect_exact


def _ends(attempt: Callable, *given: object) -> tuple[Tensor, Tensor]:
    found = call(attempt, *given)
    if found is None:
        raise Mistake("your function returns nothing; did you forget `return`?")
    if isinstance(found, Tensor) and found.ndim == 2 and 2 in found.shape:
        raise Mistake("your function returns one tensor; return two of shape (n,): low, high")
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise Mistake(f"your function returns a {type(found).__name__}; return two tensors of shape (n,): low, high")
    low, high = found
    return low, high


@exercise("12.3")
def interval(attempt: Callable, random: torch.Generator) -> None:
    """Smallest and largest distance (n,) after changes of one image or of both, of an L-Lipschitz network."""
    for n, d in ((9, 4), (1, 2), (5, 30)):
        x, y, _ = embeddings(random, n, d)
        true = torch.tensor([sum((a - b) ** 2 for a, b in zip(*rows, strict=True)) ** 0.5
                             for rows in zip(x.tolist(), y.tolist(), strict=True)], dtype=torch.float64)  # fmt: skip
        # so that some of the lower ends are cut off at 0, and some are not
        eps = 0.15 * true.median().item() * (1 + torch.rand((), generator=random).item())
        constant = 2.5 + torch.rand((), generator=random).item()
        apart = (x - y).abs()
        wrong_distances = {
            "the *squared* distance: take the root": true.square(),
            "the sum of absolute differences; the distance is L2": apart.sum(1),
            "the root of the *mean* of squares; the distance is the root of the sum": true / d**0.5,
            "the largest difference; the distance is L2": apart.amax(1),
            "the distance of *normalised* embeddings; these are not to be normalised": (
                x / x.norm(dim=1, keepdim=True) - y / y.norm(dim=1, keepdim=True)
            ).norm(dim=1),
            "one minus a cosine; the distance is |e_x - e_y|": 1 - torch.cosine_similarity(x, y),
        }
        for both, images in ((False, 1), (True, 2)):
            reach = images * constant * eps
            what = "both images change" if both else "one image changes"
            low, high = _ends(attempt, x.float(), y.float(), eps, constant, both)
            moves = {
                "both images were moved; with both=False it is x alone": 2 * constant * eps,
                "factor 2 forgotten: each of the two embeddings moves by L eps, perhaps apart": constant * eps,
                "that is sqrt(2) L eps; the two may move in opposite directions, which is 2 L eps": (
                    2**0.5 * constant * eps
                ),
                "the constant L is missing: an embedding moves by up to L eps": images * eps,
                "you divided by L; an embedding moves by up to L *times* eps": images * eps / constant,
                "eps is missing: the embedding moves by up to L eps": images * constant,
                "the 2 is squared; it is 2 L eps": 4 * constant * eps,
                "eps is in the units of pixels in [0, 1]; leave out the 255": images * constant * eps / 255,
                "eps stands under a root; the length of the change is eps itself": images * constant * eps**0.5,
            }
            moves = {message: move for message, move in moves.items() if abs(move - reach) > 1e-3}
            told_high: dict[str, object] = {
                f"high is wrong when {what}: {message}": (true + move).float() for message, move in moves.items()
            }
            told_high |= {
                f"high is wrong when {what}: you multiplied; a change adds to the distance, whatever that was": [
                    (true * factor).float() for factor in (1 + reach, reach, 1 + eps, 1 + images * eps)
                ],
                "low and high are the wrong way round; return low, high": (true - reach).clamp_min(0).float(),
                "high is the distance itself; it grows by up to L eps": true.float(),
                **{
                    f"you take {message}": (wrong + reach).float() for message, wrong in wrong_distances.items()
                },
            }  # fmt: skip
            expect_close(high, (true + reach).float(), told_high)
            told_low: dict[str, object] = {
                "low is negative, and no distance is: cut it off at 0": (true - reach).float(),
                "low is |d - L eps|; where the change is longer than the distance, it can bring it to 0": (
                    (true - reach).abs().float()
                ),
            }
            told_low |= {
                f"low is wrong when {what}: {message}": [
                    (true - move).clamp_min(0).float(),
                    (true - move).float(),
                ]
                for message, move in moves.items()
            }
            told_low |= {
                f"low is wrong when {what}: you divided; a change takes away from the distance, whatever that was": [
                    (true / factor).float() for factor in (1 + reach, 1 + eps, reach)
                ],
                f"low is wrong when {what}: you multiplied; a change takes away from the distance, whatever that was": [
                    (true * (1 - factor)).clamp_min(0).float() for factor in (reach, eps, images * eps)
                ],
                "low is the distance itself; it shrinks by up to L eps": true.float(),
            }
            expect_close(low, (true - reach).clamp_min(0).float(), told_low)
            low, high = _ends(attempt, x, y, eps, constant, both)
            expect_exact(low, (true - reach).clamp_min(0))
            expect_exact(high, true + reach)
    same = torch.ones(2, 3)
    low, high = _ends(attempt, same, same, 0.5, 1.0, False)
    expect_close(low, torch.zeros(2))
    expect_close(high, torch.full((2,), 0.5), {"NaN or a guard's constant": lambda found: bool(found.isnan().any())})
