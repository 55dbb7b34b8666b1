"""Dense layers whose L2 Lipschitz constant is at most 1 whatever their parameters are.

All take (..., in_features) and give (..., out_features), work in float32, float64 and bfloat16, and raise ValueError
for a wrong number of features. Their matrices are W: (out_features, in_features), or (hidden, features).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.lipschitz.base import LipschitzLayer, check_channels, check_sizes, inverse_or_zero, uniform_bias, wide
from course_lib.lipschitz.norms import matrix_norm

MAX_LOG_Q = 20.0


class _Linear(LipschitzLayer):
    """Free parameters `weight` (out_features, in_features) and `bias`; a subclass rescales the weight."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        check_sizes(in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(out_features, in_features)))
        self.bias = uniform_bias(out_features, in_features)

    def forward(self, x: Float[Tensor, "*batch i"]) -> Float[Tensor, "*batch o"]:
        """The rescaled matrix times x, plus the bias."""
        check_channels(x, self.in_features, spatial=False)
        return F.linear(x, self.rescaled()["weight"], self.bias)

    def upper_bound(self) -> float:
        """Norm of the rescaled matrix, by SVD."""
        return matrix_norm(self._in_float64()["weight"])

    def plain(self) -> nn.Linear:
        """A `nn.Linear` with the rescaled matrix."""
        return frozen_linear(self.rescaled()["weight"], self.bias)


class AOLLinear(_Linear):
    """Almost-orthogonal layer: y = W D x + b with D_jj = (sum over k of |W^T W|_jk)^-1/2, so D W^T W D <= I.

    If there are more inputs than outputs, the rows are rescaled instead, D W: the same theorem for W^T. On random
    matrices that divides by much less. The layer starts with orthogonal W, where nothing has to be divided.

    Source: Prach, Lampert, Almost-orthogonal layers for efficient general-purpose Lipschitz networks, ECCV 2022,
    theorem 1.
    """

    def _rescale(self) -> dict[str, Tensor]:
        weight = wide(self.weight)
        columns = self.in_features <= self.out_features
        gram = weight.T @ weight if columns else weight @ weight.T
        scale = inverse_or_zero(gram.abs().sum(1)).sqrt()
        return {"weight": weight * (scale if columns else scale[:, None])}


class _Residual(LipschitzLayer):
    """x - 2 W^T S relu(W x + b) with W (hidden, features) and a diagonal S such that W^T S W <= I.

    The Jacobian I - 2 W^T S D W with D between 0 and I is symmetric, with eigenvalues between 1 - 2 lambda and 1 for
    the largest eigenvalue lambda of W^T S W.
    """

    def __init__(self, features: int, hidden: int):
        super().__init__()
        check_sizes(features=features, hidden=hidden)
        self.features, self.hidden = features, hidden
        self.weight = nn.Parameter(nn.init.xavier_normal_(torch.empty(hidden, features)))
        self.bias = uniform_bias(hidden, features)

    def forward(self, x: Float[Tensor, "*batch f"]) -> Float[Tensor, "*batch f"]:
        """The residual step."""
        check_channels(x, self.features, spatial=False)
        hidden = F.linear(x, self.weight, self.bias).relu() * self.rescaled()["scale"]
        return x - 2 * (hidden @ self.weight)

    def upper_bound(self) -> float:
        """max(1, 2 lambda - 1), lambda by SVD of S^1/2 W; the product rule on the branch would say up to 3."""
        scaled = self._in_float64()["scale"].sqrt()[:, None] * self.weight.detach().double()
        return max(1.0, 2 * matrix_norm(scaled) ** 2 - 1)

    def plain(self) -> nn.Module:
        """The residual step with two `nn.Linear`."""
        backward = -2 * self.rescaled()["scale"] * self.weight.detach().T
        return PlainResidual(frozen_linear(self.weight, self.bias), frozen_linear(backward, None))


class SLLLinear(_Residual):
    """SDP-based Lipschitz layer: x - 2 W^T T^-1 relu(W x + b), T_ii = sum over j of |W W^T|_ij q_j / q_i.

    T - W W^T is diagonally dominant after scaling with q > 0, so W^T T^-1 W <= I. The free parameter is log q, clamped
    to +-20 so that q_j / q_i = exp(log q_j - log q_i) stays finite in float32. In the paper W is transposed.

    Source: Araujo, Havens, Delattre, Allauzen, Hu, A unified algebraic perspective on Lipschitz neural networks,
    ICLR 2023, theorem 3.
    """

    def __init__(self, features: int, hidden: int):
        super().__init__(features, hidden)
        self.log_q = nn.Parameter(torch.randn(hidden))

    def _rescale(self) -> dict[str, Tensor]:
        weight = wide(self.weight)
        return {"scale": sll_scale(weight @ weight.T, wide(self.log_q))}


def sll_scale(gram: Float[Tensor, "h h"], log_q: Float[Tensor, "h"]) -> Float[Tensor, "h"]:
    """1 / T_ii with T_ii = sum over j of |gram_ij| q_j / q_i; 0 where T_ii is 0."""
    log_q = log_q.clamp(-MAX_LOG_Q, MAX_LOG_Q)
    return inverse_or_zero((gram.abs() * (log_q - log_q[:, None]).exp()).sum(1))


class PlainResidual(nn.Module):
    """x + second(relu(first(x))), all that is left of a residual layer once its scale is folded into `second`."""

    def __init__(self, first: nn.Module, second: nn.Module):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        """The residual step."""
        return x + self.second(self.first(x).relu())


def frozen_linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A `nn.Linear` that owns copies of the given tensors and does not train."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta", dtype=weight.dtype)
    layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return layer
