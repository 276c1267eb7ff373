"""Write a step's keys and values to a TPU's cache: one copy for a token, or for eight of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from octavo_tpu.kernels.layout import RowCache, pack

if TYPE_CHECKING:
    from jaxtyping import Float, Int

__all__ = ["write_rows", "write_tokens"]

_RUN = 8  # tokens that are copied at once where they lie side by side
_AHEAD = 4  # groups of tokens that are on their way at once


def write_tokens(
    cache: RowCache,
    k: Float[jax.Array, "tokens kv_heads head_dim"],
    v: Float[jax.Array, "tokens kv_heads head_dim"],
    slots: Int[jax.Array, "tokens"],
    *,
    interpret: Any = False,
) -> RowCache:
    """Store K and V at ``slots``; block 0 is padding's and is left alone. ``cache`` is dead.

    Tokens of a sequence stand side by side, and their slots ascend (octavo.api.AttentionPlan).
    """
    rows, scales = pack(cache.layout, k, v)
    written = write_rows(cache.rows, rows, slots, interpret=interpret)
    stored_scales = cache.scales
    if stored_scales is not None:
        block_size = cache.rows.shape[1]
        places = (slots // block_size, slice(None), slots % block_size)
        stored_scales = stored_scales.at[places].set(scales)
    return RowCache(written, stored_scales, cache.kv_heads, cache.head_dim)


def write_rows(
    stored: Float[jax.Array, "num_blocks block_size rows lanes"],
    rows: Float[jax.Array, "tokens rows lanes"],
    slots: Int[jax.Array, "tokens"],
    *,
    interpret: Any = False,
) -> Float[jax.Array, "num_blocks block_size rows lanes"]:
    """Copy each token's rows to its slot, in place where ``stored`` is donated."""
    num_blocks, block_size, *tile = stored.shape
    anywhere = pl.BlockSpec(memory_space=pl.ANY)

    def kernel(slots_ref: Any, rows_ref: Any, _stored_ref: Any, out_ref: Any, sem: Any) -> None:
        _copy_all(slots_ref, rows_ref, out_ref, sem, block_size)

    flat: jax.Array = pl.pallas_call(
        kernel,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(),
            in_specs=[anywhere, anywhere],
            out_specs=anywhere,
            scratch_shapes=[pltpu.SemaphoreType.DMA(())],
        ),
        out_shape=jax.ShapeDtypeStruct((num_blocks * block_size, *tile), stored.dtype),
        input_output_aliases={2: 0},
        interpret=interpret,
        name="octavo_write_kv",
    )(slots, rows, stored.reshape(num_blocks * block_size, *tile))
    written: jax.Array = flat.reshape(stored.shape)
    return written


def _copy_all(slots: Any, rows: Any, out: Any, sem: Any, block_size: int) -> None:
    """Start group after group; wait for each when ``_AHEAD`` more are on their way."""
    tokens = rows.shape[0]
    groups = tokens // _RUN

    def each(group: Any, act: Callable[[Any], None]) -> None:
        _each_copy(slots, rows, out, sem, block_size, group * _RUN, act)

    def step(group: Any, carry: None) -> None:
        pl.when(group < groups)(lambda: each(group, lambda copy: copy.start()))
        pl.when(group >= _AHEAD)(lambda: each(group - _AHEAD, lambda copy: copy.wait()))
        return carry

    lax.fori_loop(0, groups + _AHEAD, step, None)
    for act in (lambda copy: copy.start(), lambda copy: copy.wait()):
        for token in range(groups * _RUN, tokens):
            _copy_one(slots, rows, out, sem, block_size, token, act)


def _each_copy(
    slots: Any,
    rows: Any,
    out: Any,
    sem: Any,
    block_size: int,
    first: Any,
    act: Callable[[Any], None],
) -> None:
    """The copies of ``_RUN`` tokens: one, where the run begins and ends in one block."""
    first_slot, last_slot = slots[first], slots[first + _RUN - 1]
    in_block = first_slot // block_size == last_slot // block_size
    is_run = (last_slot - first_slot == _RUN - 1) & in_block & (first_slot >= block_size)

    @pl.when(is_run)
    def _together() -> None:
        source, target = rows.at[pl.ds(first, _RUN)], out.at[pl.ds(first_slot, _RUN)]
        act(pltpu.make_async_copy(source, target, sem))

    @pl.when(~is_run)
    def _one_by_one() -> None:
        for offset in range(_RUN):
            _copy_one(slots, rows, out, sem, block_size, first + offset, act)


def _copy_one(
    slots: Any,
    rows: Any,
    out: Any,
    sem: Any,
    block_size: int,
    token: Any,
    act: Callable[[Any], None],
) -> None:
    slot = slots[token]

    @pl.when(slot >= block_size)
    def _copy() -> None:
        source, target = rows.at[pl.ds(token, 1)], out.at[pl.ds(slot, 1)]
        act(pltpu.make_async_copy(source, target, sem))
