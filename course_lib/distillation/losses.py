"""What the student is told about its embedding: be the teacher's, point where it points, or be as far apart.

All losses are ½ [L(f(x), t) + L(f(jitter x), t)], where t = s T(x) is the teacher's embedding of the unjittered view,
times a scale s. The scale is in the targets, and nowhere else (:attr:`course_lib.distillation.Targets.scale`).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def rmse(embedding: Float[Tensor, "n d"], target: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Root of the mean squared difference: one mean over the numbers of all embeddings of the batch, then the root.

    The published code takes one root for a batch as well, not one for each image; but one for the share of each GPU,
    which is not the same (see :mod:`course_lib.distillation.parallel`). Its gradient is not defined where
    both agree exactly; here it is 0 there, not NaN.

    Source: Ghazanfari et al., LipSim, ICLR 2024, and its code (``RMSELoss``).
    """
    return torch.linalg.vector_norm((embedding - target).flatten()) / target.numel() ** 0.5


def cosine(embedding: Float[Tensor, "n d"], target: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Mean of 1 - cos of the angle between embedding and target, in [0, 2].

    It says nothing about lengths, so the scale has no effect on it, and nothing keeps the embedding long. One of
    length 0 counts as a right angle and has no gradient.
    """
    return 1 - (_unit(embedding) * _unit(target)).sum(1).mean()


def relational(embedding: Float[Tensor, "n d"], target: Float[Tensor, "n e"]) -> Float[Tensor, ""]:
    """How wrong the distances between the images of a batch are: |D - D*| / |D*|, over all pairs.

    0 for the teacher's own distances, 1 for an embedding that does not tell images apart. D* is the distance between
    *targets*, so their scale is the scale that the student has to reach. (To divide D by its own mean instead, as
    relational distillation usually does, would let a 1-Lipschitz student shrink its embedding to nothing.) The
    embedding may have another number of dimensions than the target.

    Raises:
        ValueError: for fewer than two images, or targets that are all the same.

    Source: Park, Kim, Lu and Cho, Relational Knowledge Distillation, CVPR 2019, without its normalisation.
    """
    if len(target) < 2:
        raise ValueError("the relational loss compares images with one another; use a batch of at least 2")
    wanted = torch.pdist(target)
    size = torch.linalg.vector_norm(wanted)
    if size == 0:
        raise ValueError("all targets of a batch are the same; the relational loss has no distance to imitate")
    return torch.linalg.vector_norm(torch.pdist(embedding) - wanted) / size


LOSSES: dict[str, Loss] = {"published": rmse, "cosine": cosine, "relational": relational}


def distillation_loss(
    plain: Float[Tensor, "n d"], jittered: Float[Tensor, "n d"], target: Float[Tensor, "n e"], kind: str = "published"
) -> Float[Tensor, ""]:
    """½ [L(plain, target) + L(jittered, target)]. With kind="published", LipSim's.

    LipSim's code adds the two without the ½; Adam, which divides a gradient by its own size, does the same with both.

    Args:
        plain: the student's embedding of the images.
        jittered: the student's embedding of the images with jittered colours.
        target: the teacher's embedding of the images *without* jitter, times the scale.
        kind: "published" (:func:`rmse`), "cosine" or "relational".

    Raises:
        ValueError: for another kind, or embeddings and targets of different lengths where they have to agree.
    """
    if kind not in LOSSES:
        raise ValueError(f"unknown loss {kind!r}; choose {', '.join(LOSSES)}")
    if kind != "relational" and plain.shape[1] != target.shape[1]:
        raise ValueError(
            f"the student gives {plain.shape[1]} numbers, the teacher {target.shape[1]}; give the student "
            f"out_features={target.shape[1]}, reduce the teacher, or use the relational loss"
        )
    loss = LOSSES[kind]
    target = target.float()
    return (loss(plain.float(), target) + loss(jittered.float(), target)) / 2


def _unit(rows: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(length > 0, length, torch.inf)
