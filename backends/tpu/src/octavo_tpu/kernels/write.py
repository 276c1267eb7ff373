"""Write a step's keys and values to a TPU's cache: one copy for a token, or for eight of a run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
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
    plan: Any,
    *,
    interpret: Any = False,
) -> RowCache:
    """Store K and V at the plan's slots; none of padding's tokens. ``cache`` is dead.

    ``plan`` has the fields of octavo.api.AttentionPlan. Tokens of a sequence stand side by side
    and in order, padding behind all of them.
    """
    rows, scales = pack(cache.layout, k, v)
    written = write_rows(cache.rows, rows, plan.slots, interpret=interpret)
    stored = cache.scales
    if stored is not None and scales is not None:
        stored = _write_scales(stored, scales, plan.slots, plan.seq_lens.shape[0])
    return RowCache(written, stored, cache.kv_heads, cache.head_dim)


def _write_scales(
    stored: Float[jax.Array, "num_blocks scale_rows block_size"],
    scales: Float[jax.Array, "tokens scale_rows"],
    slots: Int[jax.Array, "tokens"],
    num_seqs: int,
) -> Float[jax.Array, "num_blocks scale_rows block_size"]:
    """Merge what is new into whole blocks, by XLA.

    One lane of a block cannot be copied alone, and a scatter to single lanes would have XLA turn
    the whole array about.
    """
    tokens, block_size = slots.shape[0], stored.shape[2]
    blocks = slots // block_size
    is_first = jnp.concatenate([jnp.ones(1, bool), blocks[1:] != blocks[:-1]])
    # A sequence begins and ends within a block, and padding is one run more.
    num_runs = min(tokens, 2 * num_seqs + tokens // block_size + 1)
    first = jnp.nonzero(is_first, size=num_runs, fill_value=0)[0]
    lanes = jnp.arange(block_size)
    token = (first - slots[first] % block_size)[:, None] + lanes  # [runs, block_size]
    nearest = jnp.clip(token, 0, tokens - 1)
    is_new = (token == nearest) & (slots[nearest] == blocks[first][:, None] * block_size + lanes)
    new = scales[nearest].swapaxes(1, 2)  # [runs, scale_rows, block_size]
    merged = jnp.where(is_new[:, None], new, stored[blocks[first]])
    return stored.at[blocks[first]].set(merged)


@functools.partial(jax.jit, static_argnames="interpret")
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
