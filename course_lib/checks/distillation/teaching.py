"""Exercises 11.4 and 11.5: embeddings that are too long, and teachers who speak with different voices."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from course_lib.checks import Mistake, exercise, expect_close, expect_shape
from course_lib.checks.autoencoders.calling import call

SEEDS = 400


@exercise("11.4")
def count_sketch(attempt: Callable, random: torch.Generator) -> None:
    """Add every number, with a random sign, to a random bucket."""
    n = 5 + int(torch.randint(3, (), generator=random))
    size = 6 + 2 * int(
        torch.randint(2, (), generator=random)
    )  # even: with one seed, signs follow an even size's buckets
    dim = 24 + int(torch.randint(8, (), generator=random))
    x = torch.randn(n, dim, generator=random)
    before = torch.random.get_rng_state()
    found = call(attempt, x, size, 3)
    if found is not None and not torch.equal(before, torch.random.get_rng_state()):
        raise Mistake("you used PyTorch's global generator, which others use, too: torch.Generator().manual_seed(seed)")
    expect_shape(found, (n, size), "each row of x becomes `size` numbers")
    if found.dtype != x.dtype:
        raise Mistake(f"x is {x.dtype}, the sketch {found.dtype}; keep the dtype")
    torch.rand(7)  # whoever draws from the global generator now gets something else
    if not torch.equal(found, call(attempt, x, size, 3)):
        raise Mistake("the same seed, another sketch: buckets *and* signs come from a generator with that seed")
    same = call(attempt, x[:1].repeat(3, 1), size, 3)
    if not torch.allclose(same[0], same[1]):
        raise Mistake("two equal rows, two sketches: buckets and signs are drawn once, (dim,), for all rows")
    if not torch.allclose(call(attempt, x[:1], size, 3), found[:1], atol=1e-5):
        raise Mistake("a row alone has another sketch than in a batch; buckets and signs must not depend on n")
    matrix = _matrix(attempt, dim, size, 3)
    _expect_sketch(matrix, dim)
    expect_close(
        found, x @ matrix, {"some numbers are lost: where two share a bucket, add them: index_add_": _lost(x, matrix)}
    )
    wider = torch.randn(2, dim + 9, generator=random)
    expect_close(call(attempt, wider, size + 5, 4), wider @ _matrix(attempt, dim + 9, size + 5, 4))
    others = [_matrix(attempt, dim, size, seed) for seed in range(SEEDS)]
    _expect_random(torch.stack(others))


def _matrix(attempt: Callable, dim: int, size: int, seed: int) -> Tensor:
    """What the sketch does, as a matrix (dim, size)."""
    matrix = attempt(torch.eye(dim), size, seed)
    expect_shape(matrix, (dim, size), "each row of x becomes `size` numbers")
    return matrix


def _expect_sketch(matrix: Tensor, dim: int) -> None:
    filled = (matrix != 0).sum(1)
    entries = matrix[matrix != 0].abs()
    if (filled == 0).any():
        count = int((filled == 0).sum())
        raise Mistake(
            f"{count} of {dim} numbers leave no trace: where several share a bucket, add them (index_add_), and no "
            "sign is 0"
        )
    if (filled > 1).any():
        raise Mistake("a number lands in several buckets; each has one bucket and one sign")
    if not torch.allclose(entries, torch.ones_like(entries), atol=1e-5):
        if torch.allclose(entries, entries[:1].expand_as(entries)):
            raise Mistake(f"every number comes out times {entries[0]:.3g}; no scaling: <Sx, Sy> is right on average so")
        used = (matrix != 0).sum(0)[(matrix != 0).float().argmax(1)].float()
        size = matrix.abs().amax(1)
        if torch.allclose(size * used, torch.ones_like(used), atol=1e-4):
            raise Mistake("that is the mean of each bucket; take the sum")
        raise Mistake("numbers come out larger or smaller; each is added as it is or with the other sign: ±1")
    if matrix.min() >= 0 or matrix.max() <= 0:
        raise Mistake(
            "there are no signs: without them, whatever shares a bucket adds up, and every <Sx, Sy> of positive "
            "embeddings is too large"
        )


def _lost(x: Tensor, matrix: Tensor) -> Callable[[Tensor], bool]:
    """Whether a sketch holds only one of the numbers of every bucket."""
    each = x[:, :, None] * matrix
    return lambda found: bool(((found[:, None] - each).abs() < 1e-5).any(1).all())


def _expect_random(matrices: Tensor) -> None:
    """Raise :class:`Mistake` unless sketches (seeds, dim, size) are right on average."""
    if torch.equal(matrices[0], matrices[1]) and torch.equal(matrices[0], matrices[2]):
        raise Mistake("the seed changes nothing: torch.Generator().manual_seed(seed)")
    buckets, signs = matrices.abs().argmax(2), matrices.sum(2)
    if torch.equal(buckets[0], buckets[1]) and torch.equal(buckets[0], buckets[2]):
        raise Mistake("the buckets are the same for every seed; draw them: torch.randint(size, (dim,), generator=...)")
    if torch.equal(signs[0], signs[1]) and torch.equal(signs[0], signs[2]):
        raise Mistake("the signs are the same for every seed; draw them as well")
    equal = (matrices.sum(1).abs() == matrices.abs().sum(1)).float().mean()
    if equal > 0.9:
        raise Mistake(
            "all numbers of a bucket have the same sign, so none cancel: one sign for each *number*, (dim,), drawn "
            "after the buckets from the same generator"
        )
    usage = matrices.abs().mean((0, 1)) * matrices.shape[2]
    if usage.min() < 0.5:
        raise Mistake(f"bucket {int(usage.argmin())} is hardly ever used; randint(size, ...) draws from 0 to size - 1")
    if signs.mean().abs() > 0.05:
        raise Mistake(f"{(signs > 0).float().mean():.0%} of the signs are plus; half of them should be")
    products = (matrices @ matrices.transpose(1, 2)).mean(0)
    error = (products - torch.eye(len(products))).abs().max()
    if error > 0.15:
        raise Mistake(
            f"<Sx, Sy> is off by {error:.2f} on average over {SEEDS} seeds for two numbers with nothing in common: "
            "do they share a sign or a bucket too often?"
        )


@exercise("11.5")
def ensemble(attempt: Callable, random: torch.Generator) -> None:
    """Unit embeddings side by side, divided by the root of their number."""
    n = 4 + int(torch.randint(3, (), generator=random))
    for k in (3, 2):
        dims = [2 + int(torch.randint(5, (), generator=random)) for _ in range(k)]
        parts = [torch.randn(n, d, generator=random) + 0.5 for d in dims]
        parts = [scale * part for scale, part in zip((50, 1, 0.02), parts, strict=False)]
        expect_close(_joined(attempt, parts), _ensemble(parts), _wrong_ensembles(parts))
    alone = [parts[0]]
    expect_close(_joined(attempt, alone), _ensemble(alone))
    tiny = [parts[0], 1e-6 * parts[1]]
    small = "an embedding of length 1e-6 no longer has length 1: what guards against 0 / 0 has to be smaller: 1e-12"
    expect_close(_joined(attempt, tiny), _ensemble(tiny), {small: lambda found: True})
    parts[1][1] = 0
    again = F.normalize(_ensemble(parts))
    found = _joined(attempt, parts)
    if isinstance(found, Tensor) and not found.isfinite().all():
        raise Mistake("NaN where an embedding is 0: 0 / 0; F.normalize leaves it 0")
    expect_close(
        found,
        _ensemble(parts),
        {
            "where one member has nothing to say (0), you made the others louder; divide by the root of k": again,
            "where one member is 0, all of that image is 0; the others still have something to say": (
                lambda found: bool((found[1] == 0).all())
            ),
        },
    )


def _joined(attempt: Callable, parts: Sequence[Tensor]) -> object:
    given = [part.clone() for part in parts]
    found = attempt(given)
    if len(given) != len(parts) or not all(map(torch.equal, given, parts)):
        raise Mistake("you changed an input in place, and the caller still needs it; work on a copy: .clone()")
    return found


def _ensemble(parts: Sequence[Tensor]) -> Tensor:
    """Row by row in float64."""
    rows = []
    for row in zip(*parts, strict=True):
        units = [part.double() / max(part.double().square().sum().sqrt().item(), 1e-30) for part in row]
        rows.append(torch.cat(units) / len(parts) ** 0.5)
    return torch.stack(rows).float()


def _wrong_ensembles(parts: Sequence[Tensor]) -> dict:
    k, plain = len(parts), torch.cat(list(parts), 1)
    units = [F.normalize(part) for part in parts]
    columns = [F.normalize(part, dim=0) for part in parts]
    total = sum(part.shape[1] for part in parts)
    wholes = [part / part.norm() for part in parts]
    average = "each member was divided by one number for the whole batch; every image's embedding has its own length"
    return {
        "not normalised: the member with the largest numbers outvotes the others": [plain, plain / k**0.5, plain / k],
        "normalised only after joining: the member with the largest numbers still outvotes the others": [
            F.normalize(plain),
            F.normalize(plain) / k**0.5,
        ],
        "normalised over the batch; an embedding is a row: dim=1": [
            torch.cat(columns, 1),
            torch.cat(columns, 1) / k**0.5,
            F.normalize(torch.cat(columns, 1)),
        ],
        "the whole has length sqrt(k); divide by it, so that it is 1": torch.cat(units, 1),
        "divided by k; the squared lengths add up, so it is the root of k": torch.cat(units, 1) / k,
        "multiplied by the root of k; divide": torch.cat(units, 1) * k**0.5,
        average: [
            torch.cat(wholes, 1),
            torch.cat(wholes, 1) / k**0.5,
            torch.cat([part / part.norm(dim=1).mean() for part in parts], 1) / k**0.5,
            torch.cat([part / part.norm(dim=1).mean() for part in parts], 1),
            torch.cat([part / part.norm(dim=1).max() for part in parts], 1) / k**0.5,
        ],
        "divided by the sum of absolute values; length means L2: F.normalize": [
            torch.cat([F.normalize(part, p=1) for part in parts], 1) / k**0.5,
            torch.cat([F.normalize(part, p=1) for part in parts], 1),
        ],
        "divided by the squared length; F.normalize divides by the length": (
            torch.cat([part / part.square().sum(1, keepdim=True) for part in parts], 1) / k**0.5
        ),
        "divided by the largest entry; length means L2: F.normalize": (
            torch.cat([part / part.abs().amax(1, keepdim=True) for part in parts], 1) / k**0.5
        ),
        "standardised, (x - mean) / std; only the length is divided out": lambda found: (
            found.shape == plain.shape and bool((found[:, : parts[0].shape[1]].mean(0).abs() < 1e-4).all())
        ),
        "the mean of each embedding was subtracted; only the length is divided out": lambda found: (
            found.shape == plain.shape and bool((found[:, : parts[0].shape[1]].mean(1).abs() < 1e-4).all())
        ),
        "divided by the root of the number of dimensions; by the root of the number of members": (
            torch.cat(units, 1) / total**0.5
        ),
        "the members stand in another order": [
            torch.cat(units[::-1], 1) / k**0.5,
            torch.cat(units[1:] + units[:1], 1) / k**0.5,
        ],
        "you joined the images, not their embeddings: torch.cat(..., 1)": lambda found: len(found) == k * len(plain),
        "a member is missing": lambda found: found.ndim == 2 and found.shape[1] < total,
    }
