"""Run a plugin's code so that nothing it raises, and no hang, reaches the rest of the program.

A call runs in a daemon thread and is given up after a time limit. Two things cannot be isolated
inside one process: ``os._exit`` and a C extension that hangs while it holds the interpreter lock.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from octavo.errors import UsageError

__all__ = [
    "Fault",
    "GuardedCall",
    "describe",
    "has_abandoned_calls",
    "mark_abandoned",
    "time_limit_s",
]

T = TypeVar("T")

_THREAD_PREFIX = "octavo-guarded:"
_MAX_REASON_LENGTH = 400


class Fault(Exception):  # noqa: N818 - never leaves the plugin system: it becomes a reason
    """Why a plugin's code cannot be used, in one line fit to be shown."""


class GuardedCall(Generic[T]):
    """A call in a daemon thread, started at construction."""

    def __init__(self, function: Callable[[], T], name: str) -> None:
        self._function = function
        self._value: T | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=_THREAD_PREFIX + name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._function()
        except BaseException as error:  # noqa: BLE001 - SystemExit and the like are faults too
            self._error = error

    @property
    def is_running(self) -> bool:
        """Whether the call has neither returned nor raised yet."""
        return self._thread.is_alive()

    def result(self, deadline_s: float, hint: str = "") -> T:
        """The value, waited for until ``time.monotonic()`` reaches the deadline.

        Raises Fault with the reason if the call raised or still runs; KeyboardInterrupt as it is.
        """
        started_s = time.monotonic()
        self._thread.join(max(0.0, deadline_s - started_s))
        if self.is_running:
            raise Fault(f"gave no answer in time and was left behind{hint}")
        if isinstance(self._error, KeyboardInterrupt):
            raise self._error
        if isinstance(self._error, Fault):
            raise self._error
        if self._error is not None:
            raise Fault(f"raised {describe(self._error)}") from self._error
        return self._value  # type: ignore[return-value]  # T may include None


def has_abandoned_calls() -> bool:
    """Whether some guarded call still runs: then the process should end without waiting."""
    return any(thread.name.startswith(_THREAD_PREFIX) for thread in threading.enumerate())


def mark_abandoned(thread: threading.Thread) -> None:
    """Count a thread of somebody else's among the calls that were left behind."""
    thread.name = _THREAD_PREFIX + thread.name


def describe(error: BaseException) -> str:
    """One line: type, message, and the place it was raised at."""
    try:
        message = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - even __str__ is a plugin's code
        message = "(its message cannot be printed)"
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    if len(text) > _MAX_REASON_LENGTH:
        text = text[:_MAX_REASON_LENGTH] + " …"
    frames = traceback.extract_tb(error.__traceback__)
    if frames:
        text += f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})"  # noqa: PTH119
    return text


def time_limit_s(
    variable: str, default_s: float, environ: Mapping[str, str] | None = None
) -> float:
    """A time limit in seconds, from an environment variable where it is set."""
    text = (os.environ if environ is None else environ).get(variable, "").strip()
    if not text:
        return default_s
    try:
        limit_s = float(text)
    except ValueError:
        limit_s = -1.0
    if not 0 < limit_s < threading.TIMEOUT_MAX:
        raise UsageError(f"${variable} is {text!r}; expected a positive number of seconds.")
    return limit_s
