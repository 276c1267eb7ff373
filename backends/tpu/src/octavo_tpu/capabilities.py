"""What JAX does on any platform, and the shapes that it is to compile."""

from __future__ import annotations

from octavo.api import Capabilities
from octavo_tpu.options import JaxOptions

__all__ = ["capabilities"]

_DTYPES = ("bfloat16", "float32", "float16")
_BLOCK_SIZES = (16, 32, 64, 128)
_TPU_BLOCK_SIZES = (128, 64, 32, 16)  # large copies, and a short block table in scalar memory
_CPU_DTYPES = ("float32", "bfloat16", "float16")
_CPU_DECODES = (1,)  # elsewhere more rows cost no more
_TPU_DTYPES = ("bfloat16", "float32")  # of what the kernels there keep in caches
_FLOAT8 = ("float8_e4m3fn", "float8_e5m2")
_NEURON_FLOAT8 = ("float8_e5m2",)  # AWS's documentation: its other one is float8_e4m3


def capabilities(options: JaxOptions) -> Capabilities:
    """A CPU computes in float32 what it is given, so that comes first there."""
    dtypes = {"cpu": _CPU_DTYPES, "tpu": _TPU_DTYPES}.get(options.device_kind, _DTYPES)
    float8 = _NEURON_FLOAT8 if options.device_kind == "neuron" else _FLOAT8
    return Capabilities(
        dtypes=dtypes,
        kv_dtypes=(*dtypes, *float8, "int8"),
        block_sizes=_TPU_BLOCK_SIZES if options.device_kind == "tpu" else _BLOCK_SIZES,
        max_head_dim=256,
        sliding_window=True,
        soft_cap=True,
        sinks=True,
        asynchronous=True,
        token_buckets=options.token_buckets,
        seq_buckets=options.seq_buckets,
        decode_buckets=_CPU_DECODES if options.device_kind == "cpu" else (),
        host_swap=True,
        separate_sampling=True,
        int8_scale_bytes=4,
        rehearsed=options.compile_at_start,
    )
