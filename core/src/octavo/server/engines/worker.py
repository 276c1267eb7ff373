"""The process of an engine: loads it, serves one client over a socket, ends when that is gone.

``python -m octavo.server.engines.worker SOCKET``, started by ``engine_process``.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import socket
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

from octavo.open_device import open_device
from octavo.server.engines.desk import EngineDesk
from octavo.server.engines.frames import FrameReader, frame_of
from octavo.server.engines.info import info_of
from octavo.server.engines.messages import Key, Loaded, ReplyError, Round, Stop, as_reply_error
from octavo.server.engines.output_wire import pack_output

if TYPE_CHECKING:
    from octavo.config import EngineConfig
    from octavo.engine_loader import LoadedEngine

__all__ = ["EngineWorker"]

_CHUNK_BYTES = 1 << 18
_CLIENT_GONE = 3  # exit status


class EngineWorker:
    """One engine in the main thread of its process; a second thread reads what the client sends."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._desk: EngineDesk | None = None
        self._config = threading.Event()
        self._received_config: EngineConfig | None = None
        self._num_sent_logprobs: dict[Key, int] = {}
        threading.Thread(target=self._read, name="octavo-client", daemon=True).start()

    def run(self) -> None:
        """Load what the client asks for and serve it until it says stop."""
        self._config.wait()
        try:
            loaded = self._load()
        except Exception as error:  # noqa: BLE001 - told to the client
            self._send(Loaded(error=as_reply_error(error)))
            return
        self._desk = EngineDesk(loaded.engine, self._send_round)
        engine = loaded.engine
        self._send(Loaded(info_of(loaded), engine.vocabulary.eos_token_ids, engine.stats))
        gc.freeze()  # what is loaded stays: no collection need look at it again
        self._desk.run()
        self._send(Stop(_close(loaded)))

    def _load(self) -> LoadedEngine:
        assert self._received_config is not None  # noqa: S101 - waited for
        opened = open_device(self._received_config)
        from octavo.engine_loader import load_engine  # heavy: only once there is a device

        return load_engine(self._received_config, opened)

    def _read(self) -> None:
        """Hand on what the client sends. When it is gone there is no reason to go on."""
        try:
            frames = FrameReader()
            while received := self._connection.recv(_CHUNK_BYTES):
                for message in frames.feed(received):
                    self._take(message)
        except ConnectionError:
            pass
        except Exception:  # noqa: BLE001 - whatever it is, nobody can be served any more
            traceback.print_exc()
        os._exit(_CLIENT_GONE)  # at once, whatever the engine is doing

    def _take(self, message: Any) -> None:
        if self._desk is None:
            self._received_config = message
            self._config.set()
        elif isinstance(message, Stop):
            self._desk.stop()
        else:
            self._desk.post(message)

    def _send_round(self, round_: Round) -> None:
        outputs = [
            (key, pack_output(output, self._count_logprobs(key, output)))
            for key, output in round_.outputs
        ]
        self._send((round_.replies, outputs, round_.stats, round_.failure, round_.is_sleeping))

    def _count_logprobs(self, key: Key, output: Any) -> int:
        """How many log-probabilities of its prompt the client has already."""
        if output.prompt_logprobs is None:
            return 0
        num_sent = self._num_sent_logprobs.pop(key, 0)
        if not output.finished:
            self._num_sent_logprobs[key] = len(output.prompt_logprobs)
        return num_sent

    def _send(self, message: Any) -> None:
        """Waits while the client does not read: it cannot fall behind by more than the socket."""
        try:
            self._connection.sendall(frame_of(message))
        except ConnectionError:
            os._exit(_CLIENT_GONE)


def _close(loaded: LoadedEngine) -> ReplyError | None:
    try:
        loaded.close()
    except Exception as error:  # noqa: BLE001 - told to the client
        return as_reply_error(error)
    return None


def main() -> None:
    """Serve on the socket whose number is the first argument."""
    faulthandler.enable()
    # The client says when to stop: these come to it as well, and it has requests to finish.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    EngineWorker(socket.socket(fileno=int(sys.argv[1]))).run()
    sys.stderr.flush()
    os._exit(0)  # a step that hangs, or a library's threads, must not keep the process


if __name__ == "__main__":
    main()
