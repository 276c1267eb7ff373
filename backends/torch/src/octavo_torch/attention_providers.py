"""The implementations of attention that backends on torch choose from; imports no torch.

All work on ``TorchCache`` as the backend's own ops write it, so any may take another's place.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from octavo.api import API_VERSION, AttentionSpec, BackendError

__all__ = ["attention_specs", "with_attention"]

Functions = Mapping[str, Callable[..., Any]]

_OPS = ("write_kv", "paged_attention", "rope_attend")
_SUMMARIES = {
    "triton": "Triton kernels that read blocks in place; decodes in graphs",
    "sdpa": "torch's own attention over keys that are gathered first; on GPUs without graphs",
    "flashinfer": "FlashInfer's kernels; what it has none for, and steps in graphs, stay with the "
    "backend's own",
}


def attention_specs() -> Iterator[AttentionSpec]:
    """For every backend that shares ``octavo_torch``."""
    for backend in ("cuda", "rocm", "xpu"):
        yield _spec("triton", backend, _load_triton)
    for backend in ("torch", "cuda", "rocm", "xpu"):
        yield _spec("sdpa", backend, _load_sdpa)
    yield _spec("flashinfer", "cuda", _load_flashinfer, _flashinfer_refusal)


def _spec(
    name: str,
    backend: str,
    load: Callable[[Any], Functions],
    supports: Callable[[Any], str | None] = lambda _model: None,
) -> AttentionSpec:
    return AttentionSpec(
        name=name,
        backend=backend,
        ops=_OPS,
        load=load,
        supports=supports,
        api_version=API_VERSION,
        summary=_SUMMARIES[name],
    )


def _load_triton(backend: Any) -> Functions:
    if find_spec("triton") is None:
        raise BackendError(
            "Triton is not installed (pip install triton; on Windows triton-windows)"
        )
    from octavo_torch.triton_ops import TritonOps

    ops = backend.ops if isinstance(backend.ops, TritonOps) else TritonOps()
    return {name: getattr(ops, name) for name in _OPS}


def _load_sdpa(backend: Any) -> Functions:
    from octavo_torch.attention import paged_attention

    if hasattr(backend, "leave_graphs"):
        # In a graph it would gather all that the longest context may have, in every step.
        backend.leave_graphs()
    return with_attention(backend.ops, paged_attention)


def _load_flashinfer(backend: Any) -> Functions:
    if find_spec("flashinfer") is None:
        raise BackendError("FlashInfer is not installed (pip install flashinfer-python)")
    if find_spec("flashinfer_jit_cache") is None and not _has_nvcc():
        raise BackendError(
            "FlashInfer has neither compiled kernels (flashinfer install-jit-cache-wheel) nor "
            "nvcc to compile them with (the CUDA toolkit; CUDA_HOME says where it is)"
        )
    try:
        library = import_module("flashinfer")
    except Exception as error:
        raise BackendError(f"FlashInfer cannot be imported: {error}") from error
    from octavo_torch.flashinfer_attention import FlashInferAttention

    own = backend.ops.paged_attention
    attention = FlashInferAttention(library, backend.device, own)
    return with_attention(backend.ops, attention.paged_attention)


def _has_nvcc() -> bool:
    """Where FlashInfer looks."""
    if os.environ.get("FLASHINFER_NVCC") or shutil.which("nvcc"):
        return True
    homes = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    return any(Path(home, "bin/nvcc").exists() for home in [*homes, "/usr/local/cuda"] if home)


def _flashinfer_refusal(model: Any) -> str | None:
    """Where no layer at all is for it; in others it leaves single layers to the backend's own."""
    from octavo_torch.flashinfer_attention import HEAD_DIMS

    specs = model.kv_specs("float16")
    if any(spec.window is None and spec.head_dim in HEAD_DIMS for spec in specs):
        return None
    found = ", ".join(str(size) for size in sorted({spec.head_dim for spec in specs}))
    windows = "" if any(spec.window is None for spec in specs) else ", all within windows"
    served = ", ".join(map(str, HEAD_DIMS))
    return f"its heads have {found} features{windows}; FlashInfer serves {served} without a window"


def with_attention(ops: Any, attention: Callable[..., Any]) -> Functions:
    """The backend's own writes and rotation, before another attention."""
    combined = copy.copy(ops)
    members = {"paged_attention": staticmethod(attention)}
    combined.__class__ = type(f"With{type(ops).__name__}", (type(ops),), members)
    return {
        "write_kv": ops.write_kv,
        "paged_attention": attention,
        "rope_attend": combined.rope_attend,
    }
