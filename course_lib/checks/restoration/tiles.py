"""Exercise 2.7: a picture that is too large, tile by tile, without seams."""

from collections.abc import Callable, Iterable
from itertools import pairwise

import torch
from torch import Tensor

from course_lib.checks import Mistake, exercise, expect_shape

Place = tuple[int, int, int, int]  # top, left, height, width of a tile


def _places(height: int, width: int) -> Tensor:
    """(2, 3, h, w): every pixel says in its first two channels where it is; the third tells images apart, above 1."""
    rows = torch.arange(1, height + 1)[:, None].expand(height, width)
    columns = torch.arange(1, width + 1)[None].expand(height, width)
    return torch.stack([torch.stack([rows, columns, rows + columns + 1024 * image]) for image in (1, 2)]) / 1024


class Recorder:
    """A restorer that adds a number to every tile of the picture, and remembers where the tiles lie."""

    def __init__(self, picture: Tensor, shift: Callable[[Place], float] = lambda place: 0.0):
        self.picture, self.shift, self.tiles = picture, shift, list[Place]()

    def __call__(self, images: Tensor) -> Tensor:
        """The tile, plus what its place says."""
        height, width = images.shape[2:]
        inside = images[0, :, height // 2, width // 2] * 1024  # that of a padded tile may lie outside the picture
        top, left = (round(float(inside[axis])) - 1 - side // 2 for axis, side in ((0, height), (1, width)))
        place = (top, left, height, width)
        part = self.picture[:, :, max(top, 0) : top + height, max(left, 0) : left + width]
        if not all(any(image.shape == own.shape and torch.allclose(image, own) for own in part) for image in images):
            if images.shape[1:] == part.shape[1:]:
                raise Mistake("restore was given changed pixels; give it the picture's own, once, and weigh the result")
            raise Mistake(
                "restore was given something that is no part of the picture; pad nothing: the last tile ends where the "
                "picture ends, and a picture smaller than a tile is its only tile"
            )
        self.tiles.append(place)
        return images + self.shift(place)


@exercise("2.7")
def tiled(attempt: Callable, random: torch.Generator) -> None:
    """Tiles of at most tile x tile, which share overlap pixels and are blended; the restored picture."""
    tile, overlap = 24, 8
    height, width = 62 + int(torch.randint(8, (), generator=random)), 91 + int(torch.randint(8, (), generator=random))
    picture = _places(height, width)
    seen = _whole(attempt, picture, tile, overlap)
    _expect_tiles(seen, picture, tile, overlap)
    _expect_no_seams(attempt, picture, tile, overlap)
    for size, at in (((tile, tile + 1), "one pixel wider than a tile"), ((9, 40), "lower than a tile")):
        small = _places(*size)
        _whole(attempt, small, tile, overlap, f"right, but not for a picture that is {at}: ")
    _whole(attempt, picture, tile, 1, "right, but not with one pixel of overlap: ")
    small = _places(11, 13)
    if len(_whole(attempt, small, tile, overlap, "right, but not for a picture that fits a tile: ")) != 1:
        raise Mistake("right, but a picture that fits a tile takes one call, not several")
    _whole(attempt, picture, tile, 0, "right, but not without overlap (overlap = 0): ")


def _whole(attempt: Callable, picture: Tensor, tile: int, overlap: int, where: str = "") -> set[Place]:
    """Run on a restorer that changes nothing, which has to give the picture back; the tiles that it saw."""
    recorder, given = Recorder(picture), picture.clone()
    try:
        found = attempt(recorder, given, tile, overlap)
    except Mistake as error:
        raise Mistake(f"{where}{error}") from error
    except Exception as error:
        if where and not isinstance(error, NotImplementedError):
            raise Mistake(f"{where}{type(error).__name__}: {' '.join(str(error).split())[:150]}") from error
        raise
    expect_shape(found, tuple(picture.shape))
    if not torch.equal(given, picture):
        raise Mistake("you wrote into the picture, whose pixels the next tiles still need; begin with zeros_like")
    if not recorder.tiles:
        raise Mistake("you never called restore; give it one tile after the other")
    largest = max(max(height, width) for _, _, height, width in recorder.tiles)
    if largest > tile:
        raise Mistake(
            f"{where}restore was given {largest} pixels at once; a tile has at most {tile}, or memory runs out"
        )
    if found.isnan().any():
        raise Mistake(
            f"{where}NaN, which is 0 / 0: some pixels have weight 0 in every tile; they fall to 1 / (overlap + 1), "
            "and tiles reach the last row and column"
        )
    _expect_identity(found, picture, where)
    return set(recorder.tiles)  # once more for every image is fine


def _expect_identity(found: Tensor, picture: Tensor, where: str) -> None:
    ratio = (found / picture)[0, 0]
    missing = ratio == 0
    if missing[-1].all() or missing[:, -1].all():
        which = [name for name, line in (("rows", missing[-1]), ("columns", missing[:, -1])) if line.all()]
        raise Mistake(
            f"{where}the last {' and '.join(which)} are missing: the last tile has to end where the picture ends, "
            "so it begins at length - tile"
        )
    if missing.any():
        raise Mistake(f"{where}no tile covers some pixels; begin a tile every tile - overlap pixels")
    for message, wrong in (
        ("pixels that several tiles share are counted several times; divide by the sum of the weights", ratio > 1.001),
        ("pixels get too dark towards the borders of tiles; divide by the sum of the weights", ratio < 0.999),
    ):
        if wrong.any():
            raise Mistake(where + message)
    if torch.allclose(found, picture.clamp(0, 1), atol=1e-4):
        raise Mistake(
            f"{where}you clamped the result; a network's numbers may leave [0, 1]; clamping is the caller's business"
        )
    if torch.allclose(found, picture[:1].expand_as(picture), atol=1e-4):
        raise Mistake(f"{where}all images came out as the first one; give restore a tile of all n of them")
    if (found - picture).abs().max() > 1e-4:
        raise Mistake(f"{where}a restorer that changes nothing should give the picture back, and a tile is elsewhere")


def _axes(tiles: Iterable[Place]) -> list[list[tuple[int, int]]]:
    """Along rows and along columns: where tiles begin, and how long they are, once each."""
    return [sorted({(place[axis], place[axis + 2]) for place in tiles}) for axis in (0, 1)]


def _expect_tiles(tiles: set[Place], picture: Tensor, tile: int, overlap: int) -> None:
    needed = 1
    for parts, length in zip(_axes(tiles), picture.shape[2:], strict=True):
        shared = [start + size - following for (start, size), (following, _) in pairwise(parts)]
        if shared and min(shared) < overlap:
            raise Mistake(
                f"neighbouring tiles share {max(min(shared), 0)} pixels; they should share {overlap}: "
                "begin a tile every tile - overlap pixels"
            )
        needed *= -(-(length - overlap) // (tile - overlap))
    if len(tiles) > 1.6 * needed:
        raise Mistake(
            f"restore was called for {len(tiles)} tiles, and {needed} suffice: begin one every tile - overlap pixels"
        )


def _expect_no_seams(attempt: Callable, picture: Tensor, tile: int, overlap: int) -> None:
    """Neighbouring tiles whose brightness differs by 1 must blend into each other, in both directions."""
    for axis, way in ((0, "from tile to tile downwards"), (1, "from tile to tile to the right")):
        recorder = Recorder(picture)
        attempt(recorder, picture.clone(), tile, overlap)
        starts = [start for start, _ in _axes(recorder.tiles)[axis]]
        dark = Recorder(picture, lambda place, starts=starts, axis=axis: starts.index(place[axis]) % 2)  # type: ignore[misc]
        found = attempt(dark, picture.clone(), tile, overlap) - picture
        jump = found.diff(dim=2 + axis).abs().max().item()
        if jump > 0.9:
            raise Mistake(
                f"there is a seam {way}: every pixel is one tile's alone, as where a later tile overwrites what it "
                "shares with an earlier one; add up weighted tiles, and divide by the sum of the weights"
            )
        if jump > 0.4:
            raise Mistake(
                f"there is half a seam {way}: where tiles overlap their plain mean jumps at both ends; weights should "
                "fall linearly towards a tile's inner borders"
            )
        if jump > 2.5 / overlap:
            raise Mistake(
                f"there is still a seam {way}: neighbouring pixels differ by {jump:.2f} where tiles differ by 1; over "
                f"{overlap} pixels it should be about {1 / overlap:.2f}"
            )
        if starts[1] != tile - overlap:
            continue
        # of the first two tiles only; the others may share more pixels, or some with a third
        steps = found[0, 0].movedim(axis, 0)[tile - overlap : tile, 0].diff().abs()
        if steps.max() - steps.min() > 0.2 / overlap:
            raise Mistake(
                f"there is no seam {way}, but the weights do not fall linearly over {overlap} pixels: of a difference "
                f"of 1, steps from pixel to pixel take {steps.min():.2f} to {steps.max():.2f}, and should all be equal"
            )
