"""The process of an engine, as its client sees it: started, loaded, ended, and how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from octavo.errors import BackendError, UsageError
from octavo.server.engines.frames import FrameReader, frame_of
from octavo.server.engines.messages import error_of

if TYPE_CHECKING:
    from octavo.config import EngineConfig

__all__ = ["EngineProcess"]

_CHUNK_BYTES = 1 << 18
_GRACE_S = 5.0


class EngineProcess:
    """A process that runs ``octavo.server.engines.worker`` and the socket to it."""

    def __init__(self, config: EngineConfig) -> None:
        """Start it; it loads what ``config`` says. Raises UsageError where the system cannot."""
        if not hasattr(socket, "AF_UNIX") or os.name != "posix":
            raise UsageError(
                "An engine in a process of its own needs sockets that a child process inherits, "
                "which this system does not have: use engine_placement='thread'."
            )
        self.connection, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-P", "-m", "octavo.server.engines.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(map(_folder, sys.path))},
                # Of its own: Ctrl-C in the terminal is for the client, which has to drain first.
                start_new_session=True,
            )
        with contextlib.suppress(OSError):  # it has died already, as whoever waits will find
            self.connection.sendall(frame_of(config))

    @property
    def process_id(self) -> int:
        """As the operating system numbers it."""
        return self._process.pid

    def wait_until_loaded(self) -> Any:
        """The worker's first message, a Loaded without an error.

        Raises the OctavoError that loading raised there, or BackendError if the process has died.
        """
        frames = FrameReader()
        while received := self._receive():
            for loaded in frames.feed(received):
                if loaded.error is not None:
                    self.end()
                    raise error_of(loaded.error)
                return loaded
        raise BackendError(f"{self.end()} It was loading the model.")

    def _receive(self) -> bytes:
        """What has come; nothing once the process has ended."""
        try:
            return self.connection.recv(_CHUNK_BYTES)
        except ConnectionError:
            return b""

    def kill(self) -> None:
        """End it now, in whatever state it is."""
        self._process.kill()

    def end(self, grace_s: float = _GRACE_S) -> str:
        """Wait until it has ended, for ``grace_s`` seconds, then end it; how that was."""
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        return _describe(self._process.pid, self._process.returncode)


def _folder(path: str) -> str:
    return path or os.getcwd()  # noqa: PTH109 - as the interpreter reads it


def _describe(process_id: int, status: int) -> str:
    if status >= 0:
        return f"The engine's process {process_id} has ended with status {status}."
    name = signal.Signals(-status).name
    hint = ""
    if -status == signal.SIGKILL:
        hint = " The system does that when memory runs out."
    return f"The engine's process {process_id} was ended by {name}.{hint}"
