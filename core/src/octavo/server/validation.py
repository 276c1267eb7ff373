"""Request bodies: strict types, no unknown names, and errors that name the parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from octavo.server.errors import ApiError
from octavo.suggest import did_you_mean

__all__ = ["StrictBody", "UnusableType", "validation_error"]

_MAX_SHOWN_CHARS = 100


class StrictBody(BaseModel):
    """A JSON object whose names are all known and whose values have the types they should.

    What clients send by habit and what changes no answer is declared all the same, as a field
    whose description says that it has no effect.
    """

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())


class UnusableType(StrictBody):
    """Stands for all types of a part that cannot be used, so that the error says which can."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"not": {}})

    expected: ClassVar[str]

    type: Any = Field(None, validate_default=True)

    @field_validator("type", mode="before")
    @classmethod
    def _refuse(cls, value: Any) -> Any:
        del value
        raise PydanticCustomError("unsupported_type", "expected {what}", {"what": cls.expected})


def validation_error(errors: Sequence[Mapping[str, Any]], known: Sequence[str] = ()) -> ApiError:
    """The first of pydantic's errors as a 400 that names the parameter.

    ``known`` are the body's own names, for a suggestion.
    """
    error = _most_telling(errors)
    path = _path(error["loc"])
    if not path and error["type"] != "json_invalid":
        return ApiError("The body must be a JSON object.", code="invalid_json")
    match error["type"]:
        case "extra_forbidden":
            message = f"Unrecognized request argument supplied: {path}."
            message += did_you_mean(path, known)
            code: str | None = "unknown_parameter"
        case "missing":
            message = f"Missing required parameter: {path!r}."
            code = "missing_required_parameter"
        case "json_invalid":
            reason = error.get("ctx", {}).get("error", "not JSON")
            message = f"The body is not valid JSON: {reason} (at byte {error['loc'][-1]})."
            path, code = "", "invalid_json"
        case _:
            message = f"Invalid value for {path!r}: {_lowered(error['msg'])}{_shown(error)}."
            code = "invalid_value"
    return ApiError(message, param=path or None, code=code)


def _most_telling(errors: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Of a union's many errors the one that got furthest into the value."""
    return max(errors, key=lambda error: len(error["loc"]))


def _path(loc: Sequence[int | str]) -> str:
    """``messages[0].content`` from ("body", "messages", 0, "content"); names of types left out."""
    path = ""
    for part in loc[1:] if loc and loc[0] in ("body", "query", "path", "header") else loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and not part[0].isupper() and part not in _TYPE_NAMES:
            path += f".{part}" if path else part
    return path


_TYPE_NAMES = frozenset({"str", "int", "float", "bool", "constrained"})


def _lowered(message: str) -> str:
    return message[:1].lower() + message[1:].rstrip(".")


def _shown(error: Mapping[str, Any]) -> str:
    value = error.get("input")
    if isinstance(value, dict | list) or "input" not in error:
        return ""
    return f", got {value!r:.{_MAX_SHOWN_CHARS}}"
