"""LPIPS, the Learned Perceptual Image Patch Similarity: a squared Euclidean distance between weighted unit features.

    d(x, y) = sum over layers l of  mean over positions of  sum_c w_lc (u_lc(x) - u_lc(y))^2,   u = f / |f|

Source: Zhang, Isola, Efros, Shechtman, Wang, CVPR 2018, equation (1), whose w is the root of this w.
Shift-tolerant nets: Ghildyal and Liu, ECCV 2022.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_lib import weights as weight_files
from course_lib.trunks import NETS, Trunk
from course_lib.validation import check_images, check_pair

EPS = 1e-10  # added to a feature vector's length before dividing, as in the authors' code


def unit_channels(features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Scale the channel vector at every position to length 1; a zero vector stays zero, its gradient finite."""
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + EPS)


def _at_least_fp32(features: Tensor) -> Tensor:
    return features.to(torch.promote_types(features.dtype, torch.float32))


class LPIPSNetwork(nn.Module):
    """What :class:`LPIPS` computes, without checks of values: for torch.compile, torch.export, torch.func.vmap.

    Attributes:
        trunk: the feature network.
        heads: one vector of non-negative channel weights per layer.
    """

    def __init__(self, trunk: Trunk, heads: Sequence[Tensor], spatial: bool = False):
        super().__init__()
        self.trunk, self.spatial = trunk, spatial
        self.heads = nn.ParameterList([nn.Parameter(head, requires_grad=False) for head in heads])

    def forward(self, x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "n 3 h w"]) -> Tensor:
        """Distance of every x to its y: (n,), or (n, 1, h, w) when spatial."""
        if self.spatial:
            size = x.shape[-2:]
            maps = (nn.functional.interpolate(m, size, mode="bilinear") for (m,) in self.difference_maps(x, y))
            return sum(maps, torch.zeros(()))
        return self.per_layer(x, y)[0].sum(1)

    def per_layer(self, x: Float[Tensor, "n 3 h w"], *others: Tensor) -> list[Float[Tensor, "n layers"]]:
        """Distance of x to each of `others`, layer by layer; x passes through the trunk once."""
        layers = [[m.mean((1, 2, 3)) for m in maps] for maps in self.difference_maps(x, *others)]
        return [torch.stack(distances, 1) for distances in zip(*layers, strict=True)]

    def difference_maps(self, x: Tensor, *others: Tensor) -> Iterator[list[Tensor]]:
        """Yield, per layer, the weighted squared differences between x and each of `others`, (n, 1, h', w')."""
        streams = [self.trunk.stream(images) for images in (x, *others)]
        for head, *features in zip(self.heads, *streams, strict=True):
            first, *rest = [unit_channels(_at_least_fp32(f)) for f in features]
            weight = head.view(1, -1, 1, 1)
            yield [nn.functional.conv2d((first - other).square(), weight) for other in rest]

    def embed(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Point e(x) such that the distance of x and y is |e(x) - e(y)|^2."""
        parts = []
        for features, head in zip(self.trunk.stream(x), self.heads, strict=True):
            positions = features.shape[-2] * features.shape[-1]
            scale = (head / positions).sqrt().view(1, -1, 1, 1)
            parts.append((unit_channels(_at_least_fp32(features)) * scale).flatten(1))
        return torch.cat(parts, 1)


class LPIPS(nn.Module):
    """LPIPS distance between images in [0, 1]; 0 for equal images, larger for images that look less alike.

    Args:
        net: "st-alex" (default), "st-vgg": shift-tolerant, trunk and heads trained on BAPPS, complete offline;
            "alex", "vgg", "squeeze": the original, ImageNet trunk and heads fitted to BAPPS.
        weights: "pretrained", or None for a random trunk under the calibrated heads.
        calibrated: False weighs all channels 1, as the paper's uncalibrated variant does.
        spatial: return a map (n, 1, h, w) instead of one number per pair.
        version: heads of "alex", "vgg", "squeeze": "0.1", or "0.0", which lacks the input normalisation.
        precision: "fp32", or "bf16" for a trunk in bfloat16, faster where the processor has it (see the benchmark).
            Of distances above 0.05, 95 % came out within 1.3 % of fp32, the worst within 4 %, gradients within 30 %:
            score with it, do not optimise.

    Raises:
        ValueError: for an unknown net, weights, version or precision.
        ConnectionError: if the trunk must be downloaded and there is no network.
        FileNotFoundError: if a pip package that ships weights is missing.
    """

    def __init__(
        self,
        net: str = "st-alex",
        weights: str | None = "pretrained",
        calibrated: bool = True,
        spatial: bool = False,
        version: str = "0.1",
        precision: str = "fp32",
    ):
        super().__init__()
        if version not in ("0.0", "0.1"):
            raise ValueError(f"unknown version {version!r}; choose '0.1' or '0.0'")
        if precision not in ("fp32", "bf16"):
            raise ValueError(f"unknown precision {precision!r}; choose 'fp32' or 'bf16'")
        if net.startswith("st-") and version != "0.1":
            raise ValueError(f"{net!r} has one version only; leave version='0.1', or choose alex, vgg or squeeze")
        trunk = Trunk(net, weights)
        if precision == "bf16":
            trunk.features.to(torch.bfloat16)
        if version == "0.0":  # that release fed [-1, 1] to the trunk as it was
            trunk.mean.fill_(0.5)
            trunk.std.fill_(0.5)
        heads = load_heads(net, version) if calibrated else [torch.ones(c) for c in trunk.widths]
        self.net, self.min_size = net, trunk.min_size
        self.network = LPIPSNetwork(trunk, heads, spatial).eval()

    def forward(self, x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "n 3 h w"]) -> Tensor:
        """Distance of every x to its y: (n,), or (n, 1, h, w) when spatial.

        Raises:
            TypeError, ValueError: if x or y is not a batch of images in [0, 1], or too small, or the shapes differ.
        """
        check_pair(x, y, min_size=self.min_size)
        return self.network(x, y)

    def per_layer(self, x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n layers"]:
        """What each layer contributes; the sum over layers is the distance. Raises as :meth:`forward`."""
        check_pair(x, y, min_size=self.min_size)
        return self.network.per_layer(x, y)[0]

    def triplet_distances(
        self, ref: Float[Tensor, "n 3 h w"], p0: Float[Tensor, "n 3 h w"], p1: Float[Tensor, "n 3 h w"]
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """(d(ref, p0), d(ref, p1)) with three trunk passes instead of four. Raises as :meth:`forward`."""
        check_pair(ref, p0, ("ref", "p0"), min_size=self.min_size)
        check_pair(ref, p1, ("ref", "p1"), min_size=self.min_size)
        d0, d1 = self.network.per_layer(ref, p0, p1)
        return d0.sum(1), d1.sum(1)

    def embed(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Embedding e with ``forward(x, y) == |e(x) - e(y)|^2``; at 64 x 64, d is 158,144 for st-alex.

        Raises:
            TypeError, ValueError: if x is not a batch of images in [0, 1], or too small.
        """
        check_images(x, "x", min_size=self.min_size)
        return self.network.embed(x)

    @staticmethod
    def between(e: Float[Tensor, "n d"], f: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
        """Distance of two images from their embeddings: |e - f|^2."""
        return (e - f).square().sum(1)

    def load_trunk(self, state_dict: Mapping[str, Tensor]) -> None:
        """Replace the trunk's weights by a state dict with torchvision's ``features.*`` names.

        Raises:
            ValueError: if it does not fit the net; nothing is changed then.
        """
        self.network.trunk.load_features(state_dict)

    def set_heads(self, heads: Sequence[Tensor]) -> None:
        """Replace the channel weights, for example by trained ones: one (c,) per layer.

        Raises:
            ValueError: if one has another shape, or a negative or infinite weight; nothing is changed then.
        """
        widths = self.network.trunk.widths
        if [tuple(head.shape) for head in heads] != [(width,) for width in widths]:
            raise ValueError(f"heads have shapes {[tuple(head.shape) for head in heads]}; {self.net!r} takes {widths}")
        if not all(((head >= 0) & head.isfinite()).all() for head in heads):
            raise ValueError("heads must be finite and not negative; clamp them: head.clamp(min=0)")
        for own, head in zip(self.network.heads, heads, strict=True):
            own.data.copy_(head)


def load_heads(net: str, version: str = "0.1") -> list[Tensor]:
    """Channel weights of `net`, calibrated on human judgments (BAPPS): one non-negative (c,) per layer.

    Raises:
        ValueError: for an unknown net or version.
        FileNotFoundError: if the pip package that ships them is missing.
    """
    if net not in NETS:
        raise ValueError(f"unknown net {net!r}; choose one of {', '.join(NETS)}")
    stored = weight_files.load(net if net.startswith("st-") else f"{net}-{version}")
    return [stored[f"lin{i}.model.1.weight"].flatten() for i in range(len(NETS[net][1]))]
