"""API keys: a request shows one of them, as OpenAI's or as Anthropic's clients do."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator
from http import HTTPStatus

from octavo.server.errors import ApiError
from octavo.server.middleware.asgi import App, Receive, Scope, Send, header, path_of, refuse

__all__ = ["OPEN_PATHS", "Authentication"]

OPEN_PATHS = frozenset(
    {"/", "/health", "/ready", "/version", "/favicon.ico", "/docs", "/openapi.json"}
)
_OPEN_FOLDERS = ("/page/",)


class Authentication:
    """Lets in who shows a key; health checks, the reference and the page's own files need none."""

    def __init__(self, app: App, api_keys: Iterable[str]) -> None:
        self._app = app
        # Digests are of one length: comparing them tells nothing about the keys, nor how long
        # they are.
        self._digests = [_digest(key) for key in api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, or answer 401."""
        if scope["type"] != "http" or _is_open(scope) or self._is_known(scope):
            await self._app(scope, receive, send)
            return
        given = any(True for _ in _shown_keys(scope))
        message = (
            "Incorrect API key provided."
            if given
            else "You didn't provide an API key. Send it as a header: "
            "'Authorization: Bearer KEY', or 'x-api-key: KEY'."
        )
        error = ApiError(
            message,
            status=HTTPStatus.UNAUTHORIZED,
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
        await refuse(scope, send, error)

    def _is_known(self, scope: Scope) -> bool:
        found = False
        for key in _shown_keys(scope):
            shown = _digest(key)
            for digest in self._digests:  # all of them, whichever fits
                found |= hmac.compare_digest(shown, digest)
        return found


def _is_open(scope: Scope) -> bool:
    path = path_of(scope)
    return scope["method"] in ("GET", "HEAD") and (
        path in OPEN_PATHS or path.startswith(_OPEN_FOLDERS)
    )


def _shown_keys(scope: Scope) -> Iterator[str]:
    scheme, _, key = (header(scope, b"authorization") or "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        yield key.strip()
    own = header(scope, b"x-api-key")
    if own:
        yield own.strip()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
