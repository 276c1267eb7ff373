"""The prefix that a reverse proxy takes away, or leaves: paths mean the same either way."""

from __future__ import annotations

from octavo.server.middleware.asgi import App, Receive, Scope, Send

__all__ = ["RootPath"]


class RootPath:
    """Tells each request the prefix that links need; in its path it may stand or be missing."""

    def __init__(self, app: App, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on."""
        if scope["type"] == "http":
            scope["root_path"] = self._root_path
        await self._app(scope, receive, send)
