"""The parent's side of a worker: ask it, with a time limit, and find out how it died."""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from octavo.errors import BackendError, DeviceError, OctavoError, PluginError, UsageError

__all__ = ["WorkerDeathError", "WorkerProcess"]

_COMMAND = (sys.executable, "-P", "-m", "octavo.testing.worker")
_POLL_S = 0.2
_GRACE_S = 5.0  # the worker ends itself at the limit and says where it was; after this it is killed
_KEPT_LINES = 8  # of what a dying process wrote
_OWN_CALLER = str(Path("octavo", "testing", "conform.py"))
_ERRORS = {kind.__name__: kind for kind in (BackendError, DeviceError, PluginError, UsageError)}


class WorkerDeathError(Exception):
    """The process ended, was ended or talked nonsense while it was asked; the message says how."""


class WorkerProcess:
    """One process of ``octavo.testing.worker``. ``on_output`` gets each line that it prints."""

    def __init__(self, on_output: Callable[[str], object]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="octavo-conform-")
        self._crash_report = Path(self._folder.name, "crash.txt")
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [*_COMMAND, str(self._crash_report)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="backslashreplace",
            env={**os.environ, "PYTHONIOENCODING": "utf-8:backslashreplace"},
            # Of its own: Ctrl-C reaches the parent alone, which ends this group as a whole.
            start_new_session=True,
        )
        self._answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._printed: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
        self._on_output = on_output
        self._readers = [
            self._read(self._process.stdout, self._answers.put, lambda: self._answers.put(None)),
            self._read(self._process.stderr, self._take_printed, lambda: None),
        ]

    def ask(self, limit_s: float, doing: str, **request: Any) -> dict[str, Any]:
        """The answer to a request; ``doing`` says when it died, if it dies of it.

        Raises WorkerDeathError, or the OctavoError that it answers with.
        """
        self._printed.clear()
        started_s = time.monotonic()
        with contextlib.suppress(BrokenPipeError, OSError):  # its death is told below
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps({**request, "limit_s": limit_s}) + "\n")
            self._process.stdin.flush()
        line = self._next_answer(started_s + limit_s + _GRACE_S)
        if line is None:
            was_late = time.monotonic() - started_s >= limit_s
            raise WorkerDeathError(self._describe_death(doing, limit_s if was_late else None))
        answer = _parse(line)
        if answer is None:
            raise WorkerDeathError(f"The process wrote no answer but {line[:80]!r} {doing}.")
        _raise_error_in(answer)
        return answer

    def end(self, limit_s: float) -> None:
        """Let it close the backend and leave; killed if that takes too long."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(limit_s)
        self.kill()

    def kill(self) -> None:
        """End it, and what it has started, at once."""
        self._end_group()
        self._process.wait()
        for reader in self._readers:
            reader.join(_GRACE_S)
        # A process that left the group may still hold a pipe, which then cannot be closed.
        if not any(reader.is_alive() for reader in self._readers):
            for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
                with contextlib.suppress(OSError):
                    if pipe is not None:
                        pipe.close()
        self._folder.cleanup()

    def _end_group(self) -> None:
        if os.name == "posix":
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()

    def _next_answer(self, deadline_s: float) -> str | None:
        """A line, or None if the process died or the deadline passed."""
        while time.monotonic() < deadline_s:
            # Asked before waiting, so that an answer given just before the end is not lost.
            has_ended = self._process.poll() is not None
            try:
                return self._answers.get(timeout=_POLL_S)
            except queue.Empty:
                if has_ended:
                    return None
        return None

    def _describe_death(self, doing: str, exceeded_limit_s: float | None) -> str:
        if exceeded_limit_s is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_S)
            how = f"{_ending(self._process.poll())} {doing}."
        else:
            how = f"No answer within {exceeded_limit_s:g} s {doing}; the process was ended."
        self._end_group()
        self._readers[1].join(_GRACE_S)  # what it printed last
        return "\n".join([how, *self._last_words()])

    def _last_words(self) -> list[str]:
        """Where it was, by Python's own crash report, and the last lines it printed."""
        lines = []
        with contextlib.suppress(OSError):
            report = self._crash_report.read_text(encoding="utf-8", errors="replace")
            frames = innermost_frames(report)[:_KEPT_LINES]
            if frames:
                lines += ["It was here, the innermost call first:", *frames]
        if self._printed:
            lines += ["It last printed:", *(f"  {line}" for line in self._printed)]
        return lines

    def _take_printed(self, line: str) -> None:
        self._printed.append(line.rstrip())
        self._on_output(line)

    def _read(
        self, pipe: IO[str] | None, take: Callable[[str], object], at_end: Callable[[], object]
    ) -> threading.Thread:
        def read() -> None:
            assert pipe is not None
            with contextlib.suppress(OSError, ValueError):  # closed under us by kill()
                for line in pipe:
                    take(line)
            at_end()

        thread = threading.Thread(target=read, name="octavo-conform-reader", daemon=True)
        thread.start()
        return thread


def innermost_frames(crash_report: str) -> list[str]:
    """The frames of the thread that crashed, or else of the main one, up to the suite's own."""
    threads = re.split(r"^(?=(?:Current )?[Tt]hread )", crash_report, flags=re.MULTILINE)[1:]
    if not threads:
        return []
    crashed = [thread for thread in threads if thread.startswith("Current")]
    # Of several, faulthandler writes the main thread last.
    chosen = (crashed or threads)[-1]
    frames = [line for line in chosen.splitlines() if line.startswith("  File ")]
    return list(itertools.takewhile(lambda frame: _OWN_CALLER not in frame, frames))


def _ending(exit_code: int | None) -> str:
    if exit_code is None:
        return "The process closed its connection"
    if exit_code < 0:
        try:
            name = f" ({signal.Signals(-exit_code).name})"
        except ValueError:
            name = ""
        return f"The process died of signal {-exit_code}{name}"
    shown = f"{exit_code:#x}" if exit_code > 255 else str(exit_code)
    return f"The process ended itself with exit code {shown}"


def _parse(line: str) -> dict[str, Any] | None:
    """None for what is no answer: native code may write to any file, this pipe's too."""
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def _raise_error_in(answer: Mapping[str, Any]) -> None:
    if "error" in answer:
        raise _ERRORS.get(answer["error"], OctavoError)(answer["message"])
