"""Wrong answers, and what the checks have to say about them. One module per chapter, found by tests/test_checks.py.

``@wrong(check.unit_channels, "dim=1 is the channel axis")`` above a function puts it into the gallery.
"""

from collections.abc import Callable
from typing import Any, NamedTuple


class WrongAnswer(NamedTuple):
    """An answer, the check that must refuse it, and words that must stand in that check's line."""

    check: Callable[..., bool]
    answers: tuple[Any, ...]
    says: str
    name: str


GALLERY: list[WrongAnswer] = []


def wrong(check: Callable[..., bool], says: str, *also: Any) -> Callable:
    """Put the decorated answer into the gallery; `also` is passed to the check after it."""

    def decorate(answer: Callable) -> Callable:
        name = f"{check.__module__.rpartition('.')[2]}.{check.__name__}: {answer.__name__}"
        GALLERY.append(WrongAnswer(check, (answer, *also), says, name))
        return answer

    return decorate
