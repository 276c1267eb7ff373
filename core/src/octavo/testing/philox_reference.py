"""Philox4x32-10 and the layout of a draw on Python integers, to hold octavo.philox against.

Salmon, Moraes, Dror, Shaw: "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011), section 3.3,
with the constants of Random123. The layout is the one that octavo.philox documents.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["philox_words", "reference_draw"]

_NUM_ROUNDS = 10
_WORD = 1 << 32


def philox_words(counter: Sequence[int], key: Sequence[int]) -> list[int]:
    """Four output words for four counter words and two key words, all below 2**32."""
    c, k = list(counter), list(key)
    for _ in range(_NUM_ROUNDS):
        high0, low0 = divmod(0xD2511F53 * c[0], _WORD)
        high1, low1 = divmod(0xCD9E8D57 * c[2], _WORD)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B9) % _WORD, (k[1] + 0xBB67AE85) % _WORD]
    return c


def reference_draw(seed: int, request_key: int, sample_index: int, position: int) -> int:
    """The uniform of one token, in parts of 2**24. Seed and request key are below 2**64."""
    counter = [position, sample_index, request_key % _WORD, request_key // _WORD]
    return philox_words(counter, [seed % _WORD, seed // _WORD])[0] >> 8
