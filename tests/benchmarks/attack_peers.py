"""foolbox, torchattacks and pyautoattack against the same 2AFC decision as the attacks of chapter 09.

All of them attack classifiers, so :class:`Decision` makes one out of a metric and the two candidates of each triplet:
the logits of "p0 is closer" and "p1 is closer" are (d1, d0). Only the reference is perturbed.
"""

import logging
import warnings
from collections.abc import Callable

import foolbox
import torch
import torchattacks
from pyautoattack.autoattack import AutoAttack
from pyautoattack.autopgd_base import APGDAttack
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from course_lib.attacks.objectives import _Distances
from course_lib.judgments import Metric

LOGGER = logging.getLogger("pyautoattack")
AUTOATTACK_NORM = {"l2": "L2", "linf": "Linf"}


class Decision(nn.Module):
    """A metric's 2AFC decision as a classifier of references: logits (n, 2), larger for the closer candidate.

    Every reference has candidates of its own. Some of the libraries call the model for a part of the batch without
    saying which: its rows are then recognised, as small changes of the original references.

    Args:
        metric: embeds the candidates once, if it can.
        ref, p0, p1: (n, 3, h, w) in [0, 1].
        negative: logits (-d0, -d1), the same decision and margin, instead of (d1, d0).

    Attributes:
        forwards, backwards: images that went through the metric, and of how many a gradient was computed.
    """

    def __init__(self, metric: Metric, ref: Tensor, p0: Tensor, p1: Tensor, negative: bool = False):
        super().__init__()
        self.distance, self.ref, self.negative = _Distances(metric), ref, negative
        self.pair, self.candidates = (p0, p1), self.distance.prepare(p0, p1)
        self.forwards = self.backwards = 0
        self.anchor = nn.Parameter(torch.zeros(()), requires_grad=False)  # torchattacks asks parameters for the device

    def forward(self, images: Tensor) -> Tensor:
        rows = self.rows(images.detach())
        self.forwards += len(images)
        d0, d1 = self.distance(images.clamp(0, 1), *(candidate[rows] for candidate in self.candidates))
        logits = torch.stack((-d0, -d1) if self.negative else (d1, d0), 1)
        if logits.requires_grad:
            logits.register_hook(self._count)
        return logits

    def rows(self, images: Tensor) -> Tensor:
        """Which reference each image was made from."""
        if len(images) == len(self.ref):
            return torch.arange(len(images))
        distances = torch.cdist(images.flatten(1), self.ref.flatten(1))
        if len(self.ref) > 1:
            nearest, second = distances.topk(2, largest=False).values.unbind(1)
            if (nearest > 0.7 * second).any():
                raise RuntimeError("an image is so far from its reference that it cannot be recognised")
        return distances.argmin(1)

    def _count(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


Peer = Callable[..., Tensor]


def foolbox_attack(
    attack, decision: Decision, label: Tensor, eps: float | None = None, seed: int = 0, **options
) -> Tensor:
    """Images that an attack of foolbox returns: inside the ball of radius eps, or the nearest that it found."""
    torch.manual_seed(seed)
    model = foolbox.PyTorchModel(decision.eval(), bounds=(0, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Brendel-Bethge has to be compiled, and that CW is for bounds in [0, 1]
        return attack(model, decision.ref, foolbox.criteria.Misclassification(label), epsilons=eps, **options)[
            1
        ].detach()


def foolbox_pgd(decision: Decision, label: Tensor, norm: str, eps: float, steps: int, relative: float = 0) -> Tensor:
    """PGD with steps of 2.5 eps / steps, as Madry et al. chose, or of `relative` eps."""
    name = {"l2": "L2PGD", "linf": "LinfPGD"}[norm]
    attack = getattr(foolbox.attacks, name)(steps=steps, rel_stepsize=relative or 2.5 / steps)
    return foolbox_attack(attack, decision, label, eps)


def torchattacks_attack(attack, decision: Decision, label: Tensor, seed: int = 0) -> Tensor:
    """Images that an attack of torchattacks returns."""
    torch.manual_seed(seed)
    return attack(decision.ref, label).detach()


def torchattacks_pgd(decision: Decision, label: Tensor, norm: str, eps: float, steps: int) -> Tensor:
    """PGD with steps of 2.5 eps / steps."""
    attack = torchattacks.PGDL2 if norm == "l2" else torchattacks.PGD
    return torchattacks_attack(attack(decision, eps=eps, alpha=2.5 * eps / steps, steps=steps), decision, label)


def torchattacks_apgd(decision: Decision, label: Tensor, norm: str, eps: float, steps: int) -> Tensor:
    """APGD on the cross-entropy; the gradient at its start is one of `steps`."""
    attack = torchattacks.APGD(decision, norm=AUTOATTACK_NORM[norm], eps=eps, steps=steps - 1, seed=0)
    return torchattacks_attack(attack, decision, label)


def autoattack_apgd(decision: Decision, label: Tensor, norm: str, eps: float, steps: int) -> Tensor:
    """APGD on the cross-entropy, the only part of AutoAttack for two classes that LipSim's evaluation ran."""
    attack = APGDAttack(
        decision, n_iter=steps - 1, norm=AUTOATTACK_NORM[norm], eps=eps, seed=0, device="cpu", logger=LOGGER
    )
    return attack.perturb(decision.ref, label).detach()


def autoattack_fab(decision: Decision, label: Tensor, norm: str, steps: int) -> Tensor:
    """FAB, targeted at the only other class: the same as untargeted, at half the gradients."""
    attack = FABAttack_PT(
        decision, norm=AUTOATTACK_NORM[norm], n_iter=steps, eps=1e3, seed=0, device="cpu", targeted=True,
        n_target_classes=1,
    )  # fmt: skip
    return attack.perturb(decision.ref, label).detach()


def autoattack_square(decision: Decision, label: Tensor, norm: str, eps: float, queries: int) -> Tensor:
    """Square with its default start, p_init = 0.8, and the schedule shortened to this many queries."""
    attack = SquareAttack(decision, norm=AUTOATTACK_NORM[norm], n_queries=queries, eps=eps, seed=0, device="cpu")
    with torch.no_grad():
        return attack.perturb(decision.ref, label)


def torchattacks_square(decision: Decision, label: Tensor, norm: str, eps: float, queries: int) -> Tensor:
    """Square as torchattacks has it."""
    attack = torchattacks.Square(decision, norm=AUTOATTACK_NORM[norm], eps=eps, n_queries=queries, seed=0)
    with torch.no_grad():
        return torchattacks_attack(attack, decision, label)


def foolbox_ddn(decision: Decision, label: Tensor, norm: str, steps: int) -> Tensor:
    """DDN with its defaults."""
    return foolbox_attack(foolbox.attacks.DDNAttack(steps=steps), decision, label)


def foolbox_carlini_wagner(decision: Decision, label: Tensor, norm: str, steps: int) -> Tensor:
    """Carlini-Wagner: four rounds of the binary search share the steps, none ends early."""
    attack = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=4, steps=steps // 4, initial_const=1.0, stepsize=0.02, abort_early=False
    )
    return foolbox_attack(attack, decision, label)


def foolbox_brendel_bethge(decision: Decision, label: Tensor, norm: str, steps: int) -> Tensor:
    """Brendel-Bethge from where DDN arrived, half the steps each; from the wrong candidate where DDN found nothing."""
    start = foolbox_ddn(decision, label, norm, steps // 2)
    with torch.no_grad():
        failed = (decision(start).argmax(1) == label)[:, None, None, None]
    wrong = torch.where((label == 1)[:, None, None, None], *decision.pair)
    name = {"l2": "L2BrendelBethgeAttack", "linf": "LinfinityBrendelBethgeAttack"}[norm]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # at the first use it is compiled
        attack = getattr(foolbox.attacks, name)(steps=steps - steps // 2)
    return foolbox_attack(attack, decision, label, starting_points=torch.where(failed, wrong, start))


def foolbox_deepfool(decision: Decision, label: Tensor, norm: str, steps: int) -> Tensor:
    """DeepFool on the logits, with its default overshoot."""
    name = {"l2": "L2DeepFoolAttack", "linf": "LinfDeepFoolAttack"}[norm]
    attack = getattr(foolbox.attacks, name)(steps=steps, candidates=2, loss="logits")
    return foolbox_attack(attack, decision, label)


IN_THE_BALL: dict[str, Peer] = {
    "foolbox PGD": foolbox_pgd,
    "torchattacks PGD": torchattacks_pgd,
    "torchattacks APGD-CE": torchattacks_apgd,
    "pyautoattack APGD-CE": autoattack_apgd,
}
BLACK_BOX: dict[str, Peer] = {"torchattacks Square": torchattacks_square, "pyautoattack Square": autoattack_square}
NEAREST: dict[str, Peer] = {
    "foolbox DDN": foolbox_ddn,
    "foolbox Carlini-Wagner": foolbox_carlini_wagner,
    "foolbox Brendel-Bethge": foolbox_brendel_bethge,
    "foolbox DeepFool": foolbox_deepfool,
    "pyautoattack FAB": autoattack_fab,
}
NORMS_OF = {"foolbox DDN": ("l2",), "foolbox Carlini-Wagner": ("l2",)}


def autoattack(decision: Decision, norm: str, eps: float, steps: int = 10, **version) -> AutoAttack:
    """AutoAttack as a whole, its APGD shortened. Its "standard" version needs four classes, its DLR loss three."""
    attack = AutoAttack(decision, norm=AUTOATTACK_NORM[norm], eps=eps, seed=0, device="cpu", **version)
    attack.apgd.n_iter = attack.apgd_targeted.n_iter = steps
    return attack
