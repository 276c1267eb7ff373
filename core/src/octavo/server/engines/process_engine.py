"""``ProcessEngine``: an engine in a process of its own, reached over a socket."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from octavo.completion import Vocabulary
from octavo.server.engines.frames import FrameReader, frame_of
from octavo.server.engines.front import EngineFront
from octavo.server.engines.messages import Key, Loaded, Message, ReplyError, Round, Stop, error_of
from octavo.server.engines.output_wire import PackedOutput, unpack_output
from octavo.server.engines.process import EngineProcess

if TYPE_CHECKING:
    from octavo.config import EngineConfig
    from octavo.outputs import RequestOutput
    from octavo.tokenizer import Tokenizer

__all__ = ["ProcessEngine"]

_CLOSE_GRACE_S = 30.0  # for the step under way


class ProcessEngine(EngineFront):
    """Has an interpreter to itself; each step's outputs cross a socket."""

    def __init__(self, process: EngineProcess, loaded: Loaded, tokenizer: Tokenizer | None) -> None:
        """Serve a process that has loaded."""
        assert loaded.info is not None  # noqa: S101 - it has loaded
        assert loaded.stats is not None  # noqa: S101
        vocabulary = Vocabulary(loaded.info.vocab_size, tokenizer, loaded.eos_token_ids)
        super().__init__(loaded.info, vocabulary, loaded.stats)
        self.process = process
        self._transport: asyncio.Transport | None = None
        self._has_ended = asyncio.Event()
        self._note_end_task: asyncio.Task[None] | None = None
        self._close_error: ReplyError | None = None
        self._is_closing = False

    @classmethod
    def load(cls, config: EngineConfig, process: EngineProcess | None = None) -> ProcessEngine:
        """Load a model in a new process, or wait for ``process``, which has begun to.

        Takes as long as that takes. Raises OctavoError; the process has ended then.
        """
        from octavo.engine_loader import load_tokenizer_of  # heavy

        process = process or EngineProcess(config)
        try:
            loaded = process.wait_until_loaded()
            return cls(process, loaded, load_tokenizer_of(config))
        except BaseException:
            process.kill()
            process.end()
            process.connection.close()
            raise

    async def attach(self) -> None:
        """Belong to the event loop that runs: from now on the end of the process is noticed."""
        if self._transport is None and self._failure is None:
            loop = asyncio.get_running_loop()
            self._transport, _ = await loop.create_unix_connection(
                lambda: _Connection(self), sock=self.process.connection
            )

    async def close(self) -> None:
        """End every request, and the process with the device. Raises BackendError if that fails."""
        if self._is_closing:
            return
        self._is_closing = True
        await self.attach()
        if self._transport is not None:
            self._write(Stop())
            await asyncio.to_thread(self.process.end, _CLOSE_GRACE_S)
            await self._has_ended.wait()  # what it sent last may still be on its way
        if self._close_error is not None:
            raise error_of(self._close_error)

    def _send(self, message: Message) -> None:
        self._write(message)

    def _write(self, message: Message | Stop) -> None:
        # A process that has died has taken its socket with it; the end is told by _note_end.
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame_of(message))

    def _take_message(self, message: Any) -> None:
        if isinstance(message, Stop):
            self._close_error = message.error
            return
        replies, packed, stats, failure, is_sleeping = message
        outputs = [
            (key, output) for key, one in packed if (output := self._unpack(key, one)) is not None
        ]
        self._receive(Round(replies, outputs, stats, failure, is_sleeping))

    def _unpack(self, key: Key, packed: PackedOutput) -> RequestOutput | None:
        stream = self._streams.get(key)
        if stream is None:
            return None
        return unpack_output(
            packed,
            stream.request_id,
            stream.prompt,
            stream.prompt_token_ids,
            stream.prompt_logprobs,
        )

    def _connection_lost(self) -> None:
        self._note_end_task = asyncio.get_running_loop().create_task(self._note_end())

    async def _note_end(self) -> None:
        how = await asyncio.to_thread(self.process.end)
        self._lose("The engine was closed." if self._is_closing else how)
        self._has_ended.set()


class _Connection(asyncio.Protocol):
    """Puts what comes over the socket together and hands it on."""

    def __init__(self, engine: ProcessEngine) -> None:
        self._engine = engine
        self._frames = FrameReader()

    def data_received(self, data: bytes) -> None:
        """Some bytes have come."""
        for message in self._frames.feed(data):
            self._engine._take_message(message)  # noqa: SLF001 - its own other half

    def connection_lost(self, error: Exception | None) -> None:
        """The process has ended, or is about to."""
        del error
        self._engine._connection_lost()  # noqa: SLF001 - its own other half
