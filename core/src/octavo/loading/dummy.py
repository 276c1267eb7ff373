"""Random weights of the real shape (``--load-format dummy``): to measure without downloading."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octavo.loading.dtypes import convert, numpy_dtype

__all__ = ["DummySource"]

_POOL_SIZE = 1_000_003  # a prime: rows of any usual length start at different places of the pool
_NORM_SPREAD = 0.02


class DummySource:
    """A ShapelessSource: every tensor exists, in whatever shape the model asks for.

    Values depend on the seed and the tensor's name only, not on the order of reading. They repeat
    with the period of a pool of random numbers, so a model of any size is filled at the speed of
    copying.
    """

    def __init__(self, config: Mapping[str, Any], seed: int = 0) -> None:
        self._is_tied = bool(config.get("tie_word_embeddings", False))
        self._seed = seed

    def has(self, name: str) -> bool:
        """True, save for biases and for the output projection of a model with tied embeddings.

        It is the answer to models that ask. Families that always have biases (Qwen 2, GPT-2), or
        whose config says so, read them without asking, and get them.
        """
        return not name.endswith(".bias") and not (self._is_tied and name == "lm_head.weight")

    def read_shaped(
        self, name: str, shape: tuple[int, ...], dtype: str, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """See ShapelessSource: normal(0, 1 / sqrt(row length)), and vectors about 1 (biases 0)."""
        target = np.empty(shape, numpy_dtype(dtype)) if out is None else out
        if target.shape != shape:
            raise ValueError(f"{name}: {target.shape=} differs from the expected {shape=}")
        is_vector = len(shape) < 2
        scale = _NORM_SPREAD if is_vector else 1 / math.sqrt(max(1, shape[-1]))
        mean = 1.0 if is_vector and not name.endswith(".bias") else 0.0
        numbers = _numbers_from(self._start(name), math.prod(shape))
        flat = target if target.flags.c_contiguous else np.empty(shape, target.dtype)
        _fill(flat.reshape(-1), numbers * np.float32(scale) + np.float32(mean))
        if flat is not target:
            convert(flat, target)
        return target

    def close(self) -> None:
        """Nothing is held."""

    def _start(self, name: str) -> int:
        digest = hashlib.blake2b(f"{self._seed}:{name}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") % _POOL_SIZE


@functools.cache
def _normal_pool() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(_POOL_SIZE, dtype=np.float32)


def _numbers_from(start: int, count: int) -> NDArray[np.float32]:
    """``count`` numbers of the pool from ``start`` on, or all of it where that is fewer."""
    pool = _normal_pool()
    first = pool[start : start + count]
    return np.concatenate([first, pool[: min(start, count - len(first))]])


def _fill(target: NDArray[Any], period: NDArray[np.float32]) -> None:
    """Repeat ``period`` (converted once) until ``target`` is full."""
    converted = np.empty(period.shape, target.dtype)
    convert(period, converted)
    for start in range(0, target.size, period.size):
        piece = target[start : start + period.size]
        piece[...] = converted[: piece.size]
