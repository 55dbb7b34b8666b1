"""Dense layers whose L2 Lipschitz constant is at most 1 whatever their parameters are.

All take (..., in_features) and give (..., out_features), work in float32, float64 and bfloat16, and raise ValueError
for a wrong number of features. Their matrices are W: (out_features, in_features), or (hidden, features).
"""

import math

import torch
from jaxtyping import Float, Inexact
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.lipschitz.base import LipschitzLayer, check_channels, check_sizes, inverse_or_zero, uniform_bias, wide
from course_lib.lipschitz.norms import gram_bound, matrix_norm

MAX_LOG_Q = 20.0
CAYLEY_CAP = 4.0  # then the matrix that is inverted has a condition number below 25, so float32 loses one digit


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
        """Largest singular value of the rescaled matrix."""
        return matrix_norm(self._in_float64()["weight"])

    def plain(self) -> nn.Linear:
        """A `nn.Linear` with the rescaled matrix."""
        return frozen_linear(self.rescaled()["weight"], self.bias)


class SpectralLinear(_Linear):
    """Spectral normalisation: y = W x / s + b, s a bound from above on the norm of W by Gram iteration.

    The published version estimates s by power iteration, which is a bound from below, so that norms exceed 1. Only
    the largest singular value becomes 1, so depth makes gradients vanish where the others are small.

    Source: Miyato, Kataoka, Koyama, Yoshida, Spectral normalization for generative adversarial networks, ICLR 2018;
    bound by Delattre, Barthelemy, Araujo, Allauzen, ICML 2023.
    """

    def _rescale(self) -> dict[str, Tensor]:
        weight = wide(self.weight)
        return {"weight": weight * inverse_or_zero(gram_bound(weight))}


class BjorckLinear(_Linear):
    """Björck orthogonalisation: W <- W (3 I - W^T W) / 2, `iterations` times, from W divided by a bound of its norm.

    A step maps every singular value s to s (3 - s^2) / 2, which grows on [0, 1] from 0 to 1. So after a start from
    above the norm never exceeds 1, converged or not, and all values go to 1, small ones by a factor 1.5 a step: 15
    steps orthogonalise what starts above 0.01. With rounding, 1 + e becomes 1 - 1.5 e^2, so errors do not add up.

    Source: Björck, Bowie, An iterative algorithm for computing the best estimate of an orthogonal matrix, SIAM
    Journal on Numerical Analysis 8, 1971; Anil, Lucas, Grosse, Sorting out Lipschitz function approximation, ICML
    2019.
    """

    def __init__(self, in_features: int, out_features: int, *, iterations: int = 15):
        super().__init__(in_features, out_features)
        check_sizes(iterations=iterations)
        self.iterations = iterations

    def _rescale(self) -> dict[str, Tensor]:
        weight = wide(self.weight)
        q = weight * inverse_or_zero(gram_bound(weight))
        tall = self.out_features > self.in_features
        q = q.T if tall else q  # so that q q^T is the smaller of the two Gram matrices
        for _ in range(self.iterations):
            q = 1.5 * q - 0.5 * (q @ q.T) @ q
        return {"weight": q.T if tall else q}


class CayleyLinear(_Linear):
    """Cayley transform: orthonormal columns (or rows, if fewer) from any matrix W = [U; V].

    A = U - U^T + V^T V, Q = [(I - A)(I + A)^-1; -2 V (I + A)^-1]. W is first scaled down where its norm exceeds 4, so
    that I + A is well conditioned.

    Source: Trockman, Kolter, Orthogonalizing convolutional layers with the Cayley transform, ICLR 2021; for
    matrices that are not square, their published code.
    """

    def _rescale(self) -> dict[str, Tensor]:
        return {"weight": cayley(capped(wide(self.weight), CAYLEY_CAP))}


class OrthogonalLinear(_Linear):
    """Matrix exponential: the first rows and columns of exp(A) with A = X - X^T, which is a rotation.

    X is square with n = max(in_features, out_features) rows. A is scaled down where a bound from above on its norm
    exceeds pi, so that the series stays accurate. That reaches every rotation whose angles are at most pi / n^(1/16),
    0.77 pi for n = 64, and of those with larger angles not all: in the plane none beyond 172 degrees.

    Source: Lezcano-Casado, Martinez-Rubio, Cheap orthogonal constraints in neural networks, ICML 2019.
    """

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        size = max(in_features, out_features)
        self.weight = nn.Parameter(torch.randn(size, size) / math.sqrt(2 * size))

    def _rescale(self) -> dict[str, Tensor]:
        weight = wide(self.weight)
        rotation = torch.linalg.matrix_exp(capped(weight - weight.T, math.pi))
        return {"weight": rotation[: self.out_features, : self.in_features]}


