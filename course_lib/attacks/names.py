"""Attacks by name: the course's names, and those of LipSim's command line, such as AA-L2 or PGD-Linf."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from course_lib.attacks.apgd import apgd
from course_lib.attacks.balls import NORMS, Ball, check_norm
from course_lib.attacks.fab import fab
from course_lib.attacks.gradient import fgm, pgd
from course_lib.attacks.minimum_norm import carlini_wagner, ddn, deepfool
from course_lib.attacks.objectives import Objective
from course_lib.attacks.search import Attacked
from course_lib.attacks.square import square
from course_lib.attacks.worst_case import worst_case


@dataclass(frozen=True)
class NamedAttack:
    """An attack that was chosen by name, with its norm.

    Attributes:
        name: one of :data:`NAMES`.
        function: what runs.
        preset: options that make the function this attack.
        norms: that it works for; the first is taken where nothing else is said.
        nearest: whether it looks for the smallest change that succeeds, wherever that is, instead of inside a ball.
        norm: the one that was chosen.
    """

    name: str
    function: Callable[..., Attacked]
    preset: dict[str, Any] = field(default_factory=dict)
    norms: tuple[str, ...] = NORMS
    nearest: bool = False
    norm: str = "l2"

    @property
    def options(self) -> tuple[str, ...]:
        """Options that this attack takes, such as steps."""
        fixed = {"objective", "ball", "norm", "generator", "progress", *self.preset}
        return tuple(name for name in inspect.signature(self.function).parameters if name not in fixed)

    def check_options(self, options: dict[str, Any]) -> None:
        """Raise ValueError for options that this attack does not take."""
        for name in options:
            if name not in self.options:
                known = ", ".join(self.options) or "no options"
                raise ValueError(f"the attack {self.name} takes {known}; not {name}")

    def run(self, objective: Objective, eps: float, generator: torch.Generator, **options: Any) -> Attacked:
        """Attack inside the ball of radius `eps`; attacks that look for the smallest change take no notice of it.

        Raises:
            ValueError: as the attack.
        """
        accepted = inspect.signature(self.function).parameters
        options = {**self.preset, **options}
        if "generator" in accepted:
            options["generator"] = generator
        if not self.nearest:
            return self.function(objective, Ball(self.norm, eps), **options)
        return self.function(objective, **({"norm": self.norm} if "norm" in accepted else {}), **options)


ATTACKS = {
    attack.name: attack
    for attack in (
        NamedAttack("fgm", fgm),
        NamedAttack("pgd", pgd),
        NamedAttack("momentum", pgd, {"momentum": 1.0}),
        NamedAttack("apgd-margin", apgd, {"loss": "margin"}),
        NamedAttack("apgd-ce", apgd, {"loss": "ce"}),
        NamedAttack("fab", fab, nearest=True),
        NamedAttack("square", square),
        NamedAttack("carlini-wagner", carlini_wagner, norms=("l2",), nearest=True),
        NamedAttack("deepfool", deepfool, nearest=True),
        NamedAttack("ddn", ddn, norms=("l2",), nearest=True),
        NamedAttack("worst-case", worst_case),
    )
}
NAMES = tuple(ATTACKS)
# LipSim's AA was to be AutoAttack; for two classes only a part of that can run, the whole is worst-case.
OTHER_NAMES = {
    "aa": "worst-case",
    "apgd": "apgd-ce",
    "cw": "carlini-wagner",
    "df": "deepfool",
    "fgsm": "fgm",
    "mi": "momentum",
    "mifgsm": "momentum",
    "mi-fgsm": "momentum",
    "sq": "square",
}


def named(name: str, norm: str | None = None) -> NamedAttack:
    """The attack of this name.

    Args:
        name: one of :data:`NAMES` or :data:`OTHER_NAMES`, in any case, with or without a norm behind it: "worst-case",
            "AA-L2", "PGD-Linf", "CW-L2".
        norm: "l2" or "linf"; None takes that of the name, else "l2".

    Raises:
        ValueError: for an unknown name or norm, for two norms that differ, or a norm that the attack cannot do.
    """
    base = name.lower()
    said = next((known for known in NORMS if base.endswith(f"-{known}")), None)
    base = base.removesuffix(f"-{said}")
    attack = ATTACKS.get(OTHER_NAMES.get(base, base))
    if attack is None:
        raise ValueError(
            f"unknown attack {name!r}; choose {', '.join(NAMES)}, or a name of LipSim's "
            "(AA, PGD, CW, SQ, DF, MI or MIFGSM, each with -L2 or -Linf)"
        )
    if norm is not None:
        check_norm(norm)
    if said and norm and said != norm:
        raise ValueError(f"the attack {name} is one for {said}, but the norm is to be {norm}; leave one of them out")
    chosen = said or norm or "l2"
    if chosen not in attack.norms:
        raise ValueError(f"the attack {attack.name} works for {attack.norms[0]} only; for {chosen} take fab or pgd")
    return NamedAttack(attack.name, attack.function, attack.preset, attack.norms, attack.nearest, chosen)
