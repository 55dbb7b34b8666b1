"""What the Lipschitz layers share: rescaled weights, computed at every training step and cached for evaluation."""

import contextlib
import math
from typing import Any

import torch
from torch import Tensor, nn

HALF = (torch.float16, torch.bfloat16)


class LipschitzLayer(nn.Module):
    """A layer with a bound from above on its L2 Lipschitz constant that holds whatever its parameters are.

    A subclass writes `_rescale`, which turns its free parameters into the tensors that its forward pass uses. In
    training mode this happens at every forward pass, with gradients. In evaluation mode it happens once, without
    gradients, so parameters receive none; to train with frozen dropout or the like, keep this layer in train mode.

    The cache is dropped by `train()`, `eval()`, `load_state_dict`, and moves to another device or dtype, and it is
    not used once a parameter has changed in place. Only `parameter.data.mul_(...)` goes unseen, because `.data`
    bypasses PyTorch's own version counter: write `with torch.no_grad(): parameter.mul_(...)`.
    """

    _cache: tuple[Any, dict[str, Tensor]] | None = None

    def _rescale(self) -> dict[str, Tensor]:
        raise NotImplementedError

    def _cache_key(self) -> Any:
        """What has to be unchanged for cached tensors to be right."""
        return [(p._version, p.data_ptr(), id(p)) for p in self.parameters(recurse=False)]

    def rescaled(self) -> dict[str, Tensor]:
        """The tensors that the forward pass uses, of the parameters' dtype, computed in float32 or float64."""
        if self.training or torch.compiler.is_compiling():
            return self._in_full_precision()
        key = self._cache_key()
        if self._cache is None or self._cache[0] != key:
            # tensors made in inference mode could not be used later by an attack, which needs gradients of x
            with torch.inference_mode(False), torch.no_grad():
                self._cache = key, self._in_full_precision()
        return self._cache[1]

    def _in_full_precision(self) -> dict[str, Tensor]:
        some = next(self.parameters(recurse=False))
        kind = some.device.type
        known = torch.amp.is_autocast_available(kind)  # not on "meta", where autocast would raise an error
        with torch.autocast(kind, enabled=False) if known else contextlib.nullcontext():
            tensors = self._rescale()
        return {name: t.to(some.dtype) if some.dtype in HALF else t for name, t in tensors.items()}

    def _in_float64(self) -> dict[str, Tensor]:
        """The tensors of `rescaled`, without gradients, for computing a bound."""
        return {name: tensor.detach().double() for name, tensor in self.rescaled().items()}

    def upper_bound(self) -> float:
        """Bound from above on the L2 Lipschitz constant at the present parameters, computed in float64.

        It is computed from the tensors that the forward pass uses, so it includes their rounding, in float32 about
        1e-6, but not the rounding of the forward pass itself.
        """
        raise NotImplementedError

    def plain(self) -> nn.Module:
        """A network of standard PyTorch layers with frozen weights and the same outputs."""
        raise NotImplementedError

    def drop_cache(self) -> None:
        """Forget the cached tensors; needed only after writing to `parameter.data`."""
        self._cache = None

    def train(self, mode: bool = True) -> "LipschitzLayer":
        """Switch between training and evaluation mode, and drop the cache."""
        self.drop_cache()
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> "LipschitzLayer":
        self.drop_cache()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.drop_cache()
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_cache"}


def wide(tensor: Tensor) -> Tensor:
    """Half precision as float32, anything else as it is: Gram matrices in bf16 would be wrong in the third digit."""
    return tensor.float() if tensor.dtype in HALF else tensor


def inverse_or_zero(values: Tensor) -> Tensor:
    """1 / values where values are positive, and 0, with zero gradient, where they are 0.

    What is below 1e-24 (float32) counts as 0: there the products that make up a Gram matrix have underflowed, and
    the hidden unit or column they belong to is left out, which never increases a norm.
    """
    info = torch.finfo(values.dtype)
    used = values > info.tiny / info.eps**2
    return torch.where(used, torch.where(used, values, 1).reciprocal(), 0)


def check_sizes(**sizes: int) -> None:
    """Raise ValueError unless every given number is a positive integer, and a kernel size also odd."""
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"{name} is {size}; it has to be a positive integer")
        if name == "kernel_size" and size % 2 == 0:
            raise ValueError(f"kernel_size is {size}; an even kernel has no middle: use {size - 1} or {size + 1}")


def check_channels(x: Tensor, channels: int, spatial: bool) -> None:
    """Raise ValueError unless x is (n, channels, h, w), or (..., channels) for dense layers (spatial=False)."""
    expected = f"(n, {channels}, h, w)" if spatial else f"(..., {channels})"
    if (spatial and x.ndim != 4) or x.ndim == 0:
        raise ValueError(f"x has shape {tuple(x.shape)}; this layer takes {expected}")
    found = x.shape[1] if spatial else x.shape[-1]
    if found != channels:
        fix = "; flatten it first: x.flatten(1)" if not spatial and x.ndim == 4 else "; check the layer before"
        raise ValueError(f"x has shape {tuple(x.shape)}, so {found} channels; this layer takes {expected}{fix}")


def uniform_bias(size: int, fan_in: int) -> nn.Parameter:
    """A bias drawn as PyTorch's own layers draw it, from [-1, 1] / sqrt(fan_in)."""
    return nn.Parameter(torch.empty(size).uniform_(-1, 1) / math.sqrt(fan_in))
