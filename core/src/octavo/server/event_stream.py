"""Answers as server-sent events, and what happens when nobody listens any more."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

__all__ = ["EVENT_STREAM", "ClientGone", "EventStream", "on_one_line", "sse", "until_disconnect"]

Result = TypeVar("Result")
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

EVENT_STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}
"""What a route that may answer with a stream says of it in the OpenAPI document."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
# Characters that JSON leaves as they are and that many clients take for the end of a line.
_LINE_ENDS = {"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"}


class ClientGone(Exception):  # noqa: N818 - not an error: nobody is left to be told
    """The client has closed the connection."""


def sse(data: Any, event: str | None = None) -> bytes:
    """One server-sent event; ``data`` is sent as JSON, text as it is."""
    text = data if isinstance(data, str) else on_one_line(_encode(data))
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {text}\n\n".encode("utf-8", "replace")


def on_one_line(json_text: str) -> str:
    """The same JSON without any character that could be taken for the end of a line."""
    if not json_text.isascii():
        for character, escape in _LINE_ENDS.items():
            json_text = json_text.replace(character, escape)
    return json_text


class EventStream(Response):
    """An ASGI response that sends what an iterator yields, and closes it when the client leaves.

    The iterator must be an async generator: it is closed in every case, so that its ``finally``
    runs if it has begun. A client may leave before that: ``on_close`` is called in every case.
    """

    def __init__(
        self,
        events: AsyncIterator[bytes],
        headers: dict[str, str] | None = None,
        *,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self._events = events
        self._on_close = on_close
        self.status_code = 200
        self.background = None
        self.init_headers(
            {
                "content-type": "text/event-stream; charset=utf-8",
                "cache-control": "no-cache",
                "x-accel-buffering": "no",
                **(headers or {}),
            }
        )

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send until the iterator ends or the client leaves."""
        sending = asyncio.ensure_future(self._send_all(send))
        leaving = asyncio.ensure_future(_wait_for_disconnect(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                with contextlib.suppress(OSError):
                    sending.result()
        finally:
            await _cancel(sending, leaving)
            await self._close()

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for event in self._events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _close(self) -> None:
        close = getattr(self._events, "aclose", None)
        if close is not None:
            await close()
        if self._on_close is not None:
            self._on_close()


async def until_disconnect(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """What ``work`` returns; it is cancelled, and ClientGone raised, when the client leaves.

    The request's body must have been read.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_wait_for_disconnect(request.receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGone
    finally:
        await _cancel(working, leaving)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
