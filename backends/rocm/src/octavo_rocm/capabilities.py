"""What an AMD GPU can do, by its architecture."""

from __future__ import annotations

from octavo.api import Capabilities
from octavo_rocm.architectures import ARCHITECTURES
from octavo_torch.gpu_options import GpuOptions
from octavo_torch.quantized import QUANTIZATION

__all__ = ["capabilities"]

_DTYPES = ("bfloat16", "float16", "float32")
_FLOAT8 = ("float8_e4m3fn", "float8_e5m2")


def capabilities(arch: str, options: GpuOptions) -> Capabilities:
    """Of an architecture in ``ARCHITECTURES``."""
    float8 = _FLOAT8 if ARCHITECTURES[arch].has_float8 else ()
    return Capabilities(
        dtypes=_DTYPES,
        kv_dtypes=(*_DTYPES, *float8, "int8"),
        block_sizes=(16, 32, 64, 128),
        max_head_dim=256,
        sliding_window=True,
        soft_cap=True,
        sinks=True,
        quantization=QUANTIZATION,
        asynchronous=True,
        decode_buckets=options.graph_batch_sizes if options.graphs else (),
        rehearsed=options.graphs and options.graphs_at_start,
        host_swap=True,
        separate_sampling=True,
        int8_scale_bytes=4,
    )
