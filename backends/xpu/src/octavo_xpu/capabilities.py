"""What an Intel GPU can do, by what torch says of it."""

from __future__ import annotations

from typing import Any

from octavo.api import Capabilities
from octavo_torch.gpu_options import GpuOptions
from octavo_torch.quantized import QUANTIZATION

__all__ = ["capabilities"]


def capabilities(properties: Any, options: GpuOptions) -> Capabilities:
    """``properties`` are torch's.

    float16 is everywhere, bfloat16 where it is converted in hardware: a generation without matrix
    units computes it in software. Eight-bit floats are not claimed: no generation that torch serves
    converts both kinds.
    """
    dtypes: tuple[str, ...] = ("float16", "float32")
    if properties.has_bfloat16_conversions:
        dtypes = ("bfloat16", *dtypes)
    return Capabilities(
        dtypes=dtypes,
        kv_dtypes=(*dtypes, "int8"),
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
