"""Exercise 11.7: which images a process sees, of several that train one student."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.checks import Mistake, exercise, expect_shape

EPOCHS = 12
HOW = "torch.randperm(n, generator=torch.Generator().manual_seed(seed + epoch))"


@exercise("11.7")
def share(attempt: Callable, random: torch.Generator) -> None:
    """Images (steps, batch // world) of process `rank` in an epoch."""
    for world, own in ((1, 4), (2, 3), (3, 2)):
        batch = world * own
        steps, left = (int(torch.randint(high, (), generator=random)) for high in (3, batch - 1))
        n = batch * (4 + steps) + 1 + left
        seed = int(torch.randint(100, (), generator=random))
        _expect_shares(attempt, n, batch, world, seed)
    n, batch = 37, 6
    alone = [_of(attempt, n, batch, 0, 1, epoch, 5) for epoch in range(2)]
    for world, epoch in itertools.product((2, 3), range(2)):
        parts = torch.cat([_of(attempt, n, batch, rank, world, epoch, 5) for rank in range(world)], 1)
        if not torch.equal(parts.sort(1).values, alone[epoch].sort(1).values):
            if set(parts.flatten().tolist()) == set(alone[epoch].flatten().tolist()):
                raise Mistake(
                    f"{world} processes see in step k other images than one process does: divide each global batch, "
                    "order[k * batch : (k + 1) * batch], among them"
                )
            raise Mistake(f"{world} processes see other images than one does; the order must not depend on world")
    if torch.equal(alone[0], _of(attempt, n, batch, 0, 1, 0, 6)):
        raise Mistake("the seed changes nothing: " + HOW)
    for tail in (12, 6):  # nothing is left over
        expect_shape(_of(attempt, tail, 6, 1, 2, 0, 0), (tail // 6, 3), "if nothing is left over, nothing is dropped")
    try:
        attempt(20, 6, 0, 4, 0, 0)
    except ValueError:
        return
    except Exception as error:
        raise Mistake(
            f"a batch of 6 among 4 processes ends with {type(error).__name__}; before you divide, raise a ValueError "
            "that says why not"
        ) from None
    raise Mistake("a batch of 6 cannot be divided among 4 processes; raise a ValueError that says so")


def _of(attempt: Callable, n: int, batch: int, rank: int, world: int, epoch: int, seed: int) -> Tensor:
    """One share, of which at least shape and range are right."""
    found = attempt(n, batch, rank, world, epoch, seed)
    if isinstance(found, Tensor) and found.dtype != torch.int64:
        raise Mistake(f"the indices are {found.dtype}; torch.int64 is what images are indexed with")
    steps, own = n // batch, batch // world
    hint = f"n // batch = {steps} steps of batch // world = {own} images"
    if isinstance(found, Tensor):
        shape = tuple(found.shape)
        if shape == (steps, batch) and world > 1:
            hint += "; a process gets its share of a batch, not all of it"
        elif len(shape) == 2 and shape[0] > steps:
            hint += "; what is left over is dropped"
        elif shape == (own, steps):
            hint += "; steps come first"
        elif shape == (steps * own,):
            hint += ": .view(steps, -1)"
    expect_shape(found, (steps, own), hint)
    if found.min() < 0 or found.max() >= n:
        raise Mistake(f"index {int(found.max())} of {n} images; the last one is {n - 1}")
    return found


def _expect_shares(attempt: Callable, n: int, batch: int, world: int, seed: int) -> None:
    before = torch.random.get_rng_state()
    epochs = [[_of(attempt, n, batch, rank, world, epoch, seed) for rank in range(world)] for epoch in range(EPOCHS)]
    if not torch.equal(before, torch.random.get_rng_state()):
        raise Mistake(f"you used PyTorch's global generator, and the processes draw from it what they like: {HOW}")
    torch.rand(5)
    if not torch.equal(epochs[1][0], _of(attempt, n, batch, 0, world, 1, seed)):
        raise Mistake(f"asked again, epoch 1 is another one; no run could be continued: {HOW}")
    for shares in epochs:
        _expect_disjoint(shares)
    first, second = (torch.cat(shares, 1) for shares in epochs[:2])
    if torch.equal(first.flatten().sort().values, torch.arange(first.numel())) and all(
        int((part.flatten().diff() > 0).sum()) == part.numel() - 1 for part in epochs[0]
    ):
        raise Mistake(f"the images are not shuffled: {HOW}")
    if torch.equal(first, second):
        raise Mistake("every epoch has the same order, as without set_epoch: the seed of the order is seed + epoch")
    if _neighbours(first) > 0.5:
        raise Mistake(f"neighbours stay neighbours: the order is only rotated or reversed; draw it: {HOW}")
    together = [{tuple(sorted(step)) for step in torch.cat(shares, 1).tolist()} for shares in epochs]
    if together[0] == together[1]:
        raise Mistake("the same images share a step in every epoch; shuffle the images, not only the steps")
    if _successors(first, second) > 0.5:
        raise Mistake(f"an epoch is the one before it, rotated; draw an order for each: {HOW}")
    if any(torch.equal(torch.cat(a, 1), torch.cat(b, 1)) for a, b in itertools.combinations(epochs, 2)):
        raise Mistake("some epochs have the same order; each has one of its own: seed + epoch")
    own = [{tuple(sorted(shares[0].flatten().tolist()))} for shares in epochs]
    if world > 1 and own[0] == own[1] == own[2]:
        raise Mistake("process 0 sees the same images in every epoch: first shuffle, then divide")
    if world > 1:
        always = [set.intersection(*({*shares[rank].flatten().tolist()} for shares in epochs)) for rank in range(world)]
        ever = [set.union(*({*shares[rank].flatten().tolist()} for shares in epochs)) for rank in range(world)]
        if any(always) and max(map(len, ever)) < n - world:
            raise Mistake("each process only ever sees its own part of the images: first shuffle, then divide")
    seen = {index for shares in epochs for part in shares for index in part.flatten().tolist()}
    if len(seen) < n:
        missing = sorted({*range(n)} - seen)
        raise Mistake(
            f"image {missing[0]} is never seen, in {EPOCHS} epochs: first shuffle all n images, then drop what is left "
            "over"
        )


def _expect_disjoint(shares: list[Tensor]) -> None:
    everything = torch.cat(shares, 1)
    if everything.flatten().unique().numel() == everything.numel():
        return
    if len(shares) > 1 and all(torch.equal(shares[0], part) for part in shares[1:]):
        raise Mistake("all processes see the same images; rank says which share of each batch is yours")
    if all(part.flatten().unique().numel() == part.numel() for part in shares):
        if all(set(shares[0].flatten().tolist()) == set(part.flatten().tolist()) for part in shares[1:]):
            raise Mistake("all processes see the same images, in another order; rank says which share is yours")
        neighbours = [set(part.flatten().tolist()) for part in shares]
        if neighbours[0] & neighbours[1] and _slides(shares):
            raise Mistake("the shares overlap: that of rank r begins at r * (batch // world)")
        raise Mistake("an image is seen by two processes: the order must not depend on the rank")
    raise Mistake("a process sees an image twice in an epoch; an epoch shows each at most once: torch.randperm")


def _slides(shares: list[Tensor]) -> bool:
    """Whether the steps of two processes overlap by a shift, so that they have the same order."""
    a, b = shares[0], shares[1]
    return bool((a[:, 1:] == b[:, :-1]).all()) or any(bool((a[:, k:] == b[:, :-k]).all()) for k in range(1, a.shape[1]))


def _neighbours(steps: Tensor) -> float:
    """Share of the images whose next in number is beside them, in a flat order of any direction."""
    flat = steps.flatten()
    return float((flat.diff().abs() == 1).double().mean())


def _successors(steps: Tensor, others: Tensor) -> float:
    """Share of the images that are followed by the same image in both orders."""
    a, b = ({*itertools.pairwise(order.flatten().tolist())} for order in (steps, others))
    return len(a & b) / len(a)
