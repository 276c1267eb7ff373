"""What a request wants the content to look like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from octavo.server.errors import ApiError
from octavo.structured.limits import TIDY_SPACE

if TYPE_CHECKING:
    from octavo.server.protocol.chat import ChatRequest, ResponseFormat
    from octavo.server.protocol.completions import CompletionRequest

__all__ = ["content_form"]


def content_form(body: ChatRequest | CompletionRequest) -> dict[str, Any] | None:
    """The content's form in the names of StructuredOutputs; None: any text."""
    form = None if body.response_format is None else _form(body.response_format)
    if form is None:
        return body.structured_outputs
    if body.structured_outputs is not None:
        raise ApiError(
            "response_format and structured_outputs both say what the answer has to look like. "
            "Give only one of them.",
            param="response_format",
        )
    return form


def _form(wanted: ResponseFormat) -> dict[str, Any] | None:
    _check_keys(wanted)
    match wanted.type:
        case "text":
            return None
        case "json_object":
            form = {"json_object": True} if wanted.schema_ is None else {"json": wanted.schema_}
            return {**form, "whitespace_pattern": TIDY_SPACE}
        case "json_schema":
            if wanted.json_schema is None or wanted.json_schema.schema_ is None:
                raise ApiError(
                    "Missing required parameter: 'response_format.json_schema.schema'.",
                    param="response_format.json_schema.schema",
                    code="missing_required_parameter",
                )
            return {"json": wanted.json_schema.schema_, "whitespace_pattern": TIDY_SPACE}
        case _:
            return {
                "structural_tag": {"triggers": wanted.triggers, "structures": wanted.structures}
            }


_KEYS = {
    "json_schema": ("json_schema",),
    "schema_": ("json_object",),
    "triggers": ("structural_tag",),
    "structures": ("structural_tag",),
}


def _check_keys(wanted: ResponseFormat) -> None:
    for name, types in _KEYS.items():
        if getattr(wanted, name) is not None and wanted.type not in types:
            key = name.rstrip("_")
            raise ApiError(
                f"response_format.{key} means nothing with the type {wanted.type!r}; it belongs to "
                f"{types[0]!r}.",
                param=f"response_format.{key}",
            )
