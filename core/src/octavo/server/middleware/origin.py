"""Calls that manage the server come from its owner, not from a web page the owner has open."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from http import HTTPStatus
from urllib.parse import urlsplit

from octavo.server.errors import ApiError
from octavo.server.middleware.asgi import App, Receive, Scope, Send, header, path_of, refuse

__all__ = ["MANAGEMENT_PATHS", "ManagementGuard"]

MANAGEMENT_PATHS = frozenset({"/sleep", "/wake_up", "/reset_prefix_cache"})


class ManagementGuard:
    """Refuses management calls that a browser makes for another site.

    They have no body, so that a browser sends them without asking first (no CORS preflight). With
    ``checks_host`` a name that is not this machine's is refused as well: a page can have its own
    name resolve to 127.0.0.1 and is then of the same origin (DNS rebinding).
    """

    def __init__(self, app: App, allowed_origins: Collection[str], checks_host: bool) -> None:
        self._app = app
        self._allowed_origins = allowed_origins
        self._checks_host = checks_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, or answer 403."""
        if scope["type"] == "http" and path_of(scope) in MANAGEMENT_PATHS:
            reason = self._why_not(scope)
            if reason is not None:
                error = ApiError(reason, status=HTTPStatus.FORBIDDEN, code="cross_site_request")
                await refuse(scope, send, error)
                return
        await self._app(scope, receive, send)

    def _why_not(self, scope: Scope) -> str | None:
        host = (header(scope, b"host") or "").lower()
        origin = header(scope, b"origin")
        if origin is not None and not self._is_trusted(origin, host):
            return (
                f"A page of {origin!r:.100} may not manage this server. To let it, start the "
                "server with --allowed-origin."
            )
        if origin is None and header(scope, b"sec-fetch-site") == "cross-site":
            return "A page of another site may not manage this server."
        if self._checks_host and not _names_this_machine(host):
            return (
                f"{host!r:.100} is not a name of this machine: without API keys only localhost, or "
                "an address, may be used to manage this server."
            )
        return None

    def _is_trusted(self, origin: str, host: str) -> bool:
        if origin in self._allowed_origins:  # "*" lets pages ask, not manage
            return True
        return urlsplit(origin).netloc.lower() == host


def _names_this_machine(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost" or name.endswith(".localhost"):
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
