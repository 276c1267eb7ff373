"""The launch of ragged paged attention: tiles that fit, padding, and the kernel itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from octavo.api import AttentionParams
from octavo_tpu.kernels.layout import LANES, RowCache
from octavo_tpu.kernels.ragged import Ragged, Refs
from octavo_tpu.kernels.work import work_items

if TYPE_CHECKING:
    from jaxtyping import Float

    from octavo.api import AttentionPlan

__all__ = ["paged_attention"]

_CHUNK_TOKENS = 256
_CHUNK_BYTES = 4 << 20  # both halves
_TILE_ROWS = 512  # of queries, for each key head
_TILE_BYTES = 8 << 20
_SUBLANES = 8


def paged_attention(
    q: Float[jax.Array, "tokens heads head_dim"],
    cache: RowCache,
    plan: AttentionPlan,
    params: AttentionParams,
    sinks: Float[jax.Array, "heads"] | None = None,
    *,
    interpret: Any = False,
) -> Float[jax.Array, "tokens heads head_dim"]:
    """Attention of each token over its sequence's cached keys; padding's rows are unspecified.

    ``interpret`` is Pallas's: ``pltpu.InterpretParams`` computes it without a TPU.
    """
    static = _static(q, cache, plan, params)
    layout, tokens = cache.layout, len(q)
    rows = jnp.pad(q.astype(jnp.float32), ((0, 0), (0, 0), (0, layout.width - layout.head_dim)))
    used_rows = static.heads * layout.parts
    rows = rows.reshape(tokens, used_rows, LANES)
    rows = jnp.pad(rows, ((0, 0), (0, static.head_rows - used_rows), (0, 0)))
    items = work_items(
        plan,
        params,
        tile_tokens=static.tile_tokens,
        block_size=static.block_size,
        chunk_tokens=static.chunk_tokens,
    )
    out = _call(static, cache, items, plan.block_table.reshape(-1), rows, sinks, interpret)
    out = out.reshape(tokens, static.head_rows, LANES)[:, :used_rows]
    lanes = slice(layout.value_lane, layout.value_lane + layout.head_dim)
    return out.reshape(tokens, static.heads, layout.width)[..., lanes].astype(q.dtype)


def _static(q: jax.Array, cache: RowCache, plan: AttentionPlan, params: AttentionParams) -> Ragged:
    layout, block_size = cache.layout, cache.rows.shape[1]
    head_rows = -(-q.shape[1] * layout.parts // _SUBLANES) * _SUBLANES
    token_bytes = 2 * 4 * layout.words * LANES
    chunk_tokens = min(_CHUNK_TOKENS, _CHUNK_BYTES // token_bytes)
    chunk_blocks = max(1, chunk_tokens // block_size)
    group = q.shape[1] // layout.kv_heads
    tile_tokens = min(len(q), _TILE_ROWS // group, _TILE_BYTES // (16 * head_rows * LANES))
    is_narrow = q.dtype == jnp.bfloat16 and cache.rows.dtype.itemsize < 4
    return Ragged(
        layout=layout,
        params=params,
        heads=q.shape[1],
        head_rows=head_rows,
        block_size=block_size,
        table_blocks=plan.block_table.shape[1],
        tile_tokens=1 << (max(1, tile_tokens).bit_length() - 1),
        chunk_blocks=min(chunk_blocks, plan.block_table.shape[1]),
        compute_dtype="bfloat16" if is_narrow else "float32",
    )


def _call(
    static: Ragged,
    cache: RowCache,
    items: jax.Array,
    table: jax.Array,
    q: jax.Array,
    sinks: jax.Array | None,
    interpret: Any,
) -> jax.Array:
    anywhere = pl.BlockSpec(memory_space=pl.ANY)
    num_blocks = cache.rows.shape[0]
    inputs = [q.reshape(-1, LANES), cache.rows.reshape(num_blocks, -1, LANES)]
    specs = [anywhere, anywhere]
    if cache.scales is not None:
        inputs.append(cache.scales)
        specs.append(anywhere)
    if sinks is not None:
        inputs.append(jnp.broadcast_to(sinks.astype(jnp.float32)[:, None], (len(sinks), LANES)))
        specs.append(pl.BlockSpec(memory_space=pltpu.VMEM))
    scratch = _scratch(static)

    def kernel(*refs: Any) -> None:
        present = iter(refs)
        absent = {name for name, shape in scratch.items() if shape is None}
        absent |= {"scales"} if cache.scales is None else set()
        absent |= {"sinks"} if sinks is None else set()
        static.program(Refs(*(None if name in absent else next(present) for name in Refs._fields)))

    vmem_bytes = _vmem_bytes(scratch)
    attended: jax.Array = pl.pallas_call(
        kernel,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(items.shape[0] // 8,),
            in_specs=specs,
            out_specs=anywhere,
            scratch_shapes=[shape for shape in scratch.values() if shape is not None],
        ),
        out_shape=jax.ShapeDtypeStruct(inputs[0].shape, jnp.float32),
        # Padding's rows stay what they are: finite.
        input_output_aliases={2: 0},
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary",), vmem_limit_bytes=2 * vmem_bytes + (16 << 20)
        ),
        interpret=interpret,
        name="octavo_paged_attention",
    )(items, table, *inputs)
    return attended


def _scratch(static: Ragged) -> dict[str, Any]:
    """What the kernel works in, by its name in Refs and in its order; None where not needed."""
    layout = static.layout
    token_rows = (2, static.tile_tokens * static.head_rows, LANES)
    group_rows = -(-static.group * static.tile_tokens // _SUBLANES) * _SUBLANES
    by_head = (layout.kv_heads, group_rows)
    chunk_rows = static.chunk_tokens * layout.rows
    scales = None
    if layout.scale_rows:
        scales = pltpu.VMEM((2, layout.scale_rows, static.chunk_tokens), jnp.float32)
    return {
        "queries": pltpu.VMEM(token_rows, jnp.float32),
        "outputs": pltpu.VMEM(token_rows, jnp.float32),
        "chunks": pltpu.VMEM((2, chunk_rows, LANES), jnp.dtype(layout.dtype)),
        "chunk_scales": scales,
        "words": pltpu.VMEM((static.chunk_tokens * layout.words, LANES), jnp.uint32),
        "grouped": pltpu.VMEM((*by_head, layout.width), jnp.float32),
        "maximum": pltpu.VMEM((*by_head, LANES), jnp.float32),
        "denominator": pltpu.VMEM((*by_head, LANES), jnp.float32),
        "weighted": pltpu.VMEM((*by_head, layout.width), jnp.float32),
        "query_sem": pltpu.SemaphoreType.DMA((2,)),
        "output_sem": pltpu.SemaphoreType.DMA((2,)),
        "chunk_sem": pltpu.SemaphoreType.DMA((2,)),
    }


def _vmem_bytes(scratch: dict[str, Any]) -> int:
    total = 0
    for shape in scratch.values():
        if shape is not None and shape.memory_space == pltpu.VMEM:
            total += jnp.dtype(shape.dtype).itemsize * math.prod(shape.shape)
    return total
