"""Quantises weights while they are loaded: ``--quantization int8`` and ``int4``.

The result has GGUF's own formats, so that a backend needs no kernels beside those for GGUF files:
Q8_0 (8.5 bits a weight) and Q4_1 (5 bits), in blocks of 32 along a row.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from octavo.loading.tensors import QuantizedTensor

__all__ = ["BLOCK_BYTES", "BLOCK_SIZE", "quantize"]

BLOCK_SIZE = 32
BLOCK_BYTES = {"gguf:Q8_0": 34, "gguf:Q4_1": 20}

_BLOCKS_PER_CHUNK = 1 << 11  # 256 KiB of float32 and its temporaries stay in the second cache
_LARGEST_HALF = np.float32(65504)
_RANGES = (1.0, 0.92)  # of a block's span: outliers may cost less than a coarse grid

Floats: TypeAlias = NDArray[np.float32]


def quantize(weight: NDArray[Any], scheme: str) -> QuantizedTensor:
    """``weight`` [out_features, in_features] in blocks; in_features is a multiple of 32.

    Chunks of rows are shared among threads; NumPy lets go of the GIL in each of its loops.
    """
    out_features, in_features = weight.shape
    if in_features % BLOCK_SIZE:
        raise ValueError(f"{in_features=} is not a multiple of {BLOCK_SIZE}")
    pack = _PACK[scheme]
    row_blocks = in_features // BLOCK_SIZE
    data = np.empty((out_features, row_blocks * BLOCK_BYTES[scheme]), np.uint8)
    rows_per_chunk = max(1, _BLOCKS_PER_CHUNK // row_blocks)

    def run(start: int) -> None:
        rows = slice(start, start + rows_per_chunk)
        blocks = np.asarray(weight[rows], np.float32).reshape(-1, BLOCK_SIZE)
        pack(blocks, data[rows].reshape(-1, BLOCK_BYTES[scheme]))

    with ThreadPoolExecutor(_num_threads()) as threads:
        list(threads.map(run, range(0, out_features, rows_per_chunk)))
    return QuantizedTensor(scheme, (out_features, in_features), data)


def _num_threads() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _pack_q8_0(blocks: Floats, out: NDArray[np.uint8]) -> None:
    """The largest weight becomes 127."""
    scales = _halves(np.abs(blocks).max(axis=1) / np.float32(127))
    codes = blocks * _inverses(scales)[:, None]
    np.rint(codes, out=codes)
    out[:, :2] = _bytes_of(scales)
    out[:, 2:] = np.clip(codes, -127, 127, out=codes).astype(np.int8).view(np.uint8)


def _pack_q4_1(blocks: Floats, out: NDArray[np.uint8]) -> None:
    """The scale and minimum with the least squared error that a short search finds."""
    weights = np.ascontiguousarray(blocks.T)  # one column a block: long loops for NumPy
    lowest, highest = weights.min(axis=0), weights.max(axis=0)
    centre, span = (highest + lowest) * np.float32(0.5), highest - lowest
    widths = [span * np.float32(part) for part in _RANGES]
    best = functools.reduce(
        _Grid.better_of, (_grid(weights, centre - width / 2, width) for width in widths)
    )
    codes = _codes(weights, best.scales, best.minima).astype(np.uint8)
    out[:, :2], out[:, 2:4] = _bytes_of(best.scales), _bytes_of(best.minima)
    out[:, 4:] = (codes[:16] | codes[16:] << np.uint8(4)).T


@dataclass(frozen=True)
class _Grid:
    """Scale and minimum of each block, and what they cost."""

    scales: Floats
    minima: Floats
    errors: Floats

    def better_of(self, other: _Grid) -> _Grid:
        """The better one for each block."""
        is_better = other.errors < self.errors
        return _Grid(
            np.where(is_better, other.scales, self.scales),
            np.where(is_better, other.minima, self.minima),
            np.where(is_better, other.errors, self.errors),
        )


def _codes(weights: Floats, scales: Floats, minima: Floats) -> Floats:
    codes: Floats = weights - minima
    codes *= _inverses(scales)
    np.rint(codes, out=codes)
    np.maximum(codes, np.float32(0), out=codes)
    np.minimum(codes, np.float32(15), out=codes)
    return codes


def _grid(weights: Floats, lowest: Floats, width: Floats) -> _Grid:
    """Codes over a range, and then the straight line through (code, weight).

    A block with one code only keeps the scale and minimum of the range.
    """
    scales, minima = _halves(width / np.float32(15)), _halves(lowest)
    codes = _codes(weights, scales, minima)
    mean_code, mean_weight = codes.mean(axis=0), weights.mean(axis=0)
    codes_off, weights_off = codes - mean_code, weights - mean_weight
    variance = _sum_of_products(codes_off, codes_off)
    covariance = _sum_of_products(codes_off, weights_off)
    is_line = variance > 0
    slopes = _halves(np.divide(covariance, variance, out=scales.copy(), where=is_line))
    offsets = _halves(np.where(is_line, mean_weight - slopes * mean_code, minima))
    errors = codes * slopes
    errors += offsets
    errors -= weights
    return _Grid(slopes, offsets, _sum_of_products(errors, errors))


def _sum_of_products(a: Floats, b: Floats) -> Floats:
    """Over the weights of each block."""
    total: Floats = (a * b).sum(axis=0)
    return total


def _halves(values: Floats) -> Floats:
    """Rounded to what a float16 holds."""
    bounded = np.clip(values, -_LARGEST_HALF, _LARGEST_HALF)
    return bounded.astype(np.float16).astype(np.float32)


def _inverses(scales: Floats) -> Floats:
    """1 / scale, or 0 for a block without spread."""
    return np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales != 0)


def _bytes_of(halves: Floats) -> NDArray[np.uint8]:
    return halves.astype("<f2").reshape(-1, 1).view(np.uint8)


_PACK: dict[str, Callable[[Floats, NDArray[np.uint8]], None]] = {
    "gguf:Q8_0": _pack_q8_0,
    "gguf:Q4_1": _pack_q4_1,
}
