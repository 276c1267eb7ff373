"""What goes wrong, as an HTTP status and an error body in the words of OpenAI's API."""

from __future__ import annotations

import dataclasses
import re
from http import HTTPStatus
from typing import Any

from octavo.errors import (
    CapacityError,
    OctavoError,
    QueueFullError,
    UsageError,
)
from octavo.sampling_params import SamplingParams

__all__ = ["ApiError", "api_error_of", "shutting_down"]

_TYPES = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}
_ANTHROPIC_TYPES = {413: "request_too_large"}
# What passes with time says when to come back: a queue gets shorter soon, a server takes longer.
_RETRY_AFTER_S = {HTTPStatus.TOO_MANY_REQUESTS: 1, HTTPStatus.SERVICE_UNAVAILABLE: 5}


class ApiError(Exception):
    """An answer that is an error; every interface writes it in its own words."""

    def __init__(
        self,
        message: str,
        *,
        status: int = HTTPStatus.BAD_REQUEST,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """``param`` names the parameter at fault, ``code`` is OpenAI's word for the fault.

        A 429 and a 503 have a Retry-After of their own unless ``headers`` has one.
        """
        super().__init__(message)
        self.message = message
        self.status = int(status)
        self.param = param
        self.code = code
        wait_s = _RETRY_AFTER_S.get(HTTPStatus(self.status))
        self.headers = {} if wait_s is None else {"Retry-After": str(wait_s)}
        self.headers |= headers or {}

    @property
    def type(self) -> str:
        """OpenAI's kind of error."""
        fallback = "server_error" if self.status >= 500 else "invalid_request_error"
        return _TYPES.get(HTTPStatus(self.status), fallback)

    def body(self) -> dict[str, Any]:
        """The JSON body of OpenAI's API."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }

    def anthropic_body(self) -> dict[str, Any]:
        """The JSON body of Anthropic's API."""
        kind = "api_error" if self.status >= 500 else _ANTHROPIC_TYPES.get(self.status, self.type)
        return {"type": "error", "error": {"type": kind, "message": self.message}}


_SAMPLING_NAMES = {parameter.name for parameter in dataclasses.fields(SamplingParams)}


def _named_in(message: str) -> str | None:
    word = re.match(r"\w*", message)
    return word[0] if word is not None and word[0] in _SAMPLING_NAMES else None


def api_error_of(error: OctavoError, param: str | None = None) -> ApiError:
    """The HTTP form of an error of the engine.

    Without ``param`` it is the sampling parameter that the message begins with, if it does.
    """
    message = str(error)
    param = param or _named_in(message)
    match error:
        case CapacityError():
            return ApiError(message, param=param, code="context_length_exceeded")
        case UsageError():
            return ApiError(message, param=param)
        case QueueFullError():
            return ApiError(message, status=HTTPStatus.TOO_MANY_REQUESTS, code="queue_full")
        case _:
            return ApiError(message, status=HTTPStatus.SERVICE_UNAVAILABLE, code="engine_error")


def shutting_down() -> ApiError:
    """What a server that drains says to new requests, and to those that took too long to end."""
    return ApiError(
        "This server is shutting down.",
        status=HTTPStatus.SERVICE_UNAVAILABLE,
        code="shutting_down",
    )
