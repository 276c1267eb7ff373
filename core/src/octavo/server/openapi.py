"""The server's own description, /openapi.json: FastAPI's, with the errors as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["described_by"]

_ERROR_SCHEMA = {
    "title": "Error",
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_ANTHROPIC_ERROR_SCHEMA = {
    "title": "AnthropicError",
    "type": "object",
    "required": ["type", "error"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        },
    },
}
_ANY_ERRORS = {
    "400": "A parameter has a value that cannot be used; `param` names it.",
    "401": "The API key is missing or wrong.",
    "403": "Not allowed from there, or not on this server.",
    "404": "There is no such model, or no such thing.",
    "429": "Too many requests; Retry-After says when to try again.",
    "503": "The engine has stopped, sleeps, or the server shuts down.",
}
_BODY_ERRORS = {
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "415": "The body is not JSON, or is compressed.",
}


def described_by(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """What is to take the place of ``app.openapi``: made once, when it is first asked for."""
    derive = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _with_errors(derive())
        return app.openapi_schema

    return openapi


def _with_errors(document: dict[str, Any]) -> dict[str, Any]:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Error"] = _ERROR_SCHEMA
    schemas["AnthropicError"] = _ANTHROPIC_ERROR_SCHEMA
    for path, operation in _operations(document):
        name = "AnthropicError" if path.startswith("/v1/messages") else "Error"
        responses = operation.setdefault("responses", {})
        responses.pop("422", None)
        errors = _ANY_ERRORS | (_BODY_ERRORS if "requestBody" in operation else {})
        for status, about in errors.items():
            responses.setdefault(status, _response(about, name))
    return document


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document.get("paths", {}).items():
        for operation in methods.values():
            yield path, operation


def _response(about: str, schema: str) -> dict[str, Any]:
    reference = {"$ref": f"#/components/schemas/{schema}"}
    return {"description": about, "content": {"application/json": {"schema": reference}}}
