"""Exercise 11.3: two views of a batch, and the target that belongs to them."""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.checks import Mistake, exercise, expect_close, expect_shape
from course_lib.checks.autoencoders.calling import call


@exercise("11.3")
def two_views(attempt: Callable, random: torch.Generator) -> None:
    """The plain view, the jittered one, and the teacher's embedding of the plain one."""
    n, d = 8 + int(torch.randint(4, (), generator=random)), int(torch.randint(3, 7, (), generator=random))
    h, w = 3 + int(torch.randint(3, (), generator=random)), 7
    images = torch.randint(256, (n, 3, h, w), generator=random, dtype=torch.uint8)
    targets, mirrored = torch.randn(2, n, d, generator=random)
    flips = torch.tensor([(a, b) for a in (False, True) for b in (False, True)]).repeat(3, 1)[:n]
    flips = flips[torch.randperm(n, generator=random)]
    seen: list[Tensor] = []

    def jitter(batch: Tensor) -> Tensor:
        if not isinstance(batch, Tensor) or not batch.is_floating_point() or batch.max() > 1:
            raise Mistake("jitter takes images in [0, 1]; the stored ones are 0 to 255: images.float() / 255")
        if batch.shape != images.shape:
            raise Mistake(f"jitter got {tuple(batch.shape)}; give it the whole batch, {tuple(images.shape)}, at once")
        seen.append(batch.clone())
        return batch.flip(1).square()

    found = call(attempt, images, targets, mirrored, flips, jitter)
    _expect_views(found, images, targets, mirrored, flips, seen)
    seen.clear()
    try:
        found = call(attempt, images, targets, None, flips, jitter)
    except (AttributeError, TypeError):
        raise Mistake("where nobody has stored embeddings of mirrored images, `mirrored` is None: ask first") from None
    _expect_views(found, images, targets, None, flips, seen)
    plain, _, target = call(attempt, images[:3], targets[:3], mirrored[:3], flips[:3], lambda batch: batch)
    expect_close(plain, _mirrored(images[:3], flips[:3, 0]))
    expect_close(target, torch.where(flips[:3, :1], mirrored[:3], targets[:3]))


def _expect_views(
    found: object, images: Tensor, targets: Tensor, mirrored: Tensor | None, flips: Tensor, seen: list[Tensor]
) -> None:
    if found is None:
        raise Mistake("your function returns nothing; did you forget `return`?")
    if not isinstance(found, tuple | list) or len(found) != 3:
        raise Mistake("return three things: plain view, jittered view, target")
    plain, second, target = found
    for view in (plain, second):
        expect_shape(view, tuple(images.shape), "a view of every image")
    if plain.dtype != torch.float32 or second.dtype != torch.float32:
        raise Mistake(f"the views are {plain.dtype} and {second.dtype}; images are float32 in [0, 1]")
    if plain.max() > 1:
        raise Mistake("the plain view is not in [0, 1]: images.float() / 255")
    first, other = _mirrored(images, flips[:, 0]), _mirrored(images, flips[:, 1])
    colours = first.flip(1).square()
    upside = torch.stack([a.flip(1) if b else a for a, b in zip(images / 255, flips[:, 0], strict=True)])
    expect_close(
        plain,
        first,
        {
            "the plain view was jittered": [colours, other.flip(1).square()],
            "flip means left and right, the last axis; you exchanged top and bottom": upside,
            "you exchanged the colours: axis 1 holds the channels, left and right are the last": (
                torch.stack([a.flip(0) if b else a for a, b in zip(images / 255, flips[:, 0], strict=True)])
            ),
            "the plain view is not flipped: flips[:, 0] says which images are": images / 255,
            "every image is flipped; flips[:, 0] says which ones are": images.flip(3) / 255,
            "the wrong ones are flipped: torch.where(condition, if true, if false)": _mirrored(images, ~flips[:, 0]),
            "the plain view has the coin of the other: flips[:, 0]": other,
            "the order of the images has changed": (
                lambda view: torch.allclose(view.sum((1, 2, 3)).sort().values, first.sum((1, 2, 3)).sort().values)
            ),
        },
    )
    if not seen:
        raise Mistake("the second view was not jittered: jitter(...)")
    if len(seen) > 1:
        raise Mistake("you called jitter more than once; only the second view is jittered, and once")
    expect_close(
        second,
        other.flip(1).square(),
        {
            "both views are flipped by the same coin; the second has flips[:, 1]": colours,
            "the second view is not flipped: flips[:, 1] says which images are": (images / 255).flip(1).square(),
            "the second view was flipped twice, by both coins; both start from the stored image": (
                _mirrored(images, flips[:, 0] ^ flips[:, 1]).flip(1).square()
            ),
            "the second view was not jittered": [other, first],
            "every second view is flipped; flips[:, 1] says which ones are": (images / 255).flip(3, 1).square(),
            "the wrong second views are flipped: torch.where(condition, if true, if false)": (
                _mirrored(images, ~flips[:, 1]).flip(1).square()
            ),
        },
    )
    if not torch.allclose(seen[0], other, atol=1e-5):
        raise Mistake("the second view was jittered first and mirrored then; mirror first: jitter may depend on place")
    if mirrored is None:
        share = "without stored embeddings of mirrored images (None) a mirrored image has the other's target"
        expect_close(target, targets, {share: lambda found: found.shape != targets.shape or True})
        return
    pick = {name: torch.where(which[:, None], mirrored, targets) for name, which in _coins(flips).items()}
    expect_close(
        target,
        pick["first"],
        {
            "the target is that of the *unflipped* image; where flips[:, 0], the teacher saw the mirrored one": targets,
            "the target follows the second view; it belongs to the plain one: flips[:, 0]": pick["second"],
            "every target is that of the mirrored image": mirrored,
            "mirrored and other targets are exchanged: torch.where(condition, if true, if false)": pick["reversed"],
            "mirrored targets only where *both* views are flipped; the plain view decides: flips[:, 0]": pick["both"],
            "mirrored targets where *one of* the views is flipped; the plain view decides: flips[:, 0]": pick["either"],
            "mirrored targets where the coins differ; the plain view decides: flips[:, 0]": pick["differ"],
            "the two targets were averaged; the plain view decides: flips[:, 0]": (targets + mirrored) / 2,
            "the numbers of the target were reversed; the mirrored *image's* embedding is in `mirrored`": (
                torch.where(flips[:, :1], targets.flip(1), targets)
            ),
            "the targets of flipped images come last; each image keeps its place": (
                torch.cat((targets[~flips[:, 0]], mirrored[flips[:, 0]]))
            ),
        },
    )


def _coins(flips: Tensor) -> dict[str, Tensor]:
    first, second = flips.unbind(1)
    return {
        "first": first, "second": second, "reversed": ~first, "both": first & second, "either": first | second,
        "differ": first ^ second,
    }  # fmt: skip


def _mirrored(images: Tensor, which: Tensor) -> Tensor:
    """Some of the images mirrored, column by column."""
    result = images.float() / 255
    width = images.shape[3]
    for index in which.nonzero().flatten().tolist():
        for column in range(width):
            result[index, :, :, column] = images[index, :, :, width - 1 - column].float() / 255
    return result
