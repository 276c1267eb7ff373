"""Flags for structured output, checked before a model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from octavo.cli.text_files import read_text_file
from octavo.errors import UsageError

if TYPE_CHECKING:
    from octavo.structured import StructuredOutputs

__all__ = ["structured_flags"]

_NAMES = {"json_schema": "json", "regex": "regex", "choice": "choice", "grammar": "grammar"}


def structured_flags(flags: Mapping[str, Any]) -> dict[str, StructuredOutputs]:
    """The sampling parameter that the flags make; empty without any.

    Raises UsageError for a combination, a file or a grammar that cannot be used, and where the
    package that serves them is missing.
    """
    from octavo.structured import StructuredOutputs
    from octavo.structured.compiler import check_without_vocabulary

    if not flags:
        return {}
    if len(flags) > 1:
        given = " and ".join("--" + name.replace("_", "-") for name in flags)
        raise UsageError(f"{given} exclude each other: an answer follows one of them.")
    values = {_NAMES[name]: _read(name, value) for name, value in flags.items()}
    structured = StructuredOutputs(**values)
    check_without_vocabulary(structured)
    return {"structured_outputs": structured}


def _read(name: str, value: Any) -> Any:
    if name == "grammar":
        return read_text_file("--grammar", value)
    if name == "json_schema" and not value.lstrip().startswith("{"):
        return read_text_file("--json-schema", value)
    return value
