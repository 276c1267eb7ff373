"""A read-only memory-mapped file: bounds-checked views, and pages handed back after use."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from octavo.errors import ModelLoadError

__all__ = ["MappedFile"]


class MappedFile:
    """The bytes of one file as an array ``uint8[size_bytes]``; errors name the file.

    Views stay valid after ``close``: the mapping itself goes when the last view does.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self.size_bytes = file.seek(0, 2)
                if self.size_bytes == 0:
                    raise ModelLoadError(f"{path}: the file is empty; download it again")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise ModelLoadError(f"{path}: cannot be read ({error})") from error
        self._bytes: NDArray[np.uint8] = np.frombuffer(self._map, np.uint8)

    @property
    def buffer(self) -> mmap.mmap:
        """The mapping itself, for byte-wise parsing."""
        return self._map

    def view(self, start: int, num_bytes: int) -> NDArray[np.uint8]:
        """``uint8[num_bytes]`` from byte ``start``; the caller has checked both bounds."""
        return self._bytes[start : start + num_bytes]

    def release(self, start: int, num_bytes: int) -> None:
        """Tell the system that these pages will not be read again soon (where it can be told).

        A converted weight would otherwise sit in memory twice: once as the page of the file, once
        converted. Reading again is allowed and fetches the pages anew.
        """
        if num_bytes == 0 or not hasattr(mmap, "MADV_DONTNEED"):  # Windows, some other systems
            return
        first_page = start // mmap.PAGESIZE * mmap.PAGESIZE
        self._map.madvise(mmap.MADV_DONTNEED, first_page, start + num_bytes - first_page)

    def close(self) -> None:
        """Let go of the mapping. Nothing may be viewed or released afterwards."""
        self._bytes = np.empty(0, np.uint8)
