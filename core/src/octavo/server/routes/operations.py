"""For who keeps the server running: health, load, metrics, management, the live view."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from octavo import __version__
from octavo.server.errors import ApiError
from octavo.server.monitoring.engine_metrics import cache_usage
from octavo.server.routes import engine, management
from octavo.server.served_model import ServedModel
from octavo.server.state import Server, server_of

__all__ = ["router"]

router = APIRouter(tags=["operations"])
router.include_router(management.router)
router.include_router(engine.router)


@router.get("/health")
async def health(request: Request) -> dict[str, str]:
    """Whether the server lives: 200 unless an engine has failed, also while it sleeps or drains."""
    for model in server_of(request).models:
        if model.engine.failure is not None:
            raise _unavailable(f"{model.name!r}: {model.engine.failure}", "engine_stopped")
    return {"status": "ok"}


@router.get("/ready")
async def ready(request: Request) -> dict[str, str]:
    """Whether requests are taken: 200, or 503 with the reason."""
    await health(request)
    server = server_of(request)
    if server.is_draining:
        raise _unavailable("This server is shutting down.", "shutting_down")
    if not server.models:
        raise _unavailable("The model is being loaded.", "loading")
    for model in server.models:
        if model.engine.is_sleeping:
            raise _unavailable(
                f"The model {model.name!r} sleeps. Wake it with POST /wake_up.", "engine_sleeps"
            )
    return {"status": "ready"}


@router.get("/version")
async def version() -> dict[str, str]:
    """Octavo's version."""
    return {"version": __version__}


@router.get("/load")
async def load(request: Request) -> dict[str, Any]:
    """How busy the server is: ``server_load`` is what vLLM's is, requests under way."""
    server = server_of(request)
    return {
        "server_load": server.num_requests_in_flight,
        "models": {model.name: _model_load(model) for model in server.models},
    }


def _model_load(model: ServedModel) -> dict[str, float]:
    stats = model.engine.stats.scheduler
    return {
        "num_running": stats.num_running,
        "num_waiting": stats.num_waiting,
        "num_swapped": stats.num_swapped,
        "kv_cache_usage": round(cache_usage(stats.groups), 6),
    }


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """All figures for Prometheus, as OpenMetrics if the Accept header names it; docs/metrics.md."""
    server: Server = server_of(request)
    text, content_type = server.metrics.render(request.headers.get("accept", ""))
    return Response(text, headers={"content-type": content_type, "cache-control": "no-store"})


def _unavailable(message: str, code: str) -> ApiError:
    return ApiError(message, status=HTTPStatus.SERVICE_UNAVAILABLE, code=code)
