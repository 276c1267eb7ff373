"""The backend contract: what a plugin registers, probes and loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from octavo.batch import StepBatch
    from octavo.kv import KVSpec
    from octavo.loading.tensors import QuantizedTensor
    from octavo.ops.protocol import Array, Cache, LinearWeight, Ops
    from octavo.splits import SplitAxis

__all__ = [
    "Backend",
    "BulkTransfers",
    "CacheMeter",
    "Capabilities",
    "MemoryInfo",
    "MemoryMeter",
    "Preparable",
    "ProcessGroup",
    "Readiness",
    "WeightShards",
]


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do; conservative defaults, so that leaving one out is never a lie."""

    dtypes: tuple[str, ...]
    """Compute dtypes by name, the preferred one first."""
    kv_dtypes: tuple[str, ...]
    """Dtypes a cache may be stored in, the preferred one first."""
    block_sizes: tuple[int, ...] = (16, 32)
    """Tokens per block that the attention kernels take, the preferred one first."""
    max_head_dim: int = 256
    sliding_window: bool = False
    soft_cap: bool = False
    sinks: bool = False
    quantization: tuple[str, ...] = ()
    """Weight schemes ``put_linear`` takes as they are; core dequantises all others first."""
    asynchronous: bool = False
    """Steps are queued: ``get`` is where the host waits. Octavo then launches a step before it has
    read the one before it; see also ``BulkTransfers.fetch``."""
    token_buckets: tuple[int, ...] = ()
    """Padded token counts that ``compile`` wants; empty means exact shapes."""
    seq_buckets: tuple[int, ...] = ()
    """Padded sequence counts; empty means exact shapes."""
    decode_buckets: tuple[int, ...] = ()
    """Padded counts for steps in which every sequence has one token, tokens and sequences alike,
    as graphs want them; up to the largest. All other steps keep their shapes."""
    collectives: tuple[str, ...] = ()
    batch_invariant: bool = False
    """A request's logits are the same to the last bit alone and in any batch, whoever came first,
    wherever its blocks lie, and whether its prompt was computed at once, cut into chunks at any
    token, or found in the prefix cache, and the request preempted, swapped or forked on the way.

    So what an op computes for one token may depend on that token and its sequence only: a matrix
    product must not choose its order of summation by the number of rows, nor attention by the
    number of queries, sequences or cached blocks."""
    host_swap: bool = False
    """``make_kv(..., on_host=True)`` and ``copy_blocks`` between host and device work."""
    separate_sampling: bool = False
    """``compile`` takes the parts of a step as well: functions whose first two parameters may be ()
    where weights and caches stand, and whose others are arrays and dataclasses of them. The masks
    of grammars are then computed on the host while the device runs the forward pass. With
    ``token_buckets`` too, no whole step is ever compiled or run."""
    int8_scale_bytes: int = 0
    """What an int8 cache keeps beside the codes of one token and head, for its keys and as much for
    its values: 4 for a scale in float32. Octavo plans caches with it."""
    rehearsed: bool = False
    """Before it serves, Octavo runs steps of padding in each shape of ``decode_buckets``, or of
    ``token_buckets`` and ``seq_buckets``, that can come about, each twice: so that what is compiled
    or recorded for it is there. What can be ``Preparable`` is prepared in place of that, for all
    that sampling may ask for besides. See also ``Readiness.ready``."""
    reads_weights: bool = True
    """False for a device that computes nothing and looks at a weight's shape and dtype only: Octavo
    reads no weight then, and hands over arrays of the right shape that take no memory."""


@dataclass(frozen=True)
class MemoryInfo:
    """Device memory in bytes at the time of asking."""

    free_bytes: int
    total_bytes: int
    shared_with_host: bool = False
    """The device uses the host's own memory, so Octavo leaves half of what is free by default."""


