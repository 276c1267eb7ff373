"""Uniform numbers of rows that advance together, drawn for some steps at once.

A number is keyed by its position alone, not by when it is drawn, and one call of the generator
costs as much for a few steps as for one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from octavo.philox import uniforms

if TYPE_CHECKING:
    Int32 = NDArray[np.int32]

__all__ = ["Draws"]

_NUM_STEPS = 16


class Draws:
    """The numbers of one choice of rows; another choice, or other seeds, need another object."""

    def __init__(
        self, seeds: NDArray[np.uint64], request_keys: NDArray[np.uint64], sample_indices: Int32
    ) -> None:
        self._keys = seeds, request_keys, sample_indices
        self._first = np.empty(0, np.int32)  # position of each row in the table's first step
        self._table = np.empty((0, 0), np.float32)  # [steps, rows]

    def at(self, positions: Int32) -> NDArray[np.float32]:
        """float32[rows]: what ``octavo.philox.uniforms`` gives for these positions."""
        step = int(positions[0] - self._first[0]) if len(self._first) else -1
        if not 0 <= step < _NUM_STEPS or (positions - self._first != step).any():
            self._draw(positions)
            step = 0
        numbers: NDArray[np.float32] = self._table[step]
        return numbers

    def _draw(self, positions: Int32) -> None:
        steps = np.arange(_NUM_STEPS, dtype=np.int32)
        ahead = (steps[:, None] + positions).ravel()
        seeds, request_keys, sample_indices = self._keys
        self._first = positions
        numbers = uniforms(
            np.tile(seeds, _NUM_STEPS),
            np.tile(request_keys, _NUM_STEPS),
            np.tile(sample_indices, _NUM_STEPS),
            ahead,
        )
        self._table = numbers.reshape(_NUM_STEPS, -1)
