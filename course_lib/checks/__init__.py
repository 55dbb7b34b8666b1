"""What exercises are checked with: one line that says passed, not attempted, or the likely mistake.

A checker is written as a plain function that raises :class:`Mistake`, usually through :func:`expect_close`:

    @exercise("7.2")
    def unit_channels(attempt, random):
        features = torch.randn(2, 5, 4, 3, generator=random)
        expect_close(attempt(features), ..., mistakes={"dim=1 is the channel axis": ...})

and is used by learners as ``check.unit_channels(unit_channels)``, which prints the line and is true if it passed.
"""

import functools
import sysconfig
import traceback
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_COURSE = str(Path(__file__).parent.parent)
_NOT_THE_LEARNERS = (_COURSE, sysconfig.get_path("stdlib"), "site-packages", "<frozen")


class Mistake(Exception):
    """What a checker raises: one line that tells the learner what probably went wrong."""


class Passed(int):
    """True or False, but a notebook does not show it when a cell ends with it: the printed line says it all."""

    def _ipython_display_(self) -> None:
        pass


def exercise(number: str) -> Callable[[Callable[..., None]], Callable[..., Passed]]:
    """Turn a checker ``(attempt, random) -> None`` into a check ``(attempt) -> Passed`` that prints one line.

    `random` is a torch.Generator that is seeded from the exercise's number, so a failure repeats. The global
    random state is seeded for the learner's code, too, and given back as it was.

    Args:
        number: as in the notebook, such as "7.2"; the checker's own name is the exercise's name.
    """

    def decorate(checker: Callable[..., None]) -> Callable[..., Passed]:
        title = f"{number} {checker.__name__}"

        @functools.wraps(checker)
        def check(*attempts: Any) -> Passed:
            seed = zlib.crc32(title.encode())
            try:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed)
                    checker(*attempts, torch.Generator().manual_seed(seed))
            except Exception as error:
                mark, verdict = _verdict(error)
                print(f"{mark} {title}: {verdict}")
                return Passed(False)
            print(f"✓ {title}: passed")
            return Passed(True)

        check.number = number  # type: ignore[attr-defined]
        return check

    return decorate


def expect_close(
    actual: Any,
    expected: Tensor | float,
    mistakes: Mapping[str, Any] | None = None,
    *,
    atol: float = 1e-5,
    rtol: float = 1e-4,
) -> None:
    """Raise :class:`Mistake` unless `actual` equals `expected`, with a diagnosis.

    Args:
        actual: what the learner's function returned.
        expected: a tensor or a number.
        mistakes: message -> the value that this mistake leads to, the likeliest first. A value may also be
            a function of `actual` that returns a bool, or a list of values.
        atol: absolute tolerance.
        rtol: relative tolerance.
    """
    if actual is None:
        raise Mistake("your function returns nothing; did you forget `return`?")
    if isinstance(expected, Tensor) and not isinstance(actual, Tensor):
        raise Mistake(f"your function returns a {type(actual).__name__}; a torch.Tensor was expected")
    if not isinstance(actual, Tensor | float | int):
        raise Mistake(f"your function returns a {type(actual).__name__}; a number was expected")

    def is_close(value: Any) -> bool:
        a, b = torch.as_tensor(actual).detach(), torch.as_tensor(value)
        return a.shape == b.shape and torch.allclose(a.double(), b.double(), atol=atol, rtol=rtol)

    if is_close(expected):
        return
    for message, wrong in (mistakes or {}).items():
        if wrong(actual) if callable(wrong) else any(map(is_close, wrong if isinstance(wrong, list) else [wrong])):
            raise Mistake(message)
    actual, expected = torch.as_tensor(actual).detach(), torch.as_tensor(expected)
    expect_shape(actual, tuple(expected.shape))
    if actual.isnan().any():
        raise Mistake("the result contains NaN; look for 0/0 or the root or log of a negative number")
    at = tuple(torch.unravel_index((actual.double() - expected.double()).abs().argmax(), expected.shape))
    where = f" at index {tuple(int(i) for i in at)}" if at else ""
    raise Mistake(f"wrong value{where}: {float(actual[at]):.6g}, expected {float(expected[at]):.6g}")


def expect_shape(actual: Any, shape: tuple[int, ...], mistake: str = "") -> None:
    """Raise :class:`Mistake` unless `actual` is a tensor of this shape; `mistake` is added to the message."""
    if actual is None:
        raise Mistake("your function returns nothing; did you forget `return`?")
    if not isinstance(actual, Tensor):
        raise Mistake(f"your function returns a {type(actual).__name__}; a torch.Tensor was expected")
    if tuple(actual.shape) != tuple(shape):
        hint = f"; {mistake}" if mistake else ""
        raise Mistake(f"the result has shape {tuple(actual.shape)}, expected {tuple(shape)}{hint}")


def _verdict(error: Exception) -> tuple[str, str]:
    if isinstance(error, Mistake):
        return "✗", str(error)
    # PyTorch raises NotImplementedError as well, with a message, for instance for bytes where it wants floats
    stub = isinstance(error, NotImplementedError) and not error.args
    theirs = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not any(part in frame.filename for part in _NOT_THE_LEARNERS)
    ]
    if stub and len(theirs) > 1 and not theirs[-1].name.startswith("<"):
        return "○", f"needs `{theirs[-1].name}`, which is still a stub"
    if stub:
        return "○", "not attempted"
    where = f" (line {theirs[-1].lineno} of your cell)" if theirs else ""
    message = " ".join(str(error).split())
    return "✗", f"{type(error).__name__}: {message[:200]}{where}"
