"""GGUF's Q4_1: codes of four bits on a grid of each block's own, and the search for that grid.

A weight is ``scale * code + minimum``. Arrays hold one block a column, for NumPy's long loops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from octavo.loading.halves import half_bytes, halves, inverses

__all__ = ["Weighting", "pack_q4_1"]

# Parts of a block's span: outliers may cost less than a coarse grid.
_RANGES = (1.03, 0.96, 0.89, 0.82, 0.75, 0.68, 0.61, 0.54)
_LEAST_IMPORTANCE = np.float32(0.3)  # of the median: what is measured is an estimate

Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class Weighting:
    """How much the squared error of each weight of some blocks counts."""

    importance: Floats  # [block_size, blocks]
    heaviest: NDArray[np.intp]  # [blocks]: the weight of each that counts most

    @classmethod
    def of(
        cls, importance: NDArray[np.floating] | None, in_features: int, rows: int, block_size: int
    ) -> Weighting:
        """Of ``rows`` rows of blocks; ``importance`` [in_features], None where all count alike."""
        columns = np.ones(in_features, np.float32)
        if importance is not None:
            median = np.float32(np.median(importance))
            if np.isfinite(median) and median > 0:
                columns = np.asarray(importance / median, np.float32) + _LEAST_IMPORTANCE
        by_block = columns.reshape(-1, block_size)
        return cls(
            np.ascontiguousarray(np.tile(by_block, (rows, 1)).T),
            np.tile(by_block.argmax(axis=1), rows),
        )

    def first(self, num_blocks: int) -> Weighting:
        """The same for fewer blocks."""
        return Weighting(self.importance[:, :num_blocks], self.heaviest[:num_blocks])


def pack_q4_1(blocks: Floats, weighting: Weighting, out: NDArray[np.uint8]) -> None:
    """The scale and minimum with the least weighted error that a short search finds."""
    weights = np.ascontiguousarray(blocks.T)
    best = _search(weights, weighting.first(len(blocks)))
    codes = _codes(weights, best.scales, best.minima).astype(np.uint8)
    out[:, :2], out[:, 2:4] = half_bytes(best.scales), half_bytes(best.minima)
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


def _search(weights: Floats, weighting: Weighting) -> _Grid:
    """The grid from the least to the largest weight, or a better one; fitted again at the end.

    Others span a part of the range about its middle, moved by less than half a step so that the
    block's heaviest weight lies on the grid. It often outweighs all the others together.
    """
    lowest, highest = weights.min(axis=0), weights.max(axis=0)
    centre, span = (highest + lowest) * np.float32(0.5), highest - lowest
    blocks = _Blocks.of(weights, weighting)
    best = blocks.fit(span / np.float32(15), lowest)
    for part in _RANGES:
        scales = span * np.float32(part / 15)
        minima = centre - scales * np.float32(7.5)
        steps = (blocks.anchors - minima) * inverses(scales)
        best = best.better_of(blocks.fit(scales, minima + (steps - np.rint(steps)) * scales))
    return best.better_of(blocks.fit(best.scales, best.minima))


@dataclass(frozen=True)
class _Blocks:
    """Weights less each block's heaviest one, the anchor.

    Sums over offsets from the anchor keep their digits: the term that dwarfs the others is 0.
    """

    offsets: Floats  # [block_size, blocks]
    anchors: Floats  # [blocks]
    weighting: Weighting
    total: Floats  # [blocks]: sums of importance, and of it times the offsets and their squares
    sums: Floats
    squares: Floats

    @classmethod
    def of(cls, weights: Floats, weighting: Weighting) -> _Blocks:
        """With the sums that no grid changes."""
        anchors = np.take_along_axis(weights, weighting.heaviest[None], axis=0)[0]
        offsets = weights - anchors
        weighted = weighting.importance * offsets
        total, sums = weighting.importance.sum(axis=0), weighted.sum(axis=0)
        squares = _sum_of_products(weighted, offsets)
        return cls(offsets, anchors, weighting, total, sums, squares)

    def fit(self, scales: Floats, minima: Floats) -> _Grid:
        """Codes on a grid, and then the straight line through (code, weight).

        A block with one code only keeps its grid.
        """
        scales, minima = halves(scales), halves(minima)
        codes = _codes(self.offsets, scales, minima - self.anchors)
        anchor_codes = np.take_along_axis(codes, self.weighting.heaviest[None], axis=0)[0]
        codes -= anchor_codes
        weighted = self.weighting.importance * codes
        code_sums, code_squares = weighted.sum(axis=0), _sum_of_products(weighted, codes)
        products = _sum_of_products(weighted, self.offsets)
        variance = code_squares - code_sums * code_sums / self.total
        covariance = products - code_sums * self.sums / self.total
        is_line = variance > 0
        slopes = halves(np.divide(covariance, variance, out=scales.copy(), where=is_line))
        at_anchor = (self.sums - slopes * code_sums) / self.total
        fitted = halves(self.anchors + at_anchor - slopes * anchor_codes)
        fitted = np.where(is_line, fitted, minima)
        at_anchor = fitted - self.anchors + slopes * anchor_codes  # as rounded
        errors = self.squares - 2 * (slopes * products + at_anchor * self.sums)
        errors += slopes * (slopes * code_squares + 2 * at_anchor * code_sums)
        errors += at_anchor * at_anchor * self.total
        return _Grid(slopes, fitted, errors)


def _codes(weights: Floats, scales: Floats, minima: Floats) -> Floats:
    codes: Floats = weights - minima
    codes *= inverses(scales)
    np.rint(codes, out=codes)
    return np.clip(codes, np.float32(0), np.float32(15), out=codes)


def _sum_of_products(a: Floats, b: Floats) -> Floats:
    """Over the weights of each block."""
    total: Floats = np.einsum("wb,wb->b", a, b)
    return total
