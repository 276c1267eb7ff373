"""Attention by FlashInfer's kernels over ``TorchCache``, whose layout is FlashInfer's "HND".

Written against FlashInfer 0.7; see docs/devices/cuda.md for what it serves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from octavo.api import AttentionParams, BackendError
from octavo_torch.caches import TorchCache
from octavo_torch.flashinfer_pages import Part, find_pages, parts_of
from octavo_torch.plan import TorchPlan

__all__ = ["HEAD_DIMS", "FlashInferAttention"]

HEAD_DIMS = (64, 128, 256)
"""Those that its attention is published for, compiled ahead and on Hopper."""

_DTYPES = (torch.float16, torch.bfloat16)
_FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
_WORKSPACE_BYTES = 128 << 20  # what its documentation recommends

Attention = Callable[..., torch.Tensor]


class _Settings(NamedTuple):
    """What a kernel is compiled and planned for."""

    is_decode: bool
    heads: int
    kv_heads: int
    head_dim: int
    block_size: int
    dtype: torch.dtype
    kv_dtype: torch.dtype
    params: AttentionParams


class FlashInferAttention:
    """``paged_attention`` by FlashInfer, and by ``own`` where FlashInfer has nothing for it.

    That is: steps that are recorded in a graph, since FlashInfer plans on the host before each
    step; sinks; windows, since it multiplies what is behind them by zero, NaN too; caches in int8,
    or with scales; float32.
    """

    def __init__(self, library: Any, device: torch.device, own: Attention) -> None:
        """``library`` is the module ``flashinfer``."""
        self._library = library
        self._device = device
        self._own = own
        self._workspace = torch.zeros(_WORKSPACE_BYTES, dtype=torch.uint8, device=device)
        self._planned: dict[_Settings, _Planned] = {}

    def paged_attention(
        self,
        q: torch.Tensor,  # [tokens, heads, head_dim]
        cache: TorchCache,
        plan: TorchPlan,
        params: AttentionParams,
        sinks: torch.Tensor | None = None,  # [heads]
    ) -> torch.Tensor:
        """Attention of each token over its sequence's cached keys; padding's rows are not written.

        Raises BackendError where a kernel can neither be found nor compiled.
        """
        if sinks is not None or plan.is_bound or not _is_served(q, cache, params):
            return self._own(q, cache, plan, params, sinks)
        out = q.new_empty(q.shape)
        for part in parts_of(plan):
            wrapper = self._wrapper(q, cache, plan, params, part)
            wrapper.run(q[part.tokens], (cache.k, cache.v), out=out[part.tokens])
        return out

    def _wrapper(
        self,
        q: torch.Tensor,
        cache: TorchCache,
        plan: TorchPlan,
        params: AttentionParams,
        part: Part,
    ) -> Any:
        """Planned by the first layer of a step that needs it, for all that are like it."""
        heads, head_dim = q.shape[1:]
        kv_heads, block_size = cache.k.shape[1:3]
        settings = _Settings(
            part.is_decode, heads, kv_heads, head_dim, block_size, q.dtype, cache.k.dtype, params
        )
        planned = self._planned.get(settings)
        if planned is None:
            planned = _Planned(self._make(is_decode=part.is_decode), settings, self._device)
            self._planned[settings] = planned
        planned.take(plan, part)
        return planned.wrapper

    def _make(self, *, is_decode: bool) -> Any:
        """Wrappers share the workspace: the kernels of a stream run one after another."""
        if not is_decode:
            return self._library.BatchPrefillWithPagedKVCacheWrapper(self._workspace, "HND")
        # Kernels without tensor cores know few numbers of heads to a key head.
        return self._library.BatchDecodeWithPagedKVCacheWrapper(
            self._workspace, "HND", use_tensor_cores=True
        )


def _is_served(q: torch.Tensor, cache: TorchCache, params: AttentionParams) -> bool:
    is_plain = cache.k_scale is None and cache.v_scale is None
    return (
        q.dtype in _DTYPES
        and (cache.k.dtype == q.dtype or cache.k.dtype in _FLOAT8)
        and q.shape[2] in HEAD_DIMS
        and q.stride(2) == 1
        and is_plain
        and params.window is None
    )


class _Planned:
    """A wrapper, and the step that it is planned for."""

    def __init__(self, wrapper: Any, settings: _Settings, device: torch.device) -> None:
        self.wrapper = wrapper
        self._settings = settings
        self._plan: TorchPlan | None = None
        is_queued = device.type != "cpu"
        self._copied = torch.get_device_module(device).Event() if is_queued else None

    def take(self, plan: TorchPlan, part: Part) -> None:
        """Plan for a step, once."""
        if self._plan is plan:
            return
        if self._copied is not None:
            self._copied.synchronize()  # the wrapper writes where the last copy is read from
        try:
            self._make_plan(plan, part)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, OSError) as error:
            raise _without_kernel(self._settings, error) from error
        if self._copied is not None:
            self._copied.record()
        self._plan = plan

    def _make_plan(self, plan: TorchPlan, part: Part) -> None:
        its = self._settings
        pages = find_pages(plan, part, its.block_size)
        sizes = (its.heads, its.kv_heads, its.head_dim, its.block_size)
        rest: dict[str, Any] = {
            "sm_scale": its.params.scale,
            "logits_soft_cap": its.params.soft_cap or 0.0,
            "q_data_type": its.dtype,
            "kv_data_type": its.kv_dtype,
        }
        if its.is_decode:
            self.wrapper.plan(pages.indptr, pages.indices, pages.last_page_len, *sizes, **rest)
        else:
            self.wrapper.plan(
                pages.query_start,
                pages.indptr,
                pages.indices,
                pages.last_page_len,
                *sizes,
                causal=its.params.causal,
                **rest,
            )


def _without_kernel(settings: _Settings, error: Exception) -> BackendError:
    said = next(iter(str(error).splitlines()), "no message")
    return BackendError(
        f"FlashInfer has no kernel for heads of {settings.head_dim} in {settings.dtype} over keys "
        f"in {settings.kv_dtype}: {type(error).__name__}: {said}. It compiles what "
        "flashinfer-jit-cache does not hold, with nvcc and ninja: install either (`flashinfer "
        "install-jit-cache-wheel`), or choose --attention-backend triton."
    )
