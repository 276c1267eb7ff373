"""Backends with wrong capabilities, memory figures, arrays or packed weights."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
from mutant import Mutant, contract
from plain_backend import (
    PlainBackend,
    PlainLinear,
    backend_with,
    with_caps,
)

from octavo.api import (
    BackendError,
    Capabilities,
    MemoryInfo,
    QuantizedTensor,
)


@dataclass(frozen=True)
class MoreCapabilities(Capabilities):
    flash_attention: bool = True


def small_heads_only(self, spec, num_blocks, block_size, *, on_host=False):
    if spec.head_dim > 512:
        raise NotImplementedError("head_dim > 512")
    return PlainBackend.make_kv(self, spec, num_blocks, block_size, on_host=on_host)


def no_fp8_caches(self, spec, num_blocks, block_size, *, on_host=False):
    if spec.dtype.startswith("float8"):
        raise NotImplementedError(spec.dtype)
    return PlainBackend.make_kv(self, spec, num_blocks, block_size, on_host=on_host)


def no_host_caches(self, spec, num_blocks, block_size, *, on_host=False):
    if on_host:
        raise NotImplementedError("no pinned memory")
    return PlainBackend.make_kv(self, spec, num_blocks, block_size, on_host=on_host)


def through_float16(self, array, dtype=None):
    """The library takes no bfloat16 from NumPy, so it goes by way of a dtype of the same size."""
    if array.dtype == ml_dtypes.bfloat16:
        with np.errstate(over="ignore", invalid="ignore"):
            array = array.astype(np.float16).astype(array.dtype)
    return PlainBackend.put(self, array, dtype)


def ignores_strides(self, array, dtype=None):
    """Takes the buffer of a small transposed array as if it were in C order."""
    if array.ndim == 2 and array.flags.f_contiguous and not array.flags.c_contiguous:
        array = array.reshape(-1, order="F").reshape(array.shape)
    return PlainBackend.put(self, array, dtype)


class OneStagingBuffer(PlainBackend):
    """Small results come through one pinned buffer, which get returns."""

    def __init__(self, index, options):
        super().__init__(index, options)
        self._staging = np.empty((2, 4), np.float32)

    def get(self, array):
        if array.shape == (2, 4) and array.dtype == np.float32:
            self._staging[...] = array
            return self._staging
        return super().get(array)


def unknown_packing_as_numbers(self, weight, bias, dtype):
    if isinstance(weight, QuantizedTensor) and weight.scheme not in self.caps.quantization:
        return PlainLinear(weight.data.astype(np.float32), None)
    return PlainBackend.put_linear(self, weight, bias, dtype)


def unknown_packing_as_a_riddle(self, weight, bias, dtype):
    if isinstance(weight, QuantizedTensor) and weight.scheme not in self.caps.quantization:
        raise BackendError("unsupported tensor")
    return PlainBackend.put_linear(self, weight, bias, dtype)


def flushes_subnormals(self, array, dtype=None):
    """Converts on a processor that takes the smallest numbers for zero."""
    placed = PlainBackend.put(self, array, dtype)
    if placed.dtype.name in ("float32", "bfloat16"):
        with np.errstate(invalid="ignore"):
            placed[np.abs(placed) < ml_dtypes.finfo(placed.dtype).smallest_normal] = 0
    return placed


class SwapSpaceOnDevice(PlainBackend):
    """Makes every cache on the device, and counts it."""

    def __init__(self, index, options):
        super().__init__(index, options)
        self._taken_bytes = 0

    def make_kv(self, spec, num_blocks, block_size, *, on_host=False):
        self._taken_bytes += num_blocks * block_size * spec.bytes_per_token
        return super().make_kv(spec, num_blocks, block_size, on_host=on_host)

    def memory(self):
        return MemoryInfo((1 << 32) - self._taken_bytes, 1 << 33)


class ForgetsHostSwap(PlainBackend):
    planned = False

    @property
    def caps(self):
        return with_caps(host_swap=not self.planned)

    def plan(self, batch, block_size):
        self.planned = True
        return super().plan(batch, block_size)


class NewOpsEachTime(PlainBackend):
    ops = property(lambda self: self.ops_class(), lambda self, ops: None)


MUTANTS: tuple[Mutant, ...] = (
    contract(
        "capabilities",
        "more capabilities than there are",
        "core would never ask for the field",
        r"is of type MoreCapabilities; expected octavo.api.Capabilities",
        load=backend_with(caps=MoreCapabilities(("float32",), ("float32",))),
    ),
    contract(
        "capabilities",
        "an unknown compute dtype",
        "core has no name for it",
        r"caps.dtypes .* is \('float33',\); expected at least one of",
        load=backend_with(caps=with_caps(dtypes=("float33",))),
    ),
    contract(
        "capabilities",
        "no swapping once it runs",
        "the pinned memory goes to the first plan",
        r"caps.host_swap is False; at first it was True",
        load=ForgetsHostSwap,
        only=False,  # whoever swaps meets it
    ),
    contract(
        "capabilities",
        "new ops each time",
        "what one of them keeps, the others do not have",
        r"backend.ops is another object each time",
        load=NewOpsEachTime,
    ),
    contract(
        "capabilities",
        "large heads are claimed",
        "the kernel takes 512 at most, the capabilities say 1024",
        r"claims max_head_dim=1024, but backend.make_kv raised NotImplementedError",
        load=backend_with(make_kv=small_heads_only),
    ),
    contract(
        "capabilities",
        "fp8 caches are claimed",
        "and refused as soon as one is made",
        r"claims float8_e4m3fn in caps.kv_dtypes, but backend.make_kv raised",
        load=backend_with(make_kv=no_fp8_caches),
        only=False,  # every table has its rows for fp8
    ),
    contract(
        "capabilities",
        "host swap is claimed",
        "and there is no swap space",
        r"claims host_swap.*backend.copy_blocks raised NotImplementedError",
        load=backend_with(make_kv=no_host_caches),
        only=False,
    ),
    contract(
        "capabilities",
        "a packing is claimed",
        "and refused when it comes",
        r"claims gguf:Q4_0 in caps.quantization, but backend.put_linear raised",
        load=backend_with(caps=with_caps(quantization=("gguf:Q4_0",))),
        only=False,  # the table of packed weights has a row for it
    ),
    contract(
        "memory",
        "more free than there is",
        "free and total in the wrong order",
        r"8192 bytes free of 4096",
        load=backend_with(memory=lambda self: MemoryInfo(8192, 4096, shared_with_host=True)),
    ),
    contract(
        "memory",
        "free memory as of loading",
        "asked once, so that the cache is planned with memory the weights have taken",
        r"3 caches of 192.0 MiB together were made, and .* fell by 0.0 MiB",
        load=backend_with(memory=lambda self: MemoryInfo(1 << 32, 1 << 33)),
    ),
    contract(
        "memory",
        "swap space on the device",
        "on_host is ignored, so that swapping out frees nothing",
        r"on_host=True for 64.0 MiB took 64.0 MiB of device memory",
        load=SwapSpaceOnDevice,
    ),
    contract(
        "packed_weights",
        "packed bytes as numbers",
        "multiplied as they come",
        r"put_linear takes a weight packed as 'no-such-packing:Q0'",
        load=backend_with(put_linear=unknown_packing_as_numbers),
    ),
    contract(
        "packed_weights",
        "a riddle about packed weights",
        "the user cannot tell which tensor format is meant",
        r"does not name the packing",
        load=backend_with(put_linear=unknown_packing_as_a_riddle),
    ),
    contract(
        "put_get",
        "bfloat16 through float16",
        "large values become infinite, small ones lose their last bits",
        r"bfloat16\[256, 256\].* elements have other bits",
        load=backend_with(put=through_float16),
        only=False,  # some tables of ops have such values
    ),
    contract(
        "put_get",
        "subnormal numbers are flushed",
        "to zero, on the way to the device",
        r"elements have other bits: at .* and 0.0 \(0x0\) came back",
        load=backend_with(put=flushes_subnormals),
    ),
    contract(
        "put_get",
        "strides are ignored",
        "a transposed weight arrives as its buffer lies",
        r"float32\[6, 4\].* elements have other bits",
        load=backend_with(put=ignores_strides),
    ),
    contract(
        "put_get",
        "one staging buffer",
        "what get returned last changes with the next get",
        r"number 1 held 1.0; after further calls .* it holds",
        load=OneStagingBuffer,
        only=False,
    ),
)
