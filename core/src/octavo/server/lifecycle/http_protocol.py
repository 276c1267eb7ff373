"""HTTP connections whose requests must begin: heads that are endless, or never end, are cut off."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["MAX_HEAD_BYTES", "protocol_with_head_timeout"]

MAX_HEAD_BYTES = 64 * 1024
"""Of a request line and its headers, give or take what one read from the socket brings."""
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


class _BoundedHttp(HttpToolsProtocol):
    """Uvicorn's protocol, which waits for a request's head as long as it takes, with a limit."""

    head_timeout_s: float
    _head_timer: asyncio.TimerHandle | None = None
    _num_head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()
        super().data_received(data)
        if self._head_timer is None:
            return
        self._num_head_bytes += len(data)
        if self._num_head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_headers_complete(self) -> None:
        """A request has a head."""
        self._stop_waiting()
        super().on_headers_complete()

    def _await_head(self) -> None:
        self._num_head_bytes = 0
        self._head_timer = self.loop.call_later(self.head_timeout_s, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def protocol_with_head_timeout(head_timeout_s: float) -> Any:
    """The protocol class for ``uvicorn.Config(http=…)``."""
    return type("BoundedHttp", (_BoundedHttp,), {"head_timeout_s": head_timeout_s})
