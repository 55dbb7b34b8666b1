"""What a student has learnt: distances on held-out photographs beside its teacher's, and decisions on triplets."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from course_lib.distillation.targets import ImageData, to_float
from course_lib.distillation.teachers import Teacher
from course_lib.judgments.scores import spearman, two_afc_score

Embed = Callable[[Tensor], Tensor]


def pixels(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
    """The embedding whose distance is pixel L2."""
    return images.flatten(1)


class Exam:
    """Compare embeddings with a teacher's, on images that no student was trained on.

    The teacher's answers are computed on first use, and kept.

    Args:
        teacher: whose distances are the right ones.
        images: held-out images; all pairs of them are compared.
        triplets: held-out 2AFC triplets, for example ``triplets.simulated("val")``; None: only pairs. They are enlarged
            (bilinear) where a student takes larger images than theirs.
        limit: use at most so many images and triplets, spread evenly.
        device: where to compute.
        batch_size: images at a time.

    Raises:
        ValueError: for fewer than three images, which have fewer than three distances.
    """

    def __init__(
        self,
        teacher: Teacher,
        images: ImageData,
        triplets: Any = None,
        *,
        limit: int = 400,
        device: str | torch.device = "cpu",
        batch_size: int = 100,
    ):
        if min(len(images), limit) < 3:
            raise ValueError(f"{images.name}: {min(len(images), limit)} images; an exam needs at least 3")
        self.teacher, self.device, self.batch_size = teacher, device, batch_size
        self.data, self.judged = images.name, None if triplets is None else triplets.name
        self.images = images[_spread(len(images), limit)]
        self.triplets: Any = None if triplets is None else triplets[_spread(len(triplets), limit)]
        self.size = self.images.shape[2:]

    def scores(self, embed: Embed) -> dict[str, float]:
        """Scores of an embedding of images in [0, 1], such as a student in evaluation mode, or :func:`pixels`.

        Returns:
            spearman: rank correlation of its distances with the teacher's, over all pairs of held-out images.
            distance, norm: mean distance of these pairs, and mean length of an embedding.

            With triplets also:
            spearman_near: the same correlation over the distances of references to their distortions.
            same_decision: share of the triplets in which it decides as the teacher does.
            agreement: 2AFC score on the triplets' votes, which are simulated where `judged` says so.
        """
        theirs_far, theirs = self._teachers_answers
        embeddings = self._embed(embed, to_float(self.images))
        far = torch.pdist(embeddings)
        scores = {"spearman": spearman(far, theirs_far), "distance": far.mean().item()}
        scores["norm"] = embeddings.norm(dim=1).mean().item()
        if theirs is not None:
            near = self._near(embed)
            scores["spearman_near"] = spearman(torch.cat(near), torch.cat(theirs))
            votes = (theirs[0] > theirs[1]).float()
            scores["same_decision"] = two_afc_score(*near, votes)
            scores["agreement"] = two_afc_score(*near, self.triplets.judge)
        return scores

    def table(self, embeddings: Mapping[str, Embed]) -> pd.DataFrame:
        """A row of scores for each embedding, and for pixel L2 and the teacher, beside which the others are read."""
        rows = {"pixel L2": self.scores(pixels)} | {name: self.scores(embed) for name, embed in embeddings.items()}
        rows |= {f"teacher {self.teacher.name}": self.scores(self.teacher.to(self.device).embed)}
        return pd.DataFrame(rows).T

    @functools.cached_property
    def _teachers_answers(self) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        embed = self.teacher.to(self.device).embed
        far = torch.pdist(self._embed(embed, to_float(self.images)))
        return far, None if self.triplets is None else self._near(embed)

    def _near(self, embed: Embed) -> tuple[Tensor, Tensor]:
        ref, p0, p1 = (self._embed(embed, part) for part in self.triplets[:3])
        return (ref - p0).norm(dim=1), (ref - p1).norm(dim=1)

    @torch.no_grad()
    def _embed(self, embed: Embed, images: Tensor) -> Tensor:
        parts = []
        for part in images.split(self.batch_size):
            if part.shape[2:] != self.size:
                part = F.interpolate(part, self.size, mode="bilinear", antialias=True).clamp(0, 1)
            parts.append(embed(part.to(self.device)).float().cpu())
        return torch.cat(parts)


def _spread(n: int, limit: int) -> Tensor:
    return torch.arange(n) if n <= limit else torch.arange(limit) * n // limit
