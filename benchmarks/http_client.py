"""A streaming HTTP client that costs next to nothing, so that it can share two cores with a server.

It speaks HTTP/1.1 over one connection a request and reads answers by length, by chunks or to the
end; libraries do far more, and far more slowly.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

CHUNK_END = b"0\r\n\r\n"
EVENT = b"data: "
READ_BYTES = 1 << 16


@dataclass
class Answer:
    """One answer; times in seconds from the moment the request was sent."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    first_event_s: float | None = None
    total_s: float = 0.0

    @property
    def num_events(self) -> int:
        """Server-sent events; ``[DONE]`` is one."""
        return self.body.count(EVENT)

    def json(self) -> Any:
        """The body of an answer that was not streamed."""
        return json.loads(self.body)


class Left(Exception):  # noqa: N818 - raised by a caller's ``on_bytes`` to hang up
    """The caller has seen enough."""


async def post(
    port: int,
    path: str,
    body: Any,
    *,
    headers: dict[str, str] | None = None,
    on_bytes: Callable[[Answer], Any] | None = None,
) -> Answer:
    """Send ``body`` (JSON, or bytes as they are); ``on_bytes`` may wait, or raise Left."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Type: application/json",
        f"Content-Length: {len(payload)}",
        "Connection: close",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    return await _exchange(port, "\r\n".join(lines).encode() + b"\r\n\r\n" + payload, on_bytes)


async def get(port: int, path: str, headers: dict[str, str] | None = None) -> Answer:
    """Fetch a path."""
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return await _exchange(port, "\r\n".join(lines).encode() + b"\r\n\r\n", None)


async def _exchange(port: int, request: bytes, on_bytes: Callable[[Answer], Any] | None) -> Answer:
    answer = Answer()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    start = time.perf_counter()
    try:
        writer.write(request)
        with suppress(ConnectionError):  # refused before all of it was sent: the answer says why
            await writer.drain()
        await _read_head(reader, answer)
        await _read_body(reader, answer, start, on_bytes)
    except Left:
        pass
    finally:
        answer.total_s = time.perf_counter() - start
        writer.close()
    return answer


async def _read_head(reader: asyncio.StreamReader, answer: Answer) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *rest = head.split("\r\n")
    answer.status = int(first.split(" ", 2)[1])
    answer.headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)
    }


async def _read_body(
    reader: asyncio.StreamReader,
    answer: Answer,
    start: float,
    on_bytes: Callable[[Answer], Any] | None,
) -> None:
    length = answer.headers.get("content-length")
    pieces: list[bytes] = []
    num_bytes, tail = 0, b""
    while length is None or num_bytes < int(length):
        piece = await reader.read(READ_BYTES)
        if not piece:
            break
        pieces.append(piece)
        num_bytes += len(piece)
        if answer.first_event_s is None and EVENT in piece:
            answer.first_event_s = time.perf_counter() - start
        if on_bytes is not None:
            waiting = on_bytes(answer)
            if waiting is not None:
                await waiting
        tail = (tail + piece)[-len(CHUNK_END) :]
        if length is None and tail == CHUNK_END:
            break
    answer.body = b"".join(pieces)
