"""From flags, file and environment to the deployment that they ask for."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from octavo.cli.options import ENGINE_OPTIONS
from octavo.cli.serve_file import ServeFile
from octavo.cli.serve_options import MODEL_OPTIONS
from octavo.cli.text_files import read_text_file
from octavo.config import EngineConfig
from octavo.errors import UsageError
from octavo.server.config import ServerConfig
from octavo.server.lifecycle.deployment import Deployment, ModelPlan
from octavo.suggest import choices, did_you_mean

__all__ = ["API_KEY_VARIABLE", "DEFAULT_MAX_NUM_WAITING", "SERVER_FIELDS", "deployment_of"]

API_KEY_VARIABLE = "OCTAVO_API_KEY"
DEFAULT_MAX_NUM_WAITING = 1024
"""Strangers fill a server's queue; who waits behind so many would have left before his turn."""

_KEY_OPTIONS = ("api_key", "api_key_file")
SERVER_FIELDS = {"allowed_origin": "allowed_origins", "page": "enable_page"}
_PATHS = ("ssl_certfile", "ssl_keyfile")
_TRUTH = {"true": True, "on": True, "yes": True, "false": False, "off": False, "no": False}
_OPTION_OF_MODEL = re.compile(r"[a-z][a-z0-9_-]*=")


def deployment_of(
    model: str | None,
    models: Sequence[str],
    flags: Mapping[str, Mapping[str, Any]],
    file: ServeFile,
    environ: Mapping[str, str] | None = None,
) -> Deployment:
    """The deployment; flags win over the environment, which wins over the file.

    ``models`` are NAME=MODEL[,OPTION=VALUE...]; ``flags`` has "engine", "model" and "server".
    Raises UsageError.
    """
    environ = os.environ if environ is None else environ
    server = _server_config({**file.server}, {**flags["server"]}, environ)
    if model is not None and models:
        raise UsageError("Give one model as MODEL, or several with --model, not both.")
    engine = {"max_num_waiting": DEFAULT_MAX_NUM_WAITING, **file.engine, **flags["engine"]}
    if model is not None:
        entries: list[Mapping[str, Any]] = [{**flags["model"], "model": model}]
    elif models:
        entries = [_entry_of_flag(text) for text in models]
    else:
        entries = [{**entry, **flags["engine"]} for entry in file.models]
    if model is None and flags["model"]:
        entries = _with_model_flags(entries, flags["model"])
    plans = tuple(_model_plan({**engine, **entry}) for entry in entries)
    return Deployment(server=server, models=plans, config_file=file.path)


def _with_model_flags(
    entries: list[Mapping[str, Any]], flags: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """A model's flags go to the one model there is."""
    if len(entries) > 1:
        given = ", ".join("--" + name.replace("_", "-") for name in flags)
        raise UsageError(
            f"{given} would hold for {len(entries)} models: set it for each, with "
            "--model NAME=MODEL,option=value or in the file that --config names."
        )
    return [{**entry, **flags} for entry in entries]


def _entry_of_flag(text: str) -> Mapping[str, Any]:
    """``NAME=MODEL,device=cpu,max-model-len=512`` as a table."""
    name, separator, rest = text.partition("=")
    if not separator or not name or not rest:
        raise UsageError(
            f"--model {text!r} names no model: expected NAME=MODEL, such as chat=org/name, or "
            "NAME=MODEL,device=cuda:1."
        )
    parts = rest.split(",")
    num_path_parts = next(
        (index for index, part in enumerate(parts) if index and _OPTION_OF_MODEL.match(part)),
        len(parts),
    )
    entry: dict[str, Any] = {
        "served_model_name": [name],
        "model": ",".join(parts[:num_path_parts]),
    }
    for part in parts[num_path_parts:]:
        key, _, value = part.partition("=")
        entry.update(_option_of_model(text, key.replace("-", "_"), value))
    return entry


def _option_of_model(text: str, name: str, value: str) -> Mapping[str, Any]:
    known = {option.parameter: option.type for option in (*ENGINE_OPTIONS, *MODEL_OPTIONS)}
    if name not in known:
        raise UsageError(
            f"--model {text}: unknown option {name!r}.{did_you_mean(name, known)} "
            f"Known: {choices(known)}."
        )
    kind = known[name]
    try:
        if kind is bool:
            return {name: _TRUTH[value.lower()]}
        return {name: value if kind not in (int, float) else kind(value)}
    except (ValueError, KeyError) as error:
        words = "true or false" if kind is bool else f"a number ({kind.__name__})"
        raise UsageError(f"--model {text}: {name}={value!r} must be {words}.") from error


def _model_plan(entry: Mapping[str, Any]) -> ModelPlan:
    own = {option.parameter for option in MODEL_OPTIONS} | {"model"}
    engine = {name: value for name, value in entry.items() if name not in own}
    model: str = entry["model"]
    names = entry.get("served_model_name") or default_names(model)
    template = entry.get("chat_template")
    variables = entry.get("chat_template_kwargs")
    return ModelPlan(
        names=tuple(dict.fromkeys(names)),
        engine=EngineConfig.from_options(model, engine),
        placement=entry.get("engine_placement") or "process",
        tool_call_parser=entry.get("tool_call_parser"),
        reasoning_parser=entry.get("reasoning_parser"),
        chat_template=None if template is None else read_text_file("--chat-template", template),
        template_variables={} if variables is None else _object(variables),
    )


def default_names(model: str) -> list[str]:
    """A file's or a folder's name, and the model as the user wrote it; a hub name as it is."""
    path = Path(model)
    if not path.exists():
        return [model]
    return [path.stem if path.is_file() else path.resolve().name, model]


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--chat-template-kwargs {text!r} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise UsageError(f"--chat-template-kwargs {text!r} is not a JSON object.")
    return value


def _server_config(
    file: dict[str, Any], flags: dict[str, Any], environ: Mapping[str, str]
) -> ServerConfig:
    in_environment = {"api_key": [key]} if (key := environ.get(API_KEY_VARIABLE)) else {}
    keys: list[str] = []
    for source in (flags, in_environment, file):  # the first that has any
        if not keys:
            keys = _keys(source)
    values = {**file, **flags}
    options: dict[str, Any] = {
        SERVER_FIELDS.get(name, name): Path(value) if name in _PATHS else value
        for name, value in values.items()
        if name not in _KEY_OPTIONS
    }
    origins = tuple(options.pop("allowed_origins", ()))
    return ServerConfig(api_keys=tuple(keys), allowed_origins=origins, **options)


def _keys(source: Mapping[str, Any]) -> list[str]:
    keys = list(source.get("api_key", ()))
    for name in source.get("api_key_file", ()):
        lines = read_text_file("--api-key-file", name).splitlines()
        in_file = [line.strip() for line in lines if line.strip()]
        if not in_file:
            raise UsageError(f"--api-key-file {name} holds no key: expected one a line.")
        keys += in_file
    return keys
