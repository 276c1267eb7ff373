"""What every backend on torch has alike: arrays there and back, weights, caches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from octavo.api import PortableLinear, QuantizedTensor
from octavo_torch.caches import TorchCache, copy_blocks, make_cache
from octavo_torch.dtypes import numpy_dtype, torch_dtype
from octavo_torch.ops import TorchOps
from octavo_torch.plan import TorchPlan, make_plans
from octavo_torch.quantized import QuantizedLinear, prepare

if TYPE_CHECKING:
    from octavo.api import Capabilities, KVSpec, StepBatch

__all__ = ["TorchBackend"]

Array: TypeAlias = Any  # a torch.Tensor
_HOST = torch.device("cpu")
_BITS = {1: np.uint8, 2: np.uint16}


class TorchBackend:
    """``octavo.api.Backend`` on one torch device; a subclass says which, and its capabilities."""

    caps: Capabilities

    def __init__(self, device: torch.device, options: Mapping[str, Any]) -> None:
        del options
        self.device = device
        self.ops = self.make_ops()

    def make_ops(self) -> TorchOps:
        """The op set for ``self.device``; a GPU's backend makes one with kernels."""
        return TorchOps()

    def put(self, array: NDArray[Any], dtype: str | None = None) -> Array:
        """The array on the device, converted to ``dtype`` there."""
        name = array.dtype.name
        array = np.asarray(array, order="C")  # ascontiguousarray makes 0-d arrays 1-d
        if not array.flags.writeable:
            array = array.copy()
        if name in {"bfloat16", "float8_e4m3fn", "float8_e5m2"}:
            bits = array.view(_BITS[array.itemsize])
            tensor = torch.from_numpy(bits).view(torch_dtype(name))
        else:
            tensor = torch.from_numpy(array)
        return tensor.to(self.device, None if dtype is None else torch_dtype(dtype))

    def get(self, array: Array) -> NDArray[Any]:
        """The tensor in host memory."""
        tensor = array.detach().cpu()
        name = str(tensor.dtype).removeprefix("torch.")
        if name in {"bfloat16", "float8_e4m3fn", "float8_e5m2"}:
            bits = torch.uint8 if tensor.itemsize == 1 else torch.uint16
            host: NDArray[Any] = tensor.view(bits).numpy().copy().view(numpy_dtype(name))
        else:
            host = tensor.numpy().copy()
        return host

    def put_linear(
        self,
        weight: NDArray[Any] | QuantizedTensor | Array,
        bias: NDArray[Any] | None,
        dtype: str,
    ) -> PortableLinear | QuantizedLinear:
        """The weight as checkpoints store it, or packed; one that ``put`` made is shared."""
        if isinstance(weight, QuantizedTensor):
            return prepare(weight, bias, dtype, self.put)
        placed = self.put(weight, dtype) if isinstance(weight, np.ndarray) else weight
        return PortableLinear(placed, None if bias is None else self.put(bias, dtype))

    def make_kv(
        self, spec: KVSpec, num_blocks: int, block_size: int, *, on_host: bool = False
    ) -> TorchCache:
        """Zeros; on the host in memory that a device copies from and to by itself, if it can."""
        if not on_host:
            return make_cache(spec, num_blocks, block_size, self.device)
        pinned = self.device.type != "cpu"
        return make_cache(spec, num_blocks, block_size, _HOST, pinned=pinned)

    def copy_blocks(self, src: TorchCache, dst: TorchCache, pairs: NDArray[np.int32]) -> TorchCache:
        """Copy blocks in place in ``dst``."""
        return copy_blocks(src, dst, pairs)

    def plan(self, batch: StepBatch, block_size: int) -> Sequence[TorchPlan]:
        """One for each KV group."""
        return make_plans(batch, block_size, self.put)

    def compile(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """The step as it is."""
        return step

    def close(self) -> None:
        """Nothing to release."""
