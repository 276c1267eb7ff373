"""The engine's side of a client: takes messages, and sends what came of each round at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from octavo.engine_loop import EngineLoop
from octavo.server.engines.messages import (
    Abort,
    Add,
    Call,
    Key,
    Message,
    Reply,
    Round,
    as_reply_error,
)

if TYPE_CHECKING:
    from octavo.engine import Engine
    from octavo.outputs import RequestOutput

__all__ = ["EngineDesk"]


class EngineDesk:
    """Serves one engine to one client. All but ``post`` and ``stop`` in the thread of ``run``."""

    def __init__(self, engine: Engine, send: Callable[[Round], None]) -> None:
        """``send`` is called in the thread of ``run``; what it takes must not be changed."""
        self._engine = engine
        self._send = send
        self._loop = EngineLoop(engine, self._publish)
        self._replies: list[Reply] = []
        self._keys: dict[str, Key] = {}
        self._request_ids: dict[Key, str] = {}

    def post(self, message: Message) -> None:
        """Have a message handled before the next step; from any thread."""
        self._loop.post(partial(self._handle, message))

    def stop(self) -> None:
        """Let ``run`` return; from any thread."""
        self._loop.stop()

    def run(self) -> None:
        """Serve until ``stop``; the last round ends every request."""
        self._loop.run()

    def _handle(self, message: Message) -> Iterable[RequestOutput]:
        match message:
            case Add():
                self._add(message)
            case Abort(key):
                self._abort(key)
            case Call():
                return self._call(message)
        return ()

    def _add(self, message: Add) -> None:
        try:
            self._engine.add_request(
                message.request_id,
                message.prompt,
                message.params,
                priority=message.priority,
                cache_salt=message.cache_salt,
            )
        except Exception as error:  # noqa: BLE001 - belongs to who asked
            self._replies.append(Reply(message.key, error=as_reply_error(error)))
            return
        self._keys[message.request_id] = message.key
        self._request_ids[message.key] = message.request_id
        self._replies.append(Reply(message.key))

    def _abort(self, key: Key) -> None:
        """Without an output: whoever sent this does not read any more."""
        request_id = self._request_ids.pop(key, None)
        if request_id is not None:
            del self._keys[request_id]
            self._engine.abort([request_id])

    def _call(self, message: Call) -> Iterable[RequestOutput]:
        outputs: list[RequestOutput] = []
        try:
            value: Any = None
            match message.name:
                case "snapshot":
                    value = self._engine.snapshot()
                case "reset_prefix_cache":
                    value = self._engine.scheduler.reset_prefix_cache()
                case "sleep":
                    outputs = self._engine.sleep(*message.arguments)
                case "wake_up":
                    self._engine.wake_up()
        except Exception as error:  # noqa: BLE001 - belongs to who asked
            self._replies.append(Reply(message.key, error=as_reply_error(error)))
        else:
            self._replies.append(Reply(message.key, value))
        return outputs

    def _publish(self, outputs: list[RequestOutput]) -> None:
        replies, self._replies = self._replies, []
        engine = self._engine
        addressed = [
            (self._key_of(output), output)
            for output in outputs
            if output.request_id in self._keys  # not of one that was aborted meanwhile
        ]
        self._send(Round(replies, addressed, engine.stats, engine.failure, engine.is_sleeping))

    def _key_of(self, output: RequestOutput) -> Key:
        key = self._keys[output.request_id]
        if output.finished:
            del self._keys[output.request_id], self._request_ids[key]
        return key
