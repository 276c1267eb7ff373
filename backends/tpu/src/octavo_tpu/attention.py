"""What serves attention on TPUs, by name: for ``--attention-backend`` and plugins.toml.

Only names and reasons are here; kernels are imported when one of them is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from octavo.api import API_VERSION, AttentionSpec, DeviceError

if TYPE_CHECKING:
    from octavo.api import Backend

__all__ = ["ATTENTION_SPECS"]

_OPS = ("write_kv", "paged_attention")
_DTYPE = "bfloat16"  # reasons are of sizes: any dtype tells them


def _load_pallas(backend: Backend) -> Mapping[str, Callable[..., Any]]:
    _keep_rows(backend)
    from octavo_tpu.kernels import ops

    return {"write_kv": ops.write_kv, "paged_attention": ops.paged_attention}


def _load_ragged(backend: Backend) -> Mapping[str, Callable[..., Any]]:
    _keep_rows(backend)
    from octavo_tpu.kernels import ops

    return {"write_kv": ops.write_kv, "paged_attention": ops.ragged_attention}


def _keep_rows(backend: Any) -> None:
    """Have the backend make the caches that the kernels read; they run on TPUs alone."""
    if backend.device.platform != "tpu":
        raise DeviceError(
            f"it runs on TPUs, and this device is of platform {backend.device.platform!r}: use "
            "--device tpu."
        )
    backend.keeps_rows = True


def _supports_pallas(model: Any) -> str | None:
    kinds = {spec.kind for spec in model.kv_specs(_DTYPE)} - {"full", "sliding"}
    return f"it keeps no cache of kind {kinds.pop()!r}" if kinds else None


def _supports_ragged(model: Any) -> str | None:
    for spec in model.kv_specs(_DTYPE):
        if spec.head_dim != 128:
            return f"it takes heads of 128 features, not of {spec.head_dim}"
    return _supports_pallas(model)


ATTENTION_SPECS = (
    AttentionSpec(
        "pallas",
        "jax",
        _OPS,
        _load_pallas,
        _supports_pallas,
        API_VERSION,
        "Octavo's own TPU kernels: prefill and decode in one launch, all caches",
    ),
    AttentionSpec(
        "ragged",
        "jax",
        _OPS,
        _load_ragged,
        _supports_ragged,
        API_VERSION,
        "JAX's own TPU kernel: causal, heads of 128 features, no sinks, no int8",
    ),
)
"""For a plugin's ``octavo_register_attention``: the first that can should serve a TPU."""
