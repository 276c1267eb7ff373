"""One line and one id for each request, and an answer where a handler has failed."""

from __future__ import annotations

import logging
import re
import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING

from octavo.server.errors import ApiError
from octavo.server.middleware.asgi import (
    App,
    Message,
    Receive,
    Scope,
    Send,
    header,
    path_of,
    refuse,
)
from octavo.server.monitoring.request_record import RequestRecord, recording

if TYPE_CHECKING:
    from octavo.server.monitoring.metrics import Metrics
    from octavo.server.monitoring.tracing import Tracing

__all__ = ["RequestLog", "describe"]

logger = logging.getLogger("octavo.server.requests")

_GOOD_ID = re.compile(r"[A-Za-z0-9._:+/=@-]{1,128}")
_MAX_PATH_CHARS = 200
_CLIENT_LEFT = 499  # before there was an answer; nginx's


class RequestLog:
    """The outermost layer: names the request, keeps its record, counts it, writes its line."""

    def __init__(
        self,
        app: App,
        metrics: Metrics,
        log_requests: bool = True,
        tracing: Tracing | None = None,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._log_requests = log_requests
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on; whatever happens behind, it has an answer and a line."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = RequestRecord(request_id_of(scope), scope["method"], _printable_path(scope))
        scope.setdefault("state", {})["request_id"] = record.request_id
        token = recording.set(record)
        sender = _naming(record, scope, send)
        try:
            await self._app(scope, receive, sender)
        except Exception:
            logger.exception("%s failed in the server itself", describe(record))
            if record.status is None:
                await refuse(scope, sender, _internal_error(record))
        finally:
            recording.reset(token)
            route = getattr(scope.get("route"), "path", None)
            self._metrics.note_http(route, record.method, record.status or _CLIENT_LEFT)
            if self._log_requests:
                logger.info("%s", describe(record))
            if self._tracing is not None:
                self._tracing.write(scope, record)


def request_id_of(scope: Scope) -> str:
    """The client's X-Request-Id if it is short and plain, else a new one."""
    given = header(scope, b"x-request-id")
    if given is not None and _GOOD_ID.fullmatch(given):
        return given
    return f"req_{uuid.uuid4().hex}"


def describe(record: RequestRecord) -> str:
    """``POST /v1/completions 200 model=m prompt=4 completion=8 ttft=0.021s total=0.3s id=…``."""
    words = [record.method, record.path, str(record.status or "gone")]
    if record.model is not None:
        words.append(f"model={record.model}")
    if record.num_prompt_tokens is not None:
        words.append(f"prompt={record.num_prompt_tokens}")
        words.append(f"completion={record.num_completion_tokens or 0}")
    if record.time_to_first_token_s is not None:
        words.append(f"ttft={record.time_to_first_token_s:.3f}s")
    if record.error is not None:
        words.append(f"error={record.error}")
    words += [f"total={record.duration_s:.3f}s", f"id={record.request_id}"]
    return " ".join(words)


def _printable_path(scope: Scope) -> str:
    """On one line, whatever the client sent."""
    path = path_of(scope)[:_MAX_PATH_CHARS]
    return "".join(char if char.isprintable() and char != " " else "?" for char in path)


def _naming(record: RequestRecord, scope: Scope, send: Send) -> Send:
    """Add the id to the answer's headers, and note its status."""
    names = [b"x-request-id"]
    if path_of(scope).startswith("/v1/messages"):
        names.append(b"request-id")  # as Anthropic's clients look for it

    async def named(message: Message) -> None:
        if message["type"] == "http.response.start":
            record.status = message["status"]
            value = record.request_id.encode()
            message = {
                **message,
                "headers": [*message.get("headers", ()), *((name, value) for name in names)],
            }
        await send(message)

    return named


def _internal_error(record: RequestRecord) -> ApiError:
    return ApiError(
        f"The server failed at this request; its log says why (request {record.request_id}).",
        status=HTTPStatus.INTERNAL_SERVER_ERROR,
        code="internal_error",
    )
