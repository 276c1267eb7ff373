"""What may serve attention on Intel GPUs beside what ``octavo_torch`` brings; imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any

from octavo.api import API_VERSION, AttentionSpec, BackendError
from octavo_torch.attention_providers import with_attention

__all__ = ["attention_specs"]

Functions = Mapping[str, Callable[..., Any]]

_OLDEST = (0, 1, 12)
"""Of vllm-xpu-kernels: from here on kernels go by a cache's strides, however many rows it has."""

_IPEX_REASON = (
    "on Intel GPUs the extension's paged attention reads caches of two other layouts ([blocks, "
    "kv_heads, head_dim / x, block, x] for decodes, [blocks, block, kv_heads, head_dim] for "
    "prompts) than Octavo's [blocks, kv_heads, block, head_dim]; it serves CPUs: --device cpu "
    "--backend torch --attention-backend ipex"
)


def attention_specs() -> Iterator[AttentionSpec]:
    """For the backend ``xpu``."""
    yield AttentionSpec(
        name="vllm-xpu-kernels",
        backend="xpu",
        ops=("write_kv", "paged_attention", "rope_attend"),
        load=_load_vllm,
        supports=_vllm_refusal,
        api_version=API_VERSION,
        summary="vLLM's SYCL kernels, for Xe2 and later; what they have none for, and steps in "
        "graphs, stay with the backend's own",
    )
    yield AttentionSpec(
        name="ipex",
        backend="xpu",
        ops=("paged_attention",),
        load=_refuse_ipex,
        supports=lambda _model: None,
        api_version=API_VERSION,
        summary="Intel's extension for PyTorch, which ended with 2.8",
    )


def _load_vllm(backend: Any) -> Functions:
    if find_spec("vllm_xpu_kernels") is None:
        raise BackendError("vllm-xpu-kernels is not installed (pip install vllm-xpu-kernels)")
    version = metadata.version("vllm-xpu-kernels")
    if _numbers(version) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        raise BackendError(
            f"vllm-xpu-kernels {version} is too old: {oldest} and later read caches by their "
            "strides (pip install -U vllm-xpu-kernels)"
        )
    try:
        library = import_module("vllm_xpu_kernels.flash_attn_interface")
    except Exception as error:
        raise BackendError(f"vllm-xpu-kernels cannot be imported: {error}") from error
    if not library.FA2_AVAILABLE:
        raise BackendError(
            "vllm-xpu-kernels was built for another torch or oneAPI: "
            f"{library.FA2_UNAVAILABLE_REASON}"
        )
    from octavo_xpu.vllm_attention import VllmAttention
    from octavo_xpu.vllm_trial import try_attention

    attention = VllmAttention(library.flash_attn_varlen_func, backend.ops.paged_attention)
    try_attention(attention, backend.device)
    return with_attention(backend.ops, attention.paged_attention)


def _numbers(version: str) -> tuple[int, ...]:
    """``0.1.16.2`` as numbers, up to the first part that is none."""
    numbers = []
    for part in version.split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)


def _vllm_refusal(model: Any) -> str | None:
    """Where no layer at all is for it; in others it leaves single layers to the backend's own."""
    from octavo_xpu.vllm_attention import HEAD_DIMS

    specs = model.kv_specs("float16")
    if any(spec.window is None and spec.head_dim in HEAD_DIMS for spec in specs):
        return None
    found = ", ".join(str(size) for size in sorted({spec.head_dim for spec in specs}))
    windows = "" if any(spec.window is None for spec in specs) else ", all within windows"
    served = ", ".join(map(str, HEAD_DIMS))
    return f"its heads have {found} features{windows}; it serves {served} without a window"


def _refuse_ipex(_backend: Any) -> Functions:
    raise BackendError(_IPEX_REASON)
