"""The launch of ragged paged attention: tiles that fit, padding, and the kernel itself."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from octavo.api import AttentionParams, AttentionPlan, UsageError
from octavo_tpu.kernels.layout import LANES, RowCache
from octavo_tpu.kernels.ragged import Ragged, Refs
from octavo_tpu.kernels.work import work_items

if TYPE_CHECKING:
    from jaxtyping import Float

__all__ = ["paged_attention", "vmem_bytes"]

_CHUNK_TOKENS = 256
_CHUNK_BYTES = 4 << 20  # both halves
_TILE_ROWS = 512  # of queries, for each key head
_TILE_BYTES = 8 << 20
_SUBLANES = 8
_TABLE_BYTES = 768 << 10  # of a block table in scalar memory, which has 1 MiB


@functools.partial(jax.jit, static_argnames=("params", "interpret"))
def paged_attention(
    q: Float[jax.Array, "tokens heads head_dim"],
    cache: RowCache,
    plan: Any,
    params: AttentionParams,
    sinks: Float[jax.Array, "heads"] | None = None,
    *,
    interpret: Any = False,
) -> Float[jax.Array, "tokens heads head_dim"]:
    """Attention of each token over its sequence's cached keys; padding's rows are unspecified.

    ``plan`` has the fields of octavo.api.AttentionPlan; tokens of a sequence stand side by side.
    ``interpret`` is Pallas's: ``pltpu.InterpretParams`` computes it without a TPU.
    """
    static = _static(q, cache, plan, params)
    layout, tokens = cache.layout, len(q)
    rows = jnp.pad(q.astype(jnp.float32), ((0, 0), (0, 0), (0, layout.width - layout.head_dim)))
    used_rows = static.heads * layout.parts
    rows = rows.reshape(tokens, used_rows, LANES)
    rows = jnp.pad(rows, ((0, 0), (0, static.head_rows - used_rows), (0, 0)))
    out = rows.reshape(-1, LANES)
    for part in _parts(plan):
        items = work_items(
            part,
            params,
            tile_tokens=static.tile_tokens,
            block_size=static.block_size,
            chunk_tokens=static.chunk_tokens,
        )
        # Queries in, attended values out, in place: the rows of other sequences stay.
        out = _call(static, cache, items, part.block_table.reshape(-1), out, sinks, interpret)
    out = out.reshape(tokens, static.head_rows, LANES)[:, :used_rows]
    lanes = slice(layout.value_lane, layout.value_lane + layout.head_dim)
    return out.reshape(tokens, static.heads, layout.width)[..., lanes].astype(q.dtype)


def _parts(plan: Any) -> Iterator[Any]:
    """The plan, whole; divided by sequences where its block table is too large for one launch."""
    num_seqs, num_blocks = plan.block_table.shape
    seqs_at_once = _TABLE_BYTES // (4 * num_blocks)
    if not seqs_at_once:
        raise UsageError(
            f"A sequence of {num_blocks} blocks has a block table of {4 * num_blocks} bytes, and a "
            f"TPU's scalar memory takes {_TABLE_BYTES}: raise --block-size, or lower "
            "--max-model-len."
        )
    for first in range(0, num_seqs, seqs_at_once):
        end = min(first + seqs_at_once, num_seqs)
        yield AttentionPlan(
            block_table=plan.block_table[first:end],
            slots=plan.slots,
            token_seqs=plan.token_seqs,
            positions=plan.positions,
            query_start=plan.query_start[first : end + 1],
            seq_lens=plan.seq_lens[first:end],
        )


def _static(q: jax.Array, cache: RowCache, plan: Any, params: AttentionParams) -> Ragged:
    layout, block_size = cache.layout, cache.rows.shape[1]
    head_rows = -(-q.shape[1] * layout.parts // _SUBLANES) * _SUBLANES
    token_bytes = 2 * 4 * layout.words * LANES
    chunk_tokens = min(_CHUNK_TOKENS, _CHUNK_BYTES // token_bytes)
    chunk_blocks = max(1, chunk_tokens // block_size)
    group = q.shape[1] // layout.kv_heads
    tile_tokens = min(q.shape[0], _TILE_ROWS // group, _TILE_BYTES // (16 * head_rows * LANES))
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
    inputs = [q, cache.rows.reshape(num_blocks, -1, LANES)]
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

    scratch_bytes = _scratch_bytes(scratch)
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
            dimension_semantics=("arbitrary",), vmem_limit_bytes=2 * scratch_bytes + (16 << 20)
        ),
        cost_estimate=_cost(static, cache, q),
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


def _cost(static: Ragged, cache: RowCache, q: jax.Array) -> pl.CostEstimate:
    """Of a step whose sequences are half as long as their table; each tile reads all keys."""
    tokens = q.shape[0] // static.head_rows
    keys = static.table_blocks * static.block_size // 2
    tiles = -(-tokens // static.tile_tokens)
    scores = tokens * static.heads * keys
    return pl.CostEstimate(
        flops=4 * scores * cache.layout.width,
        transcendentals=scores,
        bytes_accessed=2 * 4 * q.size + tiles * keys * cache.layout.bytes_per_token(),
    )


def vmem_bytes(q: Any, cache: RowCache, plan: Any, params: AttentionParams) -> int:
    """What the kernel works in, for arguments or their shapes; sinks and padding come on top."""
    return _scratch_bytes(_scratch(_static(q, cache, plan, params)))


def _scratch_bytes(scratch: dict[str, Any]) -> int:
    total = 0
    for shape in scratch.values():
        if shape is not None and shape.memory_space == pltpu.VMEM:
            total += jnp.dtype(shape.dtype).itemsize * math.prod(shape.shape)
    return total
