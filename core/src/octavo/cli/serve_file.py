"""The file that ``octavo serve --config`` reads: the command's flags, as TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from octavo.cli.options import ENGINE_OPTIONS, Option
from octavo.cli.serve_options import MODEL_OPTIONS, SERVER_OPTIONS
from octavo.errors import UsageError
from octavo.suggest import choices, did_you_mean

__all__ = ["ServeFile", "read_serve_file"]

_TABLES = ("server", "engine", "models")
_MODEL = Option("model", str, "", "")
_BACKEND_OPTIONS = Option("options", dict, "", "")
_MODEL_KEYS = (_MODEL, *MODEL_OPTIONS, *ENGINE_OPTIONS, _BACKEND_OPTIONS)
_TYPE_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True)
class ServeFile:
    """What a file sets, by the names that the flags have, with underscores."""

    path: str | None = None
    server: Mapping[str, Any] = field(default_factory=dict)
    engine: Mapping[str, Any] = field(default_factory=dict)
    """For every model."""
    models: Sequence[Mapping[str, Any]] = ()
    """Each with ``model``, and with engine options of its own."""


def read_serve_file(path: Path) -> ServeFile:
    """Read and check a file; raises UsageError that names it and the fault."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--config {path} is not UTF-8 text (byte {error.start}).") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"--config {path} is not valid TOML: {error}.") from error
    for name in table:
        if name not in _TABLES:
            raise _unknown(path, name, "at the top level", _TABLES)
    server = _checked(path, "[server]", table.get("server", {}), SERVER_OPTIONS)
    engine = _checked(
        path, "[engine]", table.get("engine", {}), (*ENGINE_OPTIONS, _BACKEND_OPTIONS)
    )
    return ServeFile(str(path), server, engine, _models(path, table.get("models", [])))


def _models(path: Path, tables: Any) -> list[Mapping[str, Any]]:
    if not isinstance(tables, list):
        raise UsageError(f"{path}: models is no list: begin each model with [[models]].")
    models = []
    for number, table in enumerate(tables, 1):
        place = f"[[models]] number {number}"
        model = _checked(path, place, table, _MODEL_KEYS)
        if not model.get("model"):
            raise UsageError(f'{path}: {place} does not say which: it needs model = "…".')
        models.append(model)
    return models


def _checked(path: Path, place: str, table: Any, options: Sequence[Option]) -> Mapping[str, Any]:
    if not isinstance(table, dict):
        raise UsageError(f"{path}: {place} is {table!r}; expected a table.")
    known = {option.parameter: option for option in options}
    for name, value in table.items():
        if name not in known:
            raise _unknown(path, name, f"in {place}", known)
        kind = known[name].type
        if not _fits(value, kind):
            raise UsageError(f"{path}: {name} in {place} is {value!r}; expected {_words(kind)}.")
    return table


def _fits(value: Any, kind: Any) -> bool:
    if get_args(kind):  # list[str]
        return isinstance(value, list) and all(_fits(item, get_args(kind)[0]) for item in value)
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    return isinstance(value, int | float if kind is float else kind)


def _words(kind: Any) -> str:
    if get_args(kind):
        return "a list of texts"
    return _TYPE_WORDS.get(kind, "a table")


def _unknown(path: Path, name: str, place: str, known: Any) -> UsageError:
    return UsageError(
        f"{path}: unknown key {name!r} {place}.{did_you_mean(name, known)} "
        f"Known keys: {choices(known)}."
    )
