"""The client's side of an engine elsewhere: streams, replies and figures, in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from octavo.errors import BackendError
from octavo.prompts import has_token_ids, read_prompt
from octavo.server.engines.client import EngineClient, EngineInfo
from octavo.server.engines.messages import Abort, Add, Call, Key, Message, Reply, Round, error_of
from octavo.server.engines.output_queue import OutputQueue

if TYPE_CHECKING:
    from octavo.completion import Vocabulary
    from octavo.engine_snapshot import EngineSnapshot, EngineStats
    from octavo.outputs import RequestOutput
    from octavo.prompts import Prompt
    from octavo.sampling_params import SamplingParams

__all__ = ["EngineFront"]


class EngineFront(EngineClient):
    """What all clients have in common; how messages reach the engine is for the kinds of them."""

    def __init__(self, info: EngineInfo, vocabulary: Vocabulary, stats: EngineStats) -> None:
        self.info = info
        self.tokenizer = vocabulary.tokenizer
        self._vocabulary = vocabulary
        self._stats = stats
        self._is_sleeping = False
        self._failure: str | None = None
        self._keys = itertools.count(1)
        self._streams: dict[Key, OutputQueue] = {}
        self._calls: dict[Key, asyncio.Future[Any]] = {}

    @property
    def failure(self) -> str | None:
        """Why the engine answers no more; None while it works."""
        return self._failure

    @property
    def is_sleeping(self) -> bool:
        """As of the last round."""
        return self._is_sleeping

    @property
    def stats(self) -> EngineStats:
        """As of the last round."""
        return self._stats

    @abstractmethod
    def _send(self, message: Message) -> None:
        """Have the engine handle a message; what is sent after its end is lost."""

    @abstractmethod
    async def attach(self) -> None:
        """Belong to the event loop that runs; called by all that sends, at no cost after once."""

    async def submit(
        self,
        request_id: str,
        prompt: Prompt,
        params: SamplingParams,
        *,
        priority: int = 0,
        cache_salt: str | None = None,
    ) -> OutputQueue:
        """Queue a request; text is encoded in a thread, beside the event loop and the engine."""
        self._check_works()
        read = (prompt, params, self._vocabulary, self.info.max_model_len)
        if has_token_ids(prompt):
            text, token_ids = read_prompt(*read)
        else:
            text, token_ids = await asyncio.to_thread(read_prompt, *read)
        key = next(self._keys)
        stream = OutputQueue(
            request_id, text, token_ids, params.output_kind, lambda: self._end_request(key)
        )
        self._streams[key] = stream
        whole_prompt = {"prompt": text, "prompt_token_ids": token_ids}
        try:
            await self._ask(Add(key, request_id, whole_prompt, params, priority, cache_salt))
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                stream.close()
            self._streams.pop(key, None)
            raise
        return stream

    async def snapshot(self) -> EngineSnapshot:
        """Who runs and waits now, and what every block holds."""
        snapshot: EngineSnapshot = await self._call("snapshot")
        return snapshot

    async def reset_prefix_cache(self) -> int:
        """Forget cached prefixes that no running request uses; how many blocks held one."""
        num_blocks: int = await self._call("reset_prefix_cache")
        return num_blocks

    async def sleep(self, level: int = 1) -> None:
        """End all requests and give memory back: 1 the KV cache, 2 the weights as well."""
        await self._call("sleep", level)

    async def wake_up(self) -> None:
        """Take the memory again, load again what was given up."""
        await self._call("wake_up")

    async def _call(self, name: Any, *arguments: Any) -> Any:
        self._check_works()
        return await self._ask(Call(next(self._keys), name, arguments))

    async def _ask(self, message: Add | Call) -> Any:
        await self.attach()
        answer = asyncio.get_running_loop().create_future()
        self._calls[message.key] = answer
        try:
            self._send(message)
            return await answer
        finally:
            self._calls.pop(message.key, None)

    def _check_works(self) -> None:
        if self.failure is not None:
            raise BackendError(self.failure)

    def _end_request(self, key: Key) -> None:
        if self._streams.pop(key, None) is not None:
            self._send(Abort(key))

    def _receive(self, round_: Round) -> None:
        """Hand out what came of one round; in the event loop."""
        self._stats = round_.stats
        self._is_sleeping = round_.is_sleeping
        if round_.failure is not None:
            self._failure = round_.failure
        for reply in round_.replies:
            self._take_reply(reply)
        for key, output in round_.outputs:
            self._take_output(key, output)

    def _take_reply(self, reply: Reply) -> None:
        answer = self._calls.pop(reply.key, None)
        if answer is None or answer.done():
            return
        if reply.error is None:
            answer.set_result(reply.value)
        else:
            answer.set_exception(error_of(reply.error))

    def _take_output(self, key: Key, output: RequestOutput) -> None:
        stream = self._streams.get(key)
        if stream is None:
            return
        if output.finished:
            del self._streams[key]
        stream.put(output)

    def _lose(self, why: str) -> None:
        """The engine is gone: everybody who waits is told; in the event loop."""
        self._failure = self._failure or why
        streams, self._streams = self._streams, {}
        calls, self._calls = self._calls, {}
        for stream in streams.values():
            stream.fail(self._failure)
        for answer in calls.values():
            with contextlib.suppress(asyncio.InvalidStateError):
                answer.set_exception(BackendError(self._failure))