class AOLLinear(_Linear):
    """Almost-orthogonal layer: y = W D x + b with D_jj = (sum over k of |W^T W|_jk)^-1/2, so D W^T W D <= I.

    If there are more inputs than outputs, the rows are rescaled instead, D W: the same theorem for W^T, which divides
    by less there. The layer starts with orthogonal W, where nothing has to be divided.

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
        """max(1, 2 lambda - 1), lambda = |S^1/2 W|^2; the product rule on the branch would say up to 3."""
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
    ICLR 2023.
    """

    def __init__(self, features: int, hidden: int):
        super().__init__(features, hidden)
        self.log_q = nn.Parameter(torch.randn(hidden))

    def _rescale(self) -> dict[str, Tensor]:
        weight = wide(self.weight)
        return {"scale": sll_scale(weight @ weight.T, wide(self.log_q))}


class CPLLinear(_Residual):
    """Convex potential layer: x - (2 / |W|^2) W^T relu(W x + b), |W| bounded from above by Gram iteration.

    The published version estimates |W| by power iteration, from below.

    Source: Meunier, Delattre, Araujo, Allauzen, A dynamical system perspective for Lipschitz neural networks, ICML
    2022, section on convex potential layers.
    """

    def _rescale(self) -> dict[str, Tensor]:
        return {"scale": inverse_or_zero(gram_bound(wide(self.weight)).square()).expand(self.hidden)}


class SandwichLinear(LipschitzLayer):
    """Sandwich layer: y = sqrt(2) A^T Psi relu(sqrt(2) Psi^-1 B x + b) with A A^T + B B^T = I, Psi diagonal.

    [A B], (out, out + in), comes from the Cayley transform; Psi = exp of a free vector, clamped to +-20. Psi cancels in
    the Jacobian 2 A^T D B, 0 <= D <= I. That is an off-diagonal block of M = 2 [A B]^T D [A B], which lies between 0
    and 2 s I with s the squared norm of [A B]; it is also a block of M - s I, so its norm is at most s = 1.

    Source: Wang, Manchester, Direct parameterization of Lipschitz-bounded deep networks, ICML 2023, equation (10)
    and theorem 3.2.
    """

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        check_sizes(in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(nn.init.xavier_normal_(torch.empty(out_features, out_features + in_features)))
        self.bias = uniform_bias(out_features, in_features)
        self.log_psi = nn.Parameter(torch.zeros(out_features))

    def _rescale(self) -> dict[str, Tensor]:
        a, b = cayley(capped(wide(self.weight), CAYLEY_CAP)).split([self.out_features, self.in_features], dim=1)
        psi = wide(self.log_psi).clamp(-MAX_LOG_Q, MAX_LOG_Q).exp()
        return {"inner": math.sqrt(2) * b / psi[:, None], "outer": math.sqrt(2) * a.T * psi, "psi": psi}

    def forward(self, x: Float[Tensor, "*batch i"]) -> Float[Tensor, "*batch o"]:
        """Two matrices with relu between them."""
        check_channels(x, self.in_features, spatial=False)
        tensors = self.rescaled()
        return F.linear(F.linear(x, tensors["inner"], self.bias).relu(), tensors["outer"])

    def upper_bound(self) -> float:
        """Squared norm of [A B]."""
        tensors = self._in_float64()
        psi = tensors["psi"][:, None]
        return matrix_norm(torch.cat((tensors["outer"].T / psi, tensors["inner"] * psi), dim=1)) ** 2 / 2

    def plain(self) -> nn.Module:
        """Two `nn.Linear` with relu between them."""
        tensors = self.rescaled()
        return nn.Sequential(
            frozen_linear(tensors["inner"], self.bias), nn.ReLU(), frozen_linear(tensors["outer"], None)
        )


def capped(matrix: Float[Tensor, "m n"], cap: float) -> Float[Tensor, "m n"]:
    """The matrix, scaled down where a bound on its norm exceeds `cap`; three iterations are exact enough for that."""
    return matrix * (cap / gram_bound(matrix, 3).clamp_min(cap))


def cayley(matrices: Inexact[Tensor, "*batch m n"]) -> Inexact[Tensor, "*batch m n"]:
    """Cayley transform of real or complex matrices; orthonormal columns, or rows if n > m. See `CayleyLinear`."""
    size, columns = matrices.shape[-2:]
    if columns > size:
        return cayley(matrices.mH).mH
    upper, lower = matrices.split([columns, size - columns], dim=-2)
    identity = torch.eye(columns, dtype=matrices.dtype, device=matrices.device)
    inverse = torch.linalg.inv(identity + upper - upper.mH + lower.mH @ lower)
    return torch.cat((2 * inverse - identity, -2 * lower @ inverse), dim=-2)


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
        return x + self.second(self.first(x).relu_())


def frozen_linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A `nn.Linear` that owns copies of the given tensors and does not train."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta", dtype=weight.dtype)
    layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return layer
