"""Python objects over a socket between two processes of our own: length, then pickle.

Never for what comes over a network: a pickle may do anything.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from typing import Any

__all__ = ["FrameReader", "frame_of"]

_LENGTH = struct.Struct("<Q")


def frame_of(message: Any) -> bytes:
    """The bytes of a message."""
    content = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(content)) + content


class FrameReader:
    """Puts messages together from bytes as they come."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, received: bytes) -> Iterator[Any]:
        """The messages that are complete now."""
        buffer = self._buffer
        buffer += received
        start = 0
        while len(buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, start)
            end = start + _LENGTH.size + length
            if len(buffer) < end:
                break
            with memoryview(buffer) as view:
                yield pickle.loads(view[start + _LENGTH.size : end])  # noqa: S301 - our own process
            start = end
        del buffer[:start]
