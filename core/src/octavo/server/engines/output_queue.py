"""Outputs of one request on their way to a reader that may be slow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from octavo.errors import BackendError
from octavo.sampling_params import RequestOutputKind
from octavo.server.engines.client import OutputStream

if TYPE_CHECKING:
    from octavo.outputs import CompletionOutput, Logprob, RequestOutput

__all__ = ["OutputQueue", "merge_deltas"]

_MERGE_AT = 64  # outputs that nobody has read yet


class OutputQueue(OutputStream):
    """A stream that a client feeds. What waits is merged, so that it takes no more than the answer.

    One reader at a time.
    """

    def __init__(
        self,
        request_id: str,
        prompt: str | None,
        prompt_token_ids: list[int],
        kind: RequestOutputKind,
        end_request: Callable[[], None],
    ) -> None:
        """``end_request`` is called once if the stream is closed before it has ended."""
        self.request_id = request_id
        self.prompt = prompt
        self.prompt_token_ids = prompt_token_ids
        self.prompt_logprobs: list[dict[int, Logprob] | None] = []
        """What has come of them, where they come piece by piece."""
        self._is_delta = kind is RequestOutputKind.DELTA
        self._end_request = end_request
        self._waiting: list[RequestOutput] = []
        self._has_ended = False
        self._error: str | None = None
        self._reader: asyncio.Future[None] | None = None

    def put(self, output: RequestOutput) -> None:
        """Hand over the next output."""
        if not self._is_delta:
            self._waiting.clear()  # each holds all of the ones before
        elif len(self._waiting) >= _MERGE_AT:
            self._waiting = [merge_deltas(self._waiting)]
        self._waiting.append(output)
        self._has_ended = output.finished
        self._wake()

    def fail(self, error: str) -> None:
        """No more outputs come."""
        self._error, self._has_ended = error, True
        self._wake()

    async def __anext__(self) -> RequestOutput:
        """The next output: all that has come since the last."""
        while not self._waiting:
            if self._error is not None:
                raise BackendError(self._error)
            if self._has_ended:
                raise StopAsyncIteration
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        waiting, self._waiting = self._waiting, []
        return waiting[0] if len(waiting) == 1 else merge_deltas(waiting)

    def close(self) -> None:
        """End the request, if it has not ended; whoever reads is told of the end."""
        if not self._has_ended:
            self._has_ended = True
            self._waiting.clear()
            self._end_request()
            self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


def merge_deltas(outputs: Sequence[RequestOutput]) -> RequestOutput:
    """One output for several of a request in a row: their answers joined, the rest the last's."""
    parts: dict[int, list[CompletionOutput]] = {}
    for output in outputs:
        for answer in output.outputs:
            parts.setdefault(answer.index, []).append(answer)
    return replace(outputs[-1], outputs=[_joined(parts[index]) for index in sorted(parts)])


def _joined(answers: Sequence[CompletionOutput]) -> CompletionOutput:
    last = answers[-1]
    return replace(
        last,
        text="".join(answer.text for answer in answers),
        token_ids=[token_id for answer in answers for token_id in answer.token_ids],
        logprobs=None
        if last.logprobs is None
        else [entry for answer in answers for entry in answer.logprobs or ()],
    )