class Backend(Protocol):
    """A loaded backend: one plain object per device, several may live in one process.

    The process is not the backend's: probing, loading and serving leave its settings alone (random
    state, warnings, signals, working directory, variables), and print nothing on standard output.
    """

    @property
    def caps(self) -> Capabilities:
        """What this backend can do, frozen: the same for each load on a device, at any time."""
        ...

    @property
    def ops(self) -> Ops:
        """The op set, bound once at load."""
        ...

    def memory(self) -> MemoryInfo:
        """Device memory, now."""
        ...

    def put(self, array: NDArray[Any], dtype: str | None = None) -> Array:
        """Host NumPy to device, converted to ``dtype`` where given; may share memory.

        The array may have any strides and be read-only; its byte order is the machine's own.
        """
        ...

    def get(self, array: Array) -> NDArray[Any]:
        """Device to host NumPy; waits for the device. No later call changes what it returned."""
        ...

    def put_linear(
        self,
        weight: NDArray[Any] | QuantizedTensor | Array,
        bias: NDArray[Any] | None,
        dtype: str,
    ) -> LinearWeight:
        """Prepare a weight ``[out_features, in_features]`` for ``ops.linear``.

        ``weight`` is a host array, a quantised tensor of a scheme in ``caps.quantization``, or an
        array made by ``put`` (a tied embedding: share it, do not copy, where possible).
        """
        ...

    def make_kv(
        self, spec: KVSpec, num_blocks: int, block_size: int, *, on_host: bool = False
    ) -> Cache:
        """An empty cache for one layer, opaque; ``on_host`` makes the swap space for it.

        Swap space takes the host's memory, none of the device's.
        """
        ...

    def copy_blocks(self, src: Cache, dst: Cache, pairs: NDArray[np.int32]) -> Cache:
        """Copy blocks ``pairs[i] = (from block in src, to block in dst)``; returns the new ``dst``.

        ``src`` and ``dst`` may be the same cache (forks); either may be on the host (swap).
        The sets of source and destination blocks are disjoint within one cache.
        """
        ...

    def plan(self, batch: StepBatch, block_size: int) -> Sequence[Any]:
        """Attention metadata from the host batch, once a step: one per KV group."""
        ...

    def compile(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Identity, CUDA graphs or ``jax.jit``; the only place that knows."""
        ...

    def close(self) -> None:
        """Release the device. The backend must not be used afterwards."""
        ...


Options = Mapping[str, Any]
"""What plugins.toml and the caller say; read-only."""

LoadFunction = Callable[[int, Options], Backend]


class Readiness(Protocol):
    """What a backend may offer besides, where requests should not wait for what it compiles."""

    def ready(self) -> None:
        """Everything is loaded and rehearsed: from now on requests wait for each step."""
        ...


class Preparable(Protocol):
    """What ``Backend.compile`` may return, where compiling is to be done without a step."""

    def __call__(self, *arguments: Any) -> Any:
        """Run the step, or the part of one."""
        ...

    def prepare(self, *arguments: Any) -> Any:
        """Compile it for arguments like these, which stay as they are.

        Returns what ``__call__`` would, with something that has the shape and the dtype in place of
        each array; and takes such things itself, for arrays that are not there yet.
        """
        ...

    def release(self) -> None:
        """Let go of weights that it was called with, and keep what is compiled: others come."""
        ...


class BulkTransfers(Protocol):
    """What a backend may offer besides, where each transfer has its price: both or neither."""

    def put_all(self, arrays: Sequence[NDArray[Any]]) -> Sequence[Array]:
        """As ``put`` of each: a step's inputs, in one transfer.

        ``plan`` may then leave arrays of its dataclasses on the host: they are put with the others,
        and one that is in several places once.
        """
        ...

    def fetch(self, arrays: Sequence[Array]) -> Callable[[], Sequence[NDArray[Any]]]:
        """Begin to bring arrays to the host, behind all that is queued now and before what comes.

        The function that is returned waits for just these and has them as ``get`` would; nothing
        that is queued later changes them.
        """
        ...


class MemoryMeter(Protocol):
    """What a backend may offer besides, where the device's memory is its own."""

    def peak_bytes(self, run: Callable[[], object]) -> int:
        """Call ``run``, wait for the device, and say what it took at the most.

        That is: the most bytes that were in use meanwhile, less those that were before. Octavo runs
        the largest step so, and gives the cache what it leaves free.
        """
        ...


class CacheMeter(Protocol):
    """What a backend may offer besides, where its caches take more than their numbers do."""

    def kv_bytes_per_token(self, spec: KVSpec) -> int:
        """Of one layer of ``make_kv(spec, ...)``, on the device: padding and scales included.

        Octavo plans caches with it. Without it a token takes what its numbers do, and
        ``caps.int8_scale_bytes``.
        """
        ...


class ProcessGroup(Protocol):
    """What a backend has besides where the devices of a group may belong to several processes.

    Each process loads the same model on its own devices. The first takes requests and tells the
    others what it runs (``octavo.relay``), in order. Steps are then launched one by one, and
    blocks stay on the device: ``caps`` claims neither ``asynchronous`` and ``separate_sampling``
    nor ``host_swap``.
    """

    num_processes: int
    process_index: int

    def send(self, message: bytes) -> None:
        """From the first process to all others; need not wait for them."""
        ...

    def receive(self) -> bytes:
        """In another process: the next message, however long it takes."""
        ...


class WeightShards(Protocol):
    """What a backend offers besides where its ``BackendSpec.tensor_parallel`` is set.

    ``load`` then gets the option ``tensor_parallel_size``, a number of devices from the index on.
    Each runs the same step over its part: the model has the heads of one device, ``make_kv`` is
    told the KV heads that one device keeps, ``memory`` is that of the device with the least, and
    what ``put`` and ``put_linear`` are given is on every device. A process that drives one device
    of a group keeps its own division of what it is handed here.
    """

    def put_vector_shards(self, vector: NDArray[Any], dtype: str | None = None) -> Array:
        """The weight of an ``rms_norm`` over features that are divided: equal divisions in order.

        That op then takes the mean over the features of all devices.
        """
        ...

    def put_linear_shards(
        self,
        weight: NDArray[Any] | QuantizedTensor,
        bias: NDArray[Any] | None,
        dtype: str,
        axis: SplitAxis,
    ) -> LinearWeight:
        """``put_linear`` of equal divisions in order, one to a device.

        ``out``: rows of the weight and entries of the bias. ``in``: columns; ``ops.linear`` sums
        the products over the devices and then adds the bias, once.
        """
        ...
