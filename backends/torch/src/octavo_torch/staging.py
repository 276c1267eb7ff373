"""A step's inputs in one transfer to the device, and its results in one wait back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from octavo_torch.dtypes import torch_dtype

__all__ = ["Staging"]

_ALIGNMENT = 16  # bytes: kernels read in pieces of this size
_NUM_BUFFERS = 3  # of a step that runs, one that waits behind it, and one that is being filled
_LEAST_BYTES = 1 << 16


@dataclass
class _Buffer:
    """Host memory that a transfer reads, and when it has."""

    memory: torch.Tensor
    read: Any = None  # an event, or None where transfers are not queued

    def wait(self) -> None:
        if self.read is not None:
            self.read.synchronize()


class Staging:
    """Transfers of one device. On the CPU they are plain copies, in the same buffers."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._is_queued = device.type != "cpu"
        self._buffers = [self._make(_LEAST_BYTES) for _ in range(_NUM_BUFFERS)]
        self._next = 0

    def _make(self, num_bytes: int) -> _Buffer:
        return _Buffer(torch.empty(num_bytes, dtype=torch.uint8, pin_memory=self._is_queued))

    def put_all(self, arrays: Sequence[NDArray[Any]]) -> list[torch.Tensor]:
        """Each on the device: parts of one piece of memory, which lives as long as any of them."""
        sizes = [-(-array.nbytes // _ALIGNMENT) * _ALIGNMENT for array in arrays]
        starts = [0, *accumulate(sizes)]
        buffer = self._take(starts[-1])
        host = buffer.memory.numpy()
        for array, start in zip(arrays, starts, strict=False):
            part = host[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
            part[...] = array
        placed = torch.empty(starts[-1], dtype=torch.uint8, device=self._device)
        placed.copy_(buffer.memory[: starts[-1]], non_blocking=True)
        if self._is_queued:
            buffer.read = torch.get_device_module(self._device).Event()
            buffer.read.record()
        return [_part(placed, start, array) for array, start in zip(arrays, starts, strict=False)]

    def _take(self, num_bytes: int) -> _Buffer:
        """The buffer whose turn it is, large enough and read to its end."""
        index = self._next
        self._next = (index + 1) % _NUM_BUFFERS
        self._buffers[index].wait()
        if num_bytes > self._buffers[index].memory.numel():
            self._buffers[index] = self._make(2 * num_bytes)
        return self._buffers[index]

    def fetch(
        self, tensors: Sequence[torch.Tensor], read: Callable[[torch.Tensor], NDArray[Any]]
    ) -> Callable[[], list[NDArray[Any]]]:
        """Begin to copy to the host, behind what is queued; the function waits for just that.

        ``read`` makes a NumPy array of a tensor on the host.
        """
        if not self._is_queued:
            copies = [tensor.clone() for tensor in tensors]
            return lambda: [read(copy) for copy in copies]
        hosts = [torch.empty_like(tensor, device="cpu", pin_memory=True) for tensor in tensors]
        for host, tensor in zip(hosts, tensors, strict=True):
            host.copy_(tensor, non_blocking=True)
        there = torch.get_device_module(self._device).Event()
        there.record()

        def wait() -> list[NDArray[Any]]:
            there.synchronize()
            return [read(host) for host in hosts]

        return wait


def _part(memory: torch.Tensor, start: int, array: NDArray[Any]) -> torch.Tensor:
    """The bytes from ``start`` on as ``array`` has them."""
    dtype = torch_dtype("bool" if array.dtype == np.bool_ else array.dtype.name)
    part = memory[start : start + array.nbytes].view(dtype)
    return part.reshape(array.shape)
