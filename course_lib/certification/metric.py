"""A perceptual metric with a proof: the distance between embeddings of a network with a bounded Lipschitz constant."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from course_lib.certification import card, radii
from course_lib.certification.rounding import exactly, full_precision, rounded
from course_lib.lipschitz import upper_bound
from course_lib.lipschitz.base import wide
from course_lib.validation import check_images, check_pair

FORMULAS = ("exact", "published")
AT_ONCE = 64  # triplets or pairs embedded together, so that memory does not grow with the batch


class Assessment(NamedTuple):
    """What a metric says about triplets; each (n,).

    Attributes:
        decision: 0 where p0 is closer, 1 where p1 is, -1 for a tie.
        radius: signed L2 radius around the reference inside which the decision stands, rounded towards 0.
        norm: |f(ref)|, the length of the reference's embedding.
    """

    decision: Int64[Tensor, "n"]
    radius: Float[Tensor, "n"]
    norm: Float[Tensor, "n"]


class CertifiedMetric(nn.Module):
    """Distance between the embeddings of a Lipschitz network, with guarantees about its decisions and its values.

    A guarantee is about the numbers that this object computes, rounding included: every radius is divided by the
    network's Lipschitz bound, made smaller by a margin for the rounding errors of the embeddings' dtype, and rounded
    towards 0; intervals are widened alike. It is in the units of the images, raw pixels in [0, 1], L2 over all of them.

    It is a metric of the course: :func:`course_lib.judgments.load`, :func:`course_lib.attacks.attack_2afc` and the like
    take it as it is.

    Args:
        network: images (n, 3, h, w) in [0, 1] -> embeddings (n, d), *not* normalised.
        kind: "euclidean": |f(x) - f(y)|; "cosine": 1 - cos of the angle between f(x) and f(y).
        lipschitz: a bound from above on the network's L2 Lipschitz constant that you can prove; None takes
            :func:`course_lib.lipschitz.upper_bound`, anew whenever the weights have changed.
        architecture: what to build the network from again, for :meth:`save`, such as {"architecture": "tiny",
            "out_features": 256}; None: found out for presets of :class:`~course_lib.lipschitz.LipSimNet`.

    Attributes:
        card: what is known about a loaded metric; empty for a new one.

    Raises:
        TypeError, ValueError: if the network has no bound and none is given, or the kind is unknown.

    Source: after Ghazanfari et al., LipSim, ICLR 2024; the certificates are those of :mod:`radii`.
    """

    def __init__(
        self,
        network: nn.Module,
        kind: str = "euclidean",
        *,
        lipschitz: float | int | None = None,
        architecture: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        radii.check_kind(kind)
        self.network, self.kind = network, kind
        self.card: dict[str, Any] = {}
        self.architecture = None if architecture is None else dict(architecture)
        self._given = None if lipschitz is None else float(lipschitz)
        self._known: tuple[Any, float] | None = None
        self._checked_bound()

    @property
    def lipschitz(self) -> float:
        """Bound from above on the network's L2 Lipschitz constant, at its present weights."""
        if self._given is not None:
            return self._given
        tensors = (*self.network.parameters(), *self.network.buffers())
        key = [(tensor._version, tensor.data_ptr(), id(tensor)) for tensor in tensors]
        if self._known is None or self._known[0] != key:
            with self._evaluating():
                self._known = key, upper_bound(self.network)
        return self._known[1]

    def embed(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Embeddings, not normalised, with gradients. In evaluation mode autocast and TF32 have no effect.

        Raises:
            TypeError, ValueError: if `images` is not a batch of images in [0, 1], or does not suit the network.
        """
        check_images(images)
        with contextlib.nullcontext() if self.network.training else full_precision(images.device.type):
            return self.network(images)

    def between(self, e: Float[Tensor, "n d"], f: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
        """Distance of two images from their embeddings."""
        return radii.distance(e, f, self.kind)

    def forward(self, x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n"]:
        """Distance of every x to its y; its gradient is 0, not NaN, where they are equal.

        Raises:
            TypeError, ValueError: as :meth:`embed`, or if the shapes differ.
        """
        check_pair(x, y)
        return self.between(*self.embed(torch.cat([x, y])).chunk(2))

    def triplet_distances(
        self, ref: Float[Tensor, "n 3 h w"], p0: Float[Tensor, "n 3 h w"], p1: Float[Tensor, "n 3 h w"]
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """(d(ref, p0), d(ref, p1)) from three embeddings. Raises as :meth:`forward`."""
        _check_triplet(ref, p0, p1)
        e_ref, e_p0, e_p1 = self.embed(torch.cat([ref, p0, p1])).chunk(3)
        return self.between(e_ref, e_p0), self.between(e_ref, e_p1)

    def decide(
        self, ref: Float[Tensor, "n 3 h w"], p0: Float[Tensor, "n 3 h w"], p1: Float[Tensor, "n 3 h w"]
    ) -> Int64[Tensor, "n"]:
        """Which one is closer to ref: 0 for p0, 1 for p1, -1 for a tie. Raises as :meth:`forward`."""
        return self.assess(ref, p0, p1).decision

    def radius(
        self, ref: Float[Tensor, "n 3 h w"], p0: Float[Tensor, "n 3 h w"], p1: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, "n"]:
        """Signed L2 radius: no change of ref that is shorter can change the decision. Raises as :meth:`forward`.

        Positive where p0 is closer, negative where p1 is, 0 for a tie and for what rounding might decide.
        """
        return self.assess(ref, p0, p1).radius

    def assess(
        self,
        ref: Float[Tensor, "n 3 h w"],
        p0: Float[Tensor, "n 3 h w"],
        p1: Float[Tensor, "n 3 h w"],
        *,
        formula: str = "exact",
    ) -> Assessment:
        """Decisions, radii and norms from one embedding of each image; without gradients, in evaluation mode.

        Args:
            ref: references in [0, 1].
            p0: first candidates.
            p1: second candidates.
            formula: "published" has radii that are too large wherever |f(ref)| < 1; see
                :func:`~course_lib.certification.published_2afc_radius`. For the cosine distance only.

        Raises:
            TypeError, ValueError: as :meth:`forward`; ValueError also for another formula, or an embedding that is NaN.
        """
        _check_triplet(ref, p0, p1)
        if formula not in FORMULAS or (formula == "published" and self.kind != "cosine"):
            raise ValueError(f"no formula {formula!r} for kind {self.kind!r}; choose exact, or published for cosine")
        parts = [self._assess(*some, formula) for some in self._embedded(ref, p0, p1)]
        return Assessment(*(torch.cat(column).to(ref.device) for column in zip(*parts, strict=True)))

    def interval(
        self, x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "n 3 h w"], eps: float | int, *, both: bool = False
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """Certified smallest and largest distance when x, or with `both` also y, changes by up to eps in L2.

        Raises:
            TypeError, ValueError: as :meth:`forward`; ValueError also for an eps that is negative or not a number.
        """
        check_pair(x, y)
        radii.check_eps(eps)
        parts = []
        for (e_x, e_y), (error_x, error_y), dtype in self._embedded(x, y):
            reach = (self.lipschitz * eps + 2 * error_x, self.lipschitz * eps * both + 2 * error_y)
            low, high = radii.moved_apart((e_x, e_y), reach, self.kind)
            largest = 2.0 if self.kind == "cosine" else torch.inf
            parts.append((rounded(low, dtype, 0.0), rounded(high, dtype, largest)))
        low, high = (torch.cat(column).to(x.device) for column in zip(*parts, strict=True))
        return low, high

    def three_image_certified(
        self,
        ref: Float[Tensor, "n 3 h w"],
        p0: Float[Tensor, "n 3 h w"],
        p1: Float[Tensor, "n 3 h w"],
        eps: float | int | Sequence[float | int],
    ) -> Bool[Tensor, "n"]:
        """Where no change of all three images, each up to its own eps in L2, can change the decision.

        Args:
            ref: references in [0, 1].
            p0: first candidates.
            p1: second candidates.
            eps: one budget for each, or three of them: for ref, p0 and p1.

        Raises:
            TypeError, ValueError: as :meth:`forward`; ValueError also for budgets that make no sense.
        """
        _check_triplet(ref, p0, p1)
        budgets = radii.three_budgets(eps)
        parts = []
        for embeddings, errors, _ in self._embedded(ref, p0, p1):
            reach = [self.lipschitz * budget + 2 * error for budget, error in zip(budgets, errors, strict=True)]
            parts.append(radii.all_moved(embeddings, reach, self.kind))
        return torch.cat(parts).to(ref.device)

    def save(self, path: str | Path, **about: Any) -> None:
        """Write the weights to `path` (.safetensors) and a card beside it (.json), atomically.

        Args:
            path: of the weights.
            **about: for the card: data, seeds, command, scores, ...; whatever JSON can hold.

        Raises:
            ValueError: if the path ends otherwise, the architecture does not fit the network or is not known, or
                `about` cannot be written as JSON.
        """
        settings = {"kind": self.kind, "lipschitz": self._given}
        card.write(path, self.network, self.architecture, settings, about)

    @classmethod
    def load(cls, path: str | Path, network: nn.Module | None = None) -> "CertifiedMetric":
        """Read what :meth:`save` wrote, in evaluation mode.

        Args:
            path: of the weights or of the card.
            network: takes the weights; needed only for an architecture of your own.

        Raises:
            FileNotFoundError: if one of the two files is missing.
            ValueError: if the weights are not those that the card was written for, for example cut off; the card is
                damaged; or the architecture is unknown.
        """
        network, known = card.read(path, network)
        metric = cls(network.eval(), known["kind"], lipschitz=known["lipschitz"], architecture=known["network"])
        metric.card = known
        return metric.eval()

    def _checked_bound(self) -> None:
        try:
            bound = self.lipschitz
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"no certificate without a Lipschitz bound: {error}; or give one that you can prove, lipschitz="
            ) from None
        if not 0 < bound < float("inf"):
            raise ValueError(f"the network's Lipschitz bound is {bound}; it has to be positive and finite")

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        training = self.network.training
        try:
            if training:
                self.network.eval()
            with torch.no_grad():
                yield
        finally:
            if training:
                self.network.train()

    def _embedded(self, *images: Tensor) -> Iterator[tuple[list[Tensor], list[Tensor], torch.dtype]]:
        """Embeddings in float64, bounds of their errors, and a dtype for results, for some images at a time."""
        for some in zip(*(part.split(AT_ONCE) for part in images), strict=True):
            with self._evaluating():
                together = torch.cat(some)
                e = self.embed(together)
                dtype = wide(e).dtype
                if not e.isfinite().all():
                    raise ValueError("an embedding is NaN or infinite: nothing can be certified; look at the weights")
                e, error = exactly(e, together, self.lipschitz)
                yield list(e.chunk(len(some))), list(error.chunk(len(some))), dtype

    def _assess(
        self, embeddings: Sequence[Tensor], errors: Sequence[Tensor], dtype: torch.dtype, formula: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Columns of :class:`Assessment`.

        Each embedding may be off by its error, and by as much in another direction where the changed image is judged.
        For ref that is a shift; an error of p0 or p1 turns the boundary, the more the closer the two are.
        """
        e_ref, e_p0, e_p1 = embeddings
        norm = _norm(e_ref)
        if self.kind == "euclidean":
            signed, apart = radii.euclidean_2afc_radius(e_ref, e_p0, e_p1), _norm(e_p0 - e_p1)
            turn = (errors[1] + errors[2]) * (_norm(e_ref - e_p0) + _norm(e_ref - e_p1))
        else:
            units, turn = (radii.unit(e_p0), radii.unit(e_p1)), torch.zeros_like(norm)
            signed, apart = radii.cosine_2afc_radius(e_ref, e_p0, e_p1), _norm(units[0] - units[1])
            for e, error, u in zip(embeddings[1:], errors[1:], units, strict=True):
                aside = _norm(e_ref - (e_ref * u).sum(1, keepdim=True) * u)  # what is along u does not feel it turn
                tilt = error / _norm(e)
                turn = turn + tilt * (aside + 2 * signed.abs() + tilt * norm)
        safe = (signed.abs() - 2 * errors[0] - 2 * turn / apart).clamp_min(0) / self.lipschitz
        if formula == "published":
            safe = safe / norm
        safe = torch.where(signed == 0, 0, safe)
        decision = torch.where(signed > 0, 0, torch.where(signed < 0, 1, -1))
        return decision, rounded(safe, dtype, 0.0) * signed.sign().to(dtype), norm.to(dtype)


def pixel_l2() -> CertifiedMetric:
    """Pixel L2, whose embedding is the image and whose certificate is exact: the baseline that is hard to fool."""
    return CertifiedMetric(nn.Flatten(), "euclidean")


def _check_triplet(ref: Tensor, p0: Tensor, p1: Tensor) -> None:
    check_pair(ref, p0, ("ref", "p0"))
    check_pair(ref, p1, ("ref", "p1"))


def _norm(e: Tensor) -> Tensor:
    return torch.linalg.vector_norm(e, dim=1)
