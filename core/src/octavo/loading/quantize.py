"""Quantises weights while they are loaded: ``--quantization int8`` and ``int4``.

The result has GGUF's own formats, so that a backend needs no kernels beside those for GGUF files:
Q8_0 (8.5 bits a weight) and Q4_1 (5 bits), in blocks of 32 along a row. ``packing.py`` says which
weight gets which.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from octavo.loading.four_bits import Weighting, pack_q4_1
from octavo.loading.halves import half_bytes, halves, inverses
from octavo.loading.tensors import QuantizedTensor
from octavo.loading.threads import share

__all__ = ["BLOCK_BYTES", "BLOCK_SIZE", "quantize"]

BLOCK_SIZE = 32
BLOCK_BYTES = {"gguf:Q8_0": 34, "gguf:Q4_1": 20}

_BLOCKS_PER_CHUNK = 1 << 11  # 256 KiB of float32 and its temporaries stay in the second cache

Floats: TypeAlias = NDArray[np.float32]


def quantize(
    weight: NDArray[Any], scheme: str, importance: NDArray[np.floating] | None = None
) -> QuantizedTensor:
    """``weight`` [out_features, in_features] in blocks; in_features is a multiple of 32.

    ``importance`` [in_features] says how much an error in each column counts, where the scheme
    has a choice.
    """
    out_features, in_features = weight.shape
    if in_features % BLOCK_SIZE:
        raise ValueError(f"{in_features=} is not a multiple of {BLOCK_SIZE}")
    pack = _PACK[scheme]
    row_blocks = in_features // BLOCK_SIZE
    data = np.empty((out_features, row_blocks * BLOCK_BYTES[scheme]), np.uint8)
    rows_per_chunk = min(out_features, max(1, _BLOCKS_PER_CHUNK // row_blocks))
    weighting = Weighting.of(importance, in_features, rows_per_chunk, BLOCK_SIZE)

    def run(start: int) -> None:
        rows = slice(start, start + rows_per_chunk)
        blocks = np.asarray(weight[rows], np.float32).reshape(-1, BLOCK_SIZE)
        pack(blocks, weighting, data[rows].reshape(-1, BLOCK_BYTES[scheme]))

    share(run, range(0, out_features, rows_per_chunk))
    return QuantizedTensor(scheme, (out_features, in_features), data)


def _pack_q8_0(blocks: Floats, weighting: Weighting, out: NDArray[np.uint8]) -> None:
    """The largest weight becomes 127, whatever counts most."""
    del weighting
    scales = halves(np.abs(blocks).max(axis=1) / np.float32(127))
    codes = blocks * inverses(scales)[:, None]
    np.rint(codes, out=codes)
    out[:, :2] = half_bytes(scales)
    out[:, 2:] = np.clip(codes, -127, 127, out=codes).astype(np.int8).view(np.uint8)


_PACK: dict[str, Callable[[Floats, Weighting, NDArray[np.uint8]], None]] = {
    "gguf:Q8_0": _pack_q8_0,
    "gguf:Q4_1": pack_q4_1,
}
