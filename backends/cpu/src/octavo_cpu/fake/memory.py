"""The fake device's memory: nothing but a count, given back when what took it is gone."""

from __future__ import annotations

import threading
import weakref

from octavo.api import BackendError, MemoryInfo

__all__ = ["FakeMemory", "FakeOutOfMemoryError"]

_MIB = 1 << 20


class FakeOutOfMemoryError(BackendError, MemoryError):
    """The fake device's memory is used up."""


class FakeMemory:
    """Counts the bytes of objects that are alive."""

    def __init__(self, total_bytes: int, place: str) -> None:
        self.total_bytes = total_bytes
        self.used_bytes = 0
        self._place = place
        self._lock = threading.RLock()  # whoever collects garbage may hold it already

    @property
    def free_bytes(self) -> int:
        """What nobody has taken."""
        return self.total_bytes - self.used_bytes

    def info(self) -> MemoryInfo:
        """As ``Backend.memory`` returns it."""
        return MemoryInfo(self.free_bytes, self.total_bytes, shared_with_host=False)

    def check(self, num_bytes: int, what: str, unit_bytes: int = 0, unit: str = "") -> None:
        """Raise FakeOutOfMemoryError if so much is not free, saying how many units would fit."""
        if num_bytes <= self.free_bytes:
            return
        fits = f" {self.free_bytes // unit_bytes} {unit} would fit." if unit_bytes else ""
        needed_bytes = self.used_bytes + num_bytes
        raise FakeOutOfMemoryError(
            f"{self._place} is out of memory: {what} takes {num_bytes / _MIB:,.1f} MiB, and "
            f"{self.free_bytes / _MIB:,.1f} MiB of {self.total_bytes / _MIB:,.1f} MiB are free."
            f"{fits} Ask for less, or set the option memory_bytes to {needed_bytes} or more."
        )

    def take(self, owner: object, num_bytes: int) -> None:
        """Count so many bytes until ``owner`` is gone."""
        with self._lock:
            self.used_bytes += num_bytes
        weakref.finalize(owner, self._give_back, num_bytes).atexit = False

    def _give_back(self, num_bytes: int) -> None:
        with self._lock:
            self.used_bytes -= num_bytes
