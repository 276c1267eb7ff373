"""How keys and values lie in a TPU's memory: the one place that defines it.

A TPU moves tiles of 8 rows by 128 lanes of 32-bit words; narrower types put 2 or 4 rows into one
word. A token's keys and values of all heads are therefore *rows* of 128 lanes that stand together,
so that writing a token, and reading a block, is one copy of whole tiles:

* ``head_dim`` from 65 to 128: row ``2 h`` holds the key and row ``2 h + 1`` the value of head
  ``h``, padded to 128. In bfloat16 the two share a word. It is the layout of JAX's own
  ``ragged_paged_attention`` too, so both serve from one cache.
* ``head_dim`` over 128: the same for each part of 128: key, value, key's next part, value's next.
* ``head_dim`` up to 64: row ``h`` holds the key in lanes 0 to 63, the value in 64 to 127. Padding
  each to 128 lanes would double the cache; with zeros beside it, a query meets the key alone.

Rows are padded to a number that tiles without gaps. int8 has a float32 scale for each token and
row half beside it; blocks stand in the lanes there, which needs blocks of a multiple of 128 tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from octavo.api import UsageError, step_tree
from octavo_tpu.cache_numbers import narrowed

if TYPE_CHECKING:
    import jax
    from jaxtyping import Float, Int

    from octavo.api import KVSpec

__all__ = ["INT8_BLOCK_TOKENS", "KVLayout", "RowCache", "make_cache", "pack", "unpack"]

LANES = 128
_JOINED_HEAD_DIM = LANES // 2
_SCALE_ROWS = 8  # a tile of float32
INT8_BLOCK_TOKENS = LANES
_DTYPES = {
    "float32": 4,
    "bfloat16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "int8": 1,
}


@dataclass(frozen=True)
class KVLayout:
    """The rows of one token, from what a layer stores."""

    kv_heads: int
    head_dim: int
    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise UsageError(
                f"TPU kernels keep no cache of dtype {self.dtype!r}; use one of "
                f"{', '.join(_DTYPES)}."
            )

    @property
    def rows_per_word(self) -> int:
        """Rows that share a 32-bit word."""
        return 4 // _DTYPES[self.dtype]

    @property
    def joined(self) -> bool:
        """Whether a head's key and value are halves of one row."""
        return self.head_dim <= _JOINED_HEAD_DIM

    @property
    def parts(self) -> int:
        """Rows that a head's key takes, and its value."""
        return -(-self.head_dim // LANES)

    @property
    def width(self) -> int:
        """Elements of a key, padding among them (and its value, where the two are joined)."""
        return self.parts * LANES

    @property
    def used_rows(self) -> int:
        """Rows of a token, without padding."""
        return self.kv_heads * self.parts * (1 if self.joined else 2)

    @property
    def value_lane(self) -> int:
        """Where in its width a value begins."""
        return _JOINED_HEAD_DIM if self.joined else 0

    @property
    def words(self) -> int:
        """Rows of 32-bit words of a token: 1, 2, 4 or a multiple of 8, which tile without gaps."""
        words = -(-self.used_rows // self.rows_per_word)
        return next((few for few in (1, 2, 4) if words <= few), _round_up(words, 8))

    @property
    def rows(self) -> int:
        """Rows of a token, padding among them."""
        return self.words * self.rows_per_word

    @property
    def heads_per_bundle(self) -> int:
        """Heads whose rows make whole words: 1, or as many as share one."""
        return max(1, self.rows_per_word // (self.used_rows // self.kv_heads))

    @property
    def words_per_bundle(self) -> int:
        """Words of a token that hold a bundle."""
        rows = self.heads_per_bundle * (self.used_rows // self.kv_heads)
        return rows // self.rows_per_word

    def key_rows(self, head: int) -> tuple[int, ...]:
        """Which rows hold the key of a head, part after part."""
        if self.joined:
            return (head,)
        return tuple(2 * (head * self.parts + part) for part in range(self.parts))

    def value_rows(self, head: int) -> tuple[int, ...]:
        """Which rows hold its value."""
        return (head,) if self.joined else tuple(row + 1 for row in self.key_rows(head))

    @property
    def scale_rows(self) -> int:
        """Rows of scales: head ``h`` has its key's at ``2 h`` and its value's at ``2 h + 1``."""
        return _round_up(2 * self.kv_heads, _SCALE_ROWS) if self.dtype == "int8" else 0

    def bytes_per_token(self) -> int:
        """What a token takes in one layer, padding and scales included."""
        return 4 * (self.words * LANES + self.scale_rows)

    def check_block_size(self, block_size: int) -> None:
        """Raise UsageError where blocks of so many tokens do not tile."""
        step = INT8_BLOCK_TOKENS if self.dtype == "int8" else 8
        if block_size <= 0 or block_size % step:
            raise UsageError(
                f"A {self.dtype} cache on a TPU needs blocks of a multiple of {step} tokens; "
                f"block_size={block_size} is none. Use --block-size {_round_up(block_size, step)}."
            )


@step_tree(static=("kv_heads", "head_dim"))
@dataclass(frozen=True)
class RowCache:
    """One layer's keys and values, as rows of tokens."""

    rows: Float[jax.Array, "num_blocks block_size rows lanes"]
    scales: Float[jax.Array, "num_blocks scale_rows block_size"] | None
    kv_heads: int
    head_dim: int

    @property
    def layout(self) -> KVLayout:
        """What the rows mean."""
        return KVLayout(self.kv_heads, self.head_dim, self.rows.dtype.name)


def make_cache(spec: KVSpec, num_blocks: int, block_size: int) -> RowCache:
    """Zeros, on JAX's default device."""
    layout = KVLayout(spec.num_kv_heads, spec.head_dim, spec.dtype)
    layout.check_block_size(block_size)
    shape = (num_blocks, block_size, layout.rows, LANES)
    scales = None
    if layout.scale_rows:
        scales = jnp.zeros((num_blocks, layout.scale_rows, block_size), jnp.float32)
    return RowCache(jnp.zeros(shape, layout.dtype), scales, layout.kv_heads, layout.head_dim)


def pack(
    layout: KVLayout,
    k: Float[jax.Array, "tokens kv_heads head_dim"],
    v: Float[jax.Array, "tokens kv_heads head_dim"],
) -> tuple[Float[jax.Array, "tokens rows lanes"], Float[jax.Array, "tokens scale_rows"] | None]:
    """Keys and values as rows of the cache's dtype, and their scales where it is int8."""
    pair = jnp.stack([k, v], axis=2)  # [tokens, kv_heads, 2, head_dim]
    codes, scales = narrowed(pair, layout.dtype)
    width = _JOINED_HEAD_DIM if layout.joined else layout.width
    codes = jnp.pad(codes, ((0, 0), (0, 0), (0, 0), (0, width - layout.head_dim)))
    if not layout.joined:
        codes = codes.reshape(len(k), layout.kv_heads, 2, layout.parts, LANES).swapaxes(2, 3)
    rows = codes.reshape(len(k), layout.used_rows, LANES)
    rows = jnp.pad(rows, ((0, 0), (0, layout.rows - layout.used_rows), (0, 0)))
    if scales is None:
        return rows, None
    scales = scales.reshape(len(k), 2 * layout.kv_heads)
    return rows, jnp.pad(scales, ((0, 0), (0, layout.scale_rows - scales.shape[1])))


def unpack(
    cache: RowCache, blocks: Int[np.ndarray, "blocks"]
) -> tuple[
    Float[np.ndarray, "tokens kv_heads head_dim"], Float[np.ndarray, "tokens kv_heads head_dim"]
]:
    """Keys and values of whole blocks in float32, on the host: the layout read the other way."""
    layout, heads = cache.layout, range(cache.kv_heads)
    rows = np.asarray(cache.rows[blocks]).astype(np.float32)  # [blocks, block_size, rows, lanes]
    rows = rows.reshape(-1, layout.rows, LANES)
    pair = []
    for find, lane in ((layout.key_rows, 0), (layout.value_rows, layout.value_lane)):
        whole = rows[:, [find(head) for head in heads]].reshape(len(rows), len(heads), layout.width)
        pair.append(whole[..., lane : lane + layout.head_dim])
    keys, values = pair
    if cache.scales is None:
        return keys, values
    scales = np.asarray(cache.scales[blocks]).transpose(0, 2, 1).reshape(len(rows), -1, 1)
    return keys * scales[:, 0 : 2 * len(heads) : 2], values * scales[:, 1 : 2 * len(heads) : 2]


def _round_up(count: int, step: int) -> int:
    return -(-count // step) * step
