"""Philox4x32-10, the counter-based generator behind every random draw.

Salmon, Moraes, Dror, Shaw: "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011). A draw is a
pure function of (seed, request, sample, position): no state to save, fork or replay, and any
backend can compute it. Layout of one draw, in 32-bit words:

    key     = (seed & 0xffffffff, seed >> 32)
    counter = (position, sample_index, request_key & 0xffffffff, request_key >> 32)
    uniform = (first output word >> 8) * 2**-24

Everything is arithmetic on values, never on their bytes, so byte order plays no part.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["philox4x32", "uniforms"]

_NUM_ROUNDS = 10
_WORD_BITS = np.uint64(32)
_WORD_MASK = np.uint64(0xFFFFFFFF)
_MULTIPLIERS = np.array([[[0xD2511F53], [0xCD9E8D57]], [[0xCD9E8D57], [0xD2511F53]]], np.uint64)
_KEY_STEPS = np.array([[0x9E3779B9], [0xBB67AE85]], np.uint64)
_ROUND_KEY_OFFSETS = np.arange(_NUM_ROUNDS, dtype=np.uint64)[:, None, None] * _KEY_STEPS


def philox4x32(counter: NDArray[np.uint64], key: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Ten rounds over u64[4, draws] counter words and u64[2, draws] key words, all below 2**32.

    Returns u64[4, draws], output words in Random123's order.
    """
    # A round makes new words (2, 0) out of words (0, 2). Rather than swap them back each time, the
    # key words and multipliers take turns; after ten rounds the order is (0, 2) again.
    round_keys = (key + _ROUND_KEY_OFFSETS) & _WORD_MASK
    round_keys[0::2] = round_keys[0::2, ::-1]
    multiplied, mixed = counter[0::2], counter[1::2]
    for index, round_key in enumerate(round_keys):
        mixed_above = mixed[::-1]
        mixed = multiplied * _MULTIPLIERS[index % 2]
        multiplied = mixed >> _WORD_BITS
        multiplied ^= mixed_above
        multiplied ^= round_key
        mixed &= _WORD_MASK
    return np.stack([multiplied[0], mixed[0], multiplied[1], mixed[1]])


def uniforms(
    seeds: NDArray[np.uint64],
    request_keys: NDArray[np.uint64],
    sample_indices: ArrayLike,
    positions: ArrayLike,
) -> NDArray[np.float32]:
    """float32[rows] in [0, 1), multiples of 2**-24; one draw for each row of the arguments."""
    counter = np.empty((4, len(seeds)), np.uint64)
    counter[0] = positions
    counter[1] = sample_indices
    counter[2] = request_keys & _WORD_MASK
    counter[3] = request_keys >> _WORD_BITS
    key = np.stack([seeds & _WORD_MASK, seeds >> _WORD_BITS])
    first_word = philox4x32(counter, key)[0]
    draws: NDArray[np.float32] = (first_word >> np.uint64(8)).astype(np.float32)
    draws *= np.float32(2.0**-24)
    return draws
