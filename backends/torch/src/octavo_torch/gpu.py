"""What backends on GPUs share. torch drives NVIDIA's and AMD's under the name of ``cuda``."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from octavo.api import DeviceError, MemoryInfo
from octavo_torch.backend import TorchBackend
from octavo_torch.caches import TorchCache, block_parts
from octavo_torch.gpu_options import GpuOptions
from octavo_torch.graphs import CaptureApi, GraphedFunction, TorchCapture
from octavo_torch.ops import TorchOps
from octavo_torch.plan import TorchPlan, make_plans
from octavo_torch.staging import Staging

if TYPE_CHECKING:
    from octavo.api import StepBatch

__all__ = ["GpuBackend"]

Array: TypeAlias = Any  # a torch.Tensor
_LOG = logging.getLogger(__name__)


class GpuBackend(TorchBackend):
    """``octavo.api.Backend`` on one GPU: graphs for decodes, transfers that nobody waits for.

    What is queued goes to the thread's current device, and whoever calls may have another one, or
    another engine: so each call makes its own the current one. A subclass sets ``caps``.
    """

    torch_kind: ClassVar[str] = "cuda"
    """What torch calls such devices, and the module that it has for them."""

    def __init__(self, kind: str, index: int, options: GpuOptions) -> None:
        """``kind`` is Octavo's name for the device, ``index`` torch's number.

        ``self.options`` are the options as they can be kept: without graphs, where the ops that
        serve cannot be captured.
        """
        self._module: Any = getattr(torch, self.torch_kind)
        count = self._module.device_count()
        if not 0 <= index < count:
            there_is = ", ".join(f"{kind}:{each}" for each in range(count)) or "none"
            raise DeviceError(f"There is no device {kind}:{index}; torch sees {there_is}.")
        device = torch.device(self.torch_kind, index)
        self._module.set_device(device)
        super().__init__(device, {})
        self.options = options
        if self.ops.reads_host_plan:
            self._run_without_graphs("Triton is not installed, and torch's ops are not recorded")
        self._staging = Staging(device)
        self._capture = self.make_capture() if self.options.graphs else None

    def make_capture(self) -> CaptureApi:
        """What captures graphs on ``self.device``."""
        return TorchCapture(self.device)

    def make_ops(self) -> TorchOps:
        """Kernels, where Triton is installed."""
        if find_spec("triton") is None:
            return TorchOps()
        from octavo_torch.triton_ops import TritonOps

        return TritonOps()

    def leave_graphs(self) -> None:
        """Run all as it comes: for attention that goes by the host's numbers."""
        self._run_without_graphs("the attention that was asked for is not recorded")
        self._capture = None

    def _run_without_graphs(self, reason: str) -> None:
        if self.options.graphs:
            _LOG.warning(
                "Decodes run without graphs: %s. graphs = false in plugins.toml asks for that.",
                reason,
            )
        self.options = replace(self.options, graphs=False)

    def memory(self) -> MemoryInfo:
        """What the driver has free, and what torch's allocator keeps ready."""
        gpu = self._module
        free_bytes, total_bytes = gpu.mem_get_info(self.device)
        kept = gpu.memory_reserved(self.device) - gpu.memory_allocated(self.device)
        return MemoryInfo(free_bytes + kept, total_bytes)

    def peak_bytes(self, run: Callable[[], object]) -> int:
        """What torch's allocator had to get at the most, and what libraries took beside it."""
        gpu = self._module
        gpu.synchronize(self.device)
        gpu.empty_cache()
        used = gpu.memory_allocated(self.device)
        outside = self._outside_bytes()
        gpu.reset_peak_memory_stats(self.device)
        run()
        gpu.synchronize(self.device)
        peak = gpu.max_memory_allocated(self.device) - used
        beside = max(0, self._outside_bytes() - outside)
        gpu.empty_cache()
        return int(peak + beside)

    def _outside_bytes(self) -> int:
        """In use on the device, by whomever, but not by torch's allocator."""
        free_bytes, total_bytes = self._module.mem_get_info(self.device)
        return int(total_bytes - free_bytes - self._module.memory_reserved(self.device))

    def put_all(self, arrays: Sequence[NDArray[Any]]) -> list[Array]:
        """A step's inputs in one transfer that the host does not wait for."""
        with self._module.device(self.device):
            return self._staging.put_all(arrays)

    def fetch(self, arrays: Sequence[Array]) -> Callable[[], list[NDArray[Any]]]:
        """Results on their way; the function waits for them alone."""
        with self._module.device(self.device):
            return self._staging.fetch(arrays, self.get)

    def copy_blocks(self, src: TorchCache, dst: TorchCache, pairs: NDArray[np.int32]) -> TorchCache:
        """In place in ``dst``, in the order of what is queued; the host does not wait.

        The kernel reads and writes pinned memory of the host's as it does the device's.
        """
        if find_spec("triton") is None or not len(pairs):
            return super().copy_blocks(src, dst, pairs)
        from octavo_torch.kernels.copy_blocks import copy_blocks

        from_blocks, to_blocks = self.put_all(list(np.ascontiguousarray(pairs.T)))
        with self._module.device(self.device):
            for source, target in zip(block_parts(src), block_parts(dst), strict=True):
                copy_blocks(source, target, from_blocks, to_blocks)
        return dst

    def plan(self, batch: StepBatch, block_size: int) -> Sequence[TorchPlan]:
        """One for each KV group, its arrays on the host: ``put_all`` moves them."""
        return make_plans(batch, block_size, lambda array: array)

    def compile(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Graphs for decodes alone, all else as it comes."""
        function = torch.no_grad()(step)
        if self._capture is not None:
            sizes, most = self.options.graph_batch_sizes, self.options.max_graphs
            function = GraphedFunction(function, self._capture, sizes, most)

        @functools.wraps(step)
        def on_device(*arguments: Any, **named: Any) -> Any:
            with self._module.device(self.device):
                return function(*arguments, **named)

        return on_device

    def close(self) -> None:
        """Wait for what is queued, and give back what torch's allocator keeps."""
        self._module.synchronize(self.device)
        self._module.empty_cache()
