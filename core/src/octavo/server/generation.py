"""The engine requests of one HTTP call: taken all or none, and their outputs merged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from octavo.errors import OctavoError
from octavo.sampling_params import RequestOutputKind, SamplingParams
from octavo.server.errors import ApiError, api_error_of
from octavo.server.monitoring.request_metrics import RequestFigures
from octavo.server.monitoring.request_record import current_record

if TYPE_CHECKING:
    from octavo.outputs import RequestOutput
    from octavo.prompts import Prompt
    from octavo.server.engines.client import EngineClient, OutputStream

__all__ = ["EngineRequest", "Generation"]


@dataclass(frozen=True)
class EngineRequest:
    """One prompt and how it is to be answered."""

    prompt: Prompt
    params: SamplingParams
    priority: int = 0
    cache_salt: str | None = None


class Generation:
    """Requests under way together. Iterates over (index of the request, output), as deltas.

    ``close`` must be called at the end, whatever happens; it ends what still runs.
    """

    def __init__(self, engine: EngineClient, streams: Sequence[OutputStream]) -> None:
        self.streams = tuple(streams)
        self._engine = engine
        self._record = current_record()
        self._record.note_prompt(sum(len(stream.prompt_token_ids) for stream in self.streams))
        figures = self._record.figures or RequestFigures()
        self._timers = [figures.timer(self._record.started_s) for _ in self.streams]

    @classmethod
    async def open(
        cls, engine: EngineClient, request_id: str, requests: Sequence[EngineRequest]
    ) -> Generation:
        """Submit all requests; raises ApiError, and then none of them runs."""
        # All at once: an engine takes requests between two steps, and need not wait for each.
        submissions = [
            asyncio.ensure_future(
                engine.submit(
                    request_id if len(requests) == 1 else f"{request_id}-{index}",
                    request.prompt,
                    replace(request.params, output_kind=RequestOutputKind.DELTA),
                    priority=request.priority,
                    cache_salt=request.cache_salt,
                )
            )
            for index, request in enumerate(requests)
        ]
        try:
            streams = await asyncio.gather(*submissions)
        except BaseException as error:
            await _take_back(submissions)
            if isinstance(error, OctavoError):
                raise api_error_of(error) from error
            raise
        return cls(engine, streams)

    def close(self) -> None:
        """End what still runs; its blocks are free within a step."""
        for stream, timer in zip(self.streams, self._timers, strict=True):
            stream.close()
            timer.close()

    async def __aiter__(self) -> AsyncIterator[tuple[int, RequestOutput]]:
        if len(self.streams) == 1:
            async for output in self.streams[0]:
                yield 0, self._noted(0, output)
            return
        async for index, output in self._merged():
            yield index, self._noted(index, output)

    def _noted(self, index: int, output: RequestOutput) -> RequestOutput:
        self._timers[index].note_output(output)
        self._record.note_tokens(sum(len(answer.token_ids) for answer in output.outputs))
        for answer in output.outputs:
            if answer.finish_reason is not None:
                self._record.finish_reasons.append(str(answer.finish_reason))
        if output.error is not None:
            raise self._fault(output.error)
        return output

    def _fault(self, message: str) -> ApiError:
        """Of the engine as a whole, which may be gone; or of this request's steps alone."""
        if self._engine.is_sleeping or self._engine.failure is not None:
            status = HTTPStatus.SERVICE_UNAVAILABLE
            return ApiError(message, status=status, code="engine_unavailable")
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        return ApiError(message, status=status, code="engine_error")

    async def _merged(self) -> AsyncIterator[tuple[int, RequestOutput]]:
        merged: asyncio.Queue[tuple[int, RequestOutput | BaseException | None]] = asyncio.Queue(1)

        async def pump(index: int, stream: OutputStream) -> None:
            try:
                async for output in stream:
                    await merged.put((index, output))
            except Exception as error:  # noqa: BLE001 - raised below, where it is waited for
                await merged.put((index, error))
            else:
                await merged.put((index, None))

        pumps = [
            asyncio.create_task(pump(index, stream)) for index, stream in enumerate(self.streams)
        ]
        try:
            num_open = len(pumps)
            while num_open:
                index, item = await merged.get()
                if item is None:
                    num_open -= 1
                elif isinstance(item, BaseException):
                    raise item
                else:
                    yield index, item
        finally:
            for task in pumps:
                task.cancel()


async def _take_back(submissions: Sequence[asyncio.Future[OutputStream]]) -> None:
    """End every request that was taken, and let none be taken any more."""
    for submission in submissions:
        submission.cancel()
    for outcome in await asyncio.gather(*submissions, return_exceptions=True):
        if not isinstance(outcome, BaseException):
            outcome.close()
