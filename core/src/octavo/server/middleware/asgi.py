"""The words of ASGI that the layers share: types, headers, paths, and a refusal as an answer."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from octavo.server.errors import ApiError

__all__ = ["App", "Message", "Receive", "Scope", "Send", "header", "path_of", "refuse"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_ANTHROPIC_PATH = "/v1/messages"


def header(scope: Scope, name: bytes) -> str | None:
    """The first header of a name in lower case; None if there is none."""
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text
    return None


def path_of(scope: Scope) -> str:
    """The path as routes know it: without the prefix of a reverse proxy."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def error_body(scope: Scope, error: ApiError) -> dict[str, Any]:
    """The error in the words of the interface that was called."""
    if path_of(scope).startswith(_ANTHROPIC_PATH):
        return error.anthropic_body()
    return error.body()


async def refuse(scope: Scope, send: Send, error: ApiError, *, close: bool = False) -> None:
    """Answer with an error; ``close`` ends the connection, for what remains unread on it."""
    body = json.dumps(error_body(scope, error), ensure_ascii=False).encode("utf-8", "replace")
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **{name.lower(): value for name, value in error.headers.items()},
    }
    if close:
        headers["connection"] = "close"
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
