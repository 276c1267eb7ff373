"""Attention of real models, in shapes alone: what the kernels are lowered and compiled for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import export
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

from octavo.api import AttentionParams, AttentionPlan
from octavo_tpu.kernels.layout import LANES, KVLayout, RowCache
from octavo_tpu.kernels.paged_attention import paged_attention
from octavo_tpu.kernels.write import write_tokens

if TYPE_CHECKING:
    from jax.sharding import Sharding

__all__ = ["ATTENTIONS", "AheadAttention", "as_on", "attend", "lower_for"]


@dataclass(frozen=True)
class AheadAttention:
    """One layer's attention, and the step that it is part of."""

    name: str
    heads: int
    kv_heads: int
    head_dim: int
    kv_dtype: str = "bfloat16"
    dtype: str = "bfloat16"
    block_size: int = 128
    window: int | None = None
    soft_cap: float | None = None
    sinks: bool = False
    tokens: int = 512
    seqs: int = 64
    context_tokens: int = 8192
    num_blocks: int = 2048

    @property
    def params(self) -> AttentionParams:
        """What is static."""
        return AttentionParams(self.head_dim**-0.5, self.window, self.soft_cap)

    def arguments(self, sharding: Sharding | None = None) -> tuple[Any, ...]:
        """(cache, q, k, v, plan, sinks) for ``attend``."""
        numbers = functools.partial(_shape, dtype=self.dtype, sharding=sharding)
        indices = functools.partial(_shape, dtype="int32", sharding=sharding)
        plan = AttentionPlan(
            block_table=indices((self.seqs, self.context_tokens // self.block_size)),
            slots=indices((self.tokens,)),
            token_seqs=indices((self.tokens,)),
            positions=indices((self.tokens,)),
            query_start=indices((self.seqs + 1,)),
            seq_lens=indices((self.seqs,)),
        )
        new = numbers((self.tokens, self.kv_heads, self.head_dim))
        sinks = numbers((self.heads,)) if self.sinks else None
        q = numbers((self.tokens, self.heads, self.head_dim))
        return self._cache(sharding), q, new, new, plan, sinks

    def _cache(self, sharding: Sharding | None) -> RowCache:
        layout = KVLayout(self.kv_heads, self.head_dim, self.kv_dtype)
        rows = (self.num_blocks, self.block_size, layout.rows, LANES)
        scales: Any = None
        if layout.scale_rows:
            shape = (self.num_blocks, layout.scale_rows, self.block_size)
            scales = _shape(shape, "float32", sharding)
        return RowCache(_shape(rows, self.kv_dtype, sharding), scales, self.kv_heads, self.head_dim)


_LLAMA = functools.partial(AheadAttention, heads=32, kv_heads=8, head_dim=128)
ATTENTIONS = (
    AheadAttention("Qwen3-0.6B", 16, 8, 128, block_size=16, context_tokens=4096),
    AheadAttention("Qwen3-8B decode", 32, 8, 128, tokens=64),
    _LLAMA("Llama-3-8B", tokens=2048),
    _LLAMA("Llama-3-8B int8", kv_dtype="int8"),
    _LLAMA("Llama-3-8B e4m3", kv_dtype="float8_e4m3fn"),
    _LLAMA("Llama-3-8B e5m2", kv_dtype="float8_e5m2"),
    _LLAMA("Llama-3-8B float32", dtype="float32", kv_dtype="float32"),
    AheadAttention("Llama-3.2-1B", 32, 8, 64, block_size=32),
    AheadAttention("Llama-2-7B, long", 32, 32, 128, tokens=64, context_tokens=1 << 20),
    AheadAttention("Qwen3-0.6B, short", 16, 8, 128, block_size=16, context_tokens=48, tokens=16),
    AheadAttention("SmolLM2-135M", 9, 3, 64, block_size=32),
    AheadAttention("Gemma-2-9B", 16, 8, 256, window=4096, soft_cap=50.0),
    AheadAttention("Gemma-3-1B", 4, 1, 256, window=512),
    AheadAttention("gpt-oss-20b", 64, 8, 64, window=128, sinks=True),
)


def attend(params: AttentionParams) -> Callable[..., tuple[jax.Array, RowCache]]:
    """The step's function of one layer: write, then attend; its cache may be donated."""

    def step(
        cache: RowCache, q: jax.Array, k: jax.Array, v: jax.Array, plan: Any, sinks: Any
    ) -> tuple[jax.Array, RowCache]:
        cache = write_tokens(cache, k, v, plan)
        return paged_attention(q, cache, plan, params, sinks), cache

    return step


def as_on(device_kind: str) -> Any:
    """A context in which kernels are lowered for a TPU that is not here ("TPU v5 lite", …)."""
    device = AbstractDevice(device_kind=device_kind, num_cores=1, platform="tpu")
    return use_abstract_mesh(AbstractMesh((), (), abstract_device=device))


def lower_for(attention: AheadAttention, device_kind: str) -> str:
    """The module that a TPU's compiler is given: StableHLO, with the kernels in it."""
    step = jax.jit(attend(attention.params), donate_argnums=0)
    with as_on(device_kind):
        exported = export.export(step, platforms=["tpu"])(*attention.arguments())
    module: str = exported.mlir_module()
    return module


def _shape(shape: tuple[int, ...], dtype: str, sharding: Any = None) -> Any:
    return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype), sharding=sharding)
