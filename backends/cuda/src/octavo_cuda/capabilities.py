"""What an NVIDIA GPU can do, by its compute capability."""

from __future__ import annotations

from octavo.api import Capabilities
from octavo_torch.gpu_options import GpuOptions
from octavo_torch.quantized import QUANTIZATION

__all__ = ["capabilities"]

_BFLOAT16 = (8, 0)
_FLOAT8 = (8, 9)


def capabilities(capability: tuple[int, int], options: GpuOptions) -> Capabilities:
    """Before Ampere there is no bfloat16, and before Ada no conversion from and to float8."""
    dtypes = (
        ("bfloat16", "float16", "float32") if capability >= _BFLOAT16 else ("float16", "float32")
    )
    float8 = ("float8_e4m3fn", "float8_e5m2") if capability >= _FLOAT8 else ()
    return Capabilities(
        dtypes=dtypes,
        kv_dtypes=(*dtypes, *float8, "int8"),
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
