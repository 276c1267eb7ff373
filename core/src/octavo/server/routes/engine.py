"""The live view of an engine: who runs and waits, and what every block holds."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from octavo.server.event_stream import EventStream
from octavo.server.monitoring.engine_feed import engine_view
from octavo.server.routes.management import ModelQuery
from octavo.server.state import server_of

__all__ = ["router"]

router = APIRouter(prefix="/engine")


@router.get("/state", response_class=Response)
async def state(request: Request, query: Annotated[ModelQuery, Query()]) -> Response:
    """The engine of a model (the first one, if none is named) at this moment, as JSON."""
    server = server_of(request)
    text = await engine_view(server, server.models.find(query.model))
    return Response(text, media_type="application/json", headers={"cache-control": "no-store"})


@router.get("/events", response_class=Response)
async def events(request: Request, query: Annotated[ModelQuery, Query()]) -> Any:
    """The same about four times a second, as server-sent events, until the client leaves."""
    server = server_of(request)
    model = server.models.find(query.model)
    return EventStream(server.feed_of(model).watch())
