"""Request bodies arrive whole, in time and not too large, or the request is refused."""

from __future__ import annotations

import asyncio
from email.message import Message as Headers
from http import HTTPStatus

from octavo.server.errors import ApiError
from octavo.server.json_body import check_json
from octavo.server.middleware.asgi import App, Message, Receive, Scope, Send, header, refuse

__all__ = ["BodyLimits"]


class _Disconnected(Exception):  # noqa: N818 - nobody is left to be told
    """The client left before its body was complete."""


class BodyLimits:
    """Reads a body before anybody else does, and hands it on in one piece."""

    def __init__(self, app: App, max_body_bytes: int, timeout_s: float) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on with its body; 408, 413 or 415 if there is no having it."""
        if scope["type"] != "http" or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        try:
            self._check_headers(scope)
            body = await self._read(receive)
        except ApiError as error:
            # What has not been read would be taken for the next request.
            await refuse(scope, send, error, close=True)
            return
        except _Disconnected:
            return
        try:
            _check_content(scope, body)
        except ApiError as error:
            await refuse(scope, send, error)
            return
        await self._app(scope, _replay(body, receive), send)

    def _check_headers(self, scope: Scope) -> None:
        encoding = header(scope, b"content-encoding")
        if encoding is not None and encoding.strip().lower() not in ("", "identity"):
            raise ApiError(
                f"A body with Content-Encoding {encoding!r:.40} is not taken: send it as it is.",
                status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                code="unsupported_content_encoding",
            )
        length = header(scope, b"content-length")
        if length is None:
            return
        if not (length.isascii() and length.isdigit() and len(length) < 20):
            raise ApiError(f"Content-Length {length!r:.40} is not a number of bytes.")
        if int(length) > self._max_body_bytes:
            raise self._too_large(f"of {int(length):,} bytes")

    async def _read(self, receive: Receive) -> bytes:
        """The whole body; raises ApiError, or _Disconnected."""
        parts: list[bytes] = []
        num_bytes = 0
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise _Disconnected
                    part = message.get("body", b"")
                    num_bytes += len(part)
                    if num_bytes > self._max_body_bytes:
                        raise self._too_large("that goes on")
                    parts.append(part)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError as error:
            raise ApiError(
                f"The body did not arrive within {self._timeout_s:g} s ({num_bytes:,} bytes did).",
                status=HTTPStatus.REQUEST_TIMEOUT,
                code="body_timeout",
            ) from error

    def _too_large(self, what: str) -> ApiError:
        return ApiError(
            f"A body {what} is too large: this server takes up to {self._max_body_bytes:,} bytes "
            "(--max-body-bytes).",
            status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            code="request_too_large",
        )


def _has_body(scope: Scope) -> bool:
    if scope["method"] not in ("GET", "HEAD", "OPTIONS"):
        return True
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])


def _check_content(scope: Scope, body: bytes) -> None:
    """A body must call itself JSON, and be it.

    A page of another site can send text/plain without asking first; JSON it cannot (CORS).
    """
    if not body:
        return
    headers = Headers()
    headers["content-type"] = header(scope, b"content-type") or "missing/missing"
    kind, charset = headers.get_content_type(), headers.get_content_charset("utf-8")
    if kind != "application/json" or charset not in ("utf-8", "utf8"):
        given = header(scope, b"content-type")
        raise ApiError(
            f"The body is {'without a Content-Type' if given is None else repr(given)[:80]}; this "
            "server takes 'Content-Type: application/json', in UTF-8.",
            status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            code="unsupported_content_type",
        )
    check_json(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body as one message; then whatever the client does next."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
