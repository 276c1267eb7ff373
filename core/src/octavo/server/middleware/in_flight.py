"""Requests under way: how many there may be, how long, and how they end when the server does."""

from __future__ import annotations

import asyncio
import contextlib
import re
from http import HTTPStatus
from typing import TYPE_CHECKING

from octavo.server.errors import ApiError, shutting_down
from octavo.server.event_stream import sse
from octavo.server.middleware.asgi import (
    App,
    Message,
    Receive,
    Scope,
    Send,
    error_body,
    path_of,
    refuse,
)
from octavo.server.monitoring.request_record import current_record

if TYPE_CHECKING:
    from octavo.server.state import Server

__all__ = ["InFlight"]

_LAST_EVENT_TIMEOUT_S = 1.0


class InFlight:
    """Counts requests, refuses those beyond the limit, and ends those beyond their time."""

    def __init__(self, app: App, server: Server) -> None:
        self._app = app
        self._server = server
        self._config = server.config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on within its time; 429, 503 or 504 otherwise."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["method"] != "POST":
            await self._run(scope, receive, send, None)
        elif (refusal := self._why_not()) is not None:
            await refuse(scope, send, refusal, close=self._server.is_draining)
        else:
            self._server.num_requests_in_flight += 1
            try:
                await self._run(scope, receive, send, self._config.request_timeout_s)
            finally:
                self._server.num_requests_in_flight -= 1

    def _why_not(self) -> ApiError | None:
        if self._server.is_draining:
            return shutting_down()
        most = self._config.max_concurrent_requests
        if most is None or self._server.num_requests_in_flight < most:
            return None
        return ApiError(
            f"{most} requests are under way, as many as this server takes at once. Try again.",
            status=HTTPStatus.TOO_MANY_REQUESTS,
            code="too_many_requests",
        )

    async def _run(
        self, scope: Scope, receive: Receive, send: Send, timeout_s: float | None
    ) -> None:
        answer = _Answer(send)
        running = self._server.running_requests.limits
        try:
            async with asyncio.timeout(timeout_s) as limit:
                running.add(limit)
                try:
                    await self._app(scope, receive, answer.send)
                finally:
                    running.discard(limit)
        except TimeoutError:
            if not limit.expired():
                raise
            await answer.end_with(scope, self._why_ended())

    def _why_ended(self) -> ApiError:
        if self._server.is_draining:
            return shutting_down()
        # OpenAI's and Anthropic's clients try a 504 again by themselves, unless they are told not
        # to: what took too long once would take too long again, and load the server each time.
        return ApiError(
            f"The request took longer than {self._config.request_timeout_s:g} s and was ended. "
            "Ask for fewer tokens (max_tokens).",
            status=HTTPStatus.GATEWAY_TIMEOUT,
            code="request_timeout",
            headers={"x-should-retry": "false"},
        )


class _Answer:
    """How far an answer has got, so that it can be brought to an end in its own form."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._has_started = False
        self._is_event_stream = False
        self._is_complete = False
        self._last_body = b""

    async def send(self, message: Message) -> None:
        """Send on, and take note."""
        if message["type"] == "http.response.start":
            self._has_started = True
            self._is_event_stream = any(
                name == b"content-type" and value.startswith(b"text/event-stream")
                for name, value in message["headers"]
            )
        elif message.get("more_body", False):
            self._last_body = message.get("body", b"")
        else:
            self._is_complete = True
        await self._send(message)

    async def end_with(self, scope: Scope, error: ApiError) -> None:
        """Close the answer with an error: a status if none has been sent, else a last event."""
        current_record().error = error.code
        with contextlib.suppress(TimeoutError):  # who does not read is not waited for
            async with asyncio.timeout(_LAST_EVENT_TIMEOUT_S):
                if not self._has_started:
                    await refuse(scope, self._send, error)
                elif self._is_event_stream and not self._is_complete:
                    body = _last_events(scope, error, self._last_body)
                    await self._send({"type": "http.response.body", "body": body})


def _last_events(scope: Scope, error: ApiError, before: bytes) -> bytes:
    """The error as the last of a stream's events, in the words of the interface.

    ``before`` is what was sent last: events of responses are numbered.
    """
    path, body = path_of(scope), error_body(scope, error)
    if scope["method"] != "POST":
        return b""
    if path.startswith("/v1/messages"):
        return sse(body, "error")
    if path.startswith("/v1/responses"):
        event = {"type": "error", "code": error.code, "message": error.message, "param": None}
        return sse({**event, "sequence_number": _next_number(before)}, "error")
    return sse(body) + sse("[DONE]")


def _next_number(before: bytes) -> int:
    """One more than the last event's number, which stands at its end."""
    _, found, rest = before.rpartition(b'"sequence_number":')
    number = re.match(rb"\d+", rest) if found else None
    return 0 if number is None else int(number[0]) + 1
