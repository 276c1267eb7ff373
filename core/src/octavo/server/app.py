"""The ASGI application: routes, and how errors are told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from octavo import __version__
from octavo.errors import OctavoError
from octavo.server.errors import ApiError, api_error_of
from octavo.server.event_stream import ClientGone
from octavo.server.middleware import add_middleware
from octavo.server.openapi import described_by
from octavo.server.routes import (
    chat,
    completions,
    messages,
    models,
    operations,
    page,
    reference,
    responses,
    tokenize,
)
from octavo.server.validation import validation_error

if TYPE_CHECKING:
    from octavo.server.state import Server

__all__ = ["create_app"]

_ANTHROPIC_PATH = "/v1/messages"
_CLIENT_CLOSED_REQUEST = 499  # nginx's; nobody receives it, the log shows it


def create_app(server: Server) -> FastAPI:
    """The application over a server's models."""
    app = FastAPI(
        title="Octavo",
        version=__version__,
        description="OpenAI's and Anthropic's interfaces over models of your own.",
        docs_url=None,  # Swagger's page loads scripts from elsewhere; routes/reference.py has ours
        redoc_url=None,
    )
    app.state.octavo = server
    app.openapi = described_by(app)  # type: ignore[method-assign]  # FastAPI's way to change it
    for router in _routers(server):
        app.include_router(router)
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(OctavoError, _on_octavo_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(ClientGone, _on_client_gone)
    add_middleware(app, server)
    return app


def _routers(server: Server) -> list[Any]:
    optional = [page.router] if server.config.enable_page else []
    return [
        *optional,
        chat.router,
        completions.router,
        responses.router,
        messages.router,
        models.router,
        tokenize.router,
        operations.router,
        reference.router,
    ]


def _response(request: Request, error: ApiError) -> Response:
    body = error.body()
    if request.url.path.startswith(_ANTHROPIC_PATH):
        body = error.anthropic_body()
    return JSONResponse(body, status_code=error.status, headers=error.headers)


async def _on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)  # noqa: S101 - registered for it
    return _response(request, error)


async def _on_octavo_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, OctavoError)  # noqa: S101 - registered for it
    return _response(request, api_error_of(error))


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
    return _response(request, validation_error(error.errors(), _known_names(request)))


def _known_names(request: Request) -> Sequence[str]:
    """The names that the body of a request's route has."""
    body_field = getattr(request.scope.get("route"), "body_field", None)
    kind = getattr(getattr(body_field, "field_info", None), "annotation", None)
    return list(getattr(kind, "model_fields", ()))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    method, path = request.method, request.url.path
    match error.status_code:
        case 404:
            message = f"There is nothing at {method} {path}. See /docs for what there is."
        case 405:
            message = f"{path} does not take {method}."
        case _:
            message = str(error.detail)
    headers = dict(error.headers or {})
    return _response(request, ApiError(message, status=error.status_code, headers=headers))


async def _on_client_gone(request: Request, error: Exception) -> Response:
    del request, error
    return Response(status_code=_CLIENT_CLOSED_REQUEST)
