"""Responses that are made whether anybody waits for them or not."""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

from octavo.server.errors import ApiError
from octavo.server.event_stream import sse
from octavo.server.responses.event_log import EventLog

if TYPE_CHECKING:
    from octavo.server.responses.run import ResponseRun
    from octavo.server.responses.store import StoredResponse
    from octavo.server.state import Server

__all__ = ["cancel", "run_in_background"]

logger = logging.getLogger(__name__)


def run_in_background(
    server: Server, stored: StoredResponse, run: ResponseRun, *, keeps_events: bool
) -> None:
    """Make a stored response in a task of its own; with its events, if they are to be read."""
    stored.log = EventLog() if keeps_events else None
    stored.task = asyncio.create_task(_make(server, stored, run))
    # A task that is cancelled before it has begun runs none of its own code.
    stored.task.add_done_callback(lambda _: _end(server, stored, run))
    server.num_requests_in_flight += 1


async def cancel(stored: StoredResponse) -> None:
    """End a response that is being made; what there is of it stays."""
    if stored.task is not None:
        task = stored.task
        task.cancel()
        await asyncio.wait({task})
        await asyncio.sleep(0)  # for the task's callback


async def _make(server: Server, stored: StoredResponse, run: ResponseRun) -> None:
    """Within the time that every request has, and ended like them when the server stops."""
    limits = server.running_requests.limits
    try:
        async with asyncio.timeout(server.config.request_timeout_s) as limit:
            limits.add(limit)
            try:
                async for event in run.events():
                    _note(stored, event)
            finally:
                limits.discard(limit)
    except TimeoutError:
        reason = "This server is shutting down."
        if not server.is_draining:
            reason = "The response took longer than this server allows, and was ended."
        _fail(stored, run, reason)
    except Exception:
        logger.exception("the response %s failed in the server itself", stored.id)
        _fail(stored, run, "The server failed at this response; its log says why.")


def _fail(stored: StoredResponse, run: ResponseRun, message: str) -> None:
    error = ApiError(message, status=HTTPStatus.INTERNAL_SERVER_ERROR, code="server_error")
    for event in run.fail(error):
        _note(stored, event)


def _note(stored: StoredResponse, event: dict[str, object]) -> None:
    if stored.log is not None:
        stored.log.append(sse(event, str(event["type"])))


def _end(server: Server, stored: StoredResponse, run: ResponseRun) -> None:
    server.num_requests_in_flight -= 1
    for event in run.close():
        _note(stored, event)
    if stored.log is not None:
        stored.log.end()
    server.responses.settle(stored)
