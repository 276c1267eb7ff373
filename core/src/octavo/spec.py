"""What a plugin registers before anything heavy is imported; standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from octavo.backend import Backend
    from octavo.parsing.clues import ModelClues
    from octavo.parsing.reasoning import ReasoningFormat
    from octavo.parsing.tool_format import ToolCallFormat

__all__ = [
    "API_VERSION",
    "AttentionSpec",
    "BackendSpec",
    "DeviceInfo",
    "Lacking",
    "ModelSpec",
    "ParserSpec",
    "Probe",
]

API_VERSION = 1
"""Version of the plugin interface; append-only, and core accepts this one and the one before."""


@dataclass(frozen=True)
class DeviceInfo:
    """One device a backend can use."""

    kind: str
    index: int
    name: str
    total_bytes: int | None = None


@dataclass(frozen=True)
class Lacking:
    """A kind of device that a backend serves and that is not here."""

    kind: str
    reason: str
    install: str | None = None


@dataclass(frozen=True)
class Probe:
    """What a backend found: its devices, or the reason there are none and how to mend it."""

    devices: tuple[DeviceInfo, ...] = ()
    reason: str | None = None
    install: str | None = None  # e.g. "pip install octavo-cuda"
    lacking: tuple[Lacking, ...] = ()
    """Of a backend for several kinds: why one has no device, where others have."""


@dataclass(frozen=True)
class BackendSpec:
    """A backend as its plugin registers it."""

    name: str
    device_kinds: tuple[str, ...]
    summary: str
    probe: Callable[[], Probe]
    load: Callable[[int, Mapping[str, Any]], Backend]
    """``load(device index, options)``. One that serves several kinds finds the device's among the
    options, as ``device_kind``."""
    api_version: int
    automatic: bool = True
    """False for what is no hardware, such as a device for tests: it serves who names it, and
    plugins.toml may name it; ``auto`` and the listings pass it over without a word."""
    tensor_parallel: bool = False
    """``load`` takes the option ``tensor_parallel_size``, and what it returns has the members of
    ``octavo.api.WeightShards``: several devices can share one model."""


@dataclass(frozen=True)
class AttentionSpec:
    """Another implementation of some ops (attention, cache) for a named backend.

    Where ``load`` lacks something, it raises an OctavoError that says what and what to do.
    """

    name: str
    backend: str
    ops: tuple[str, ...]  # names of the Ops methods that it provides
    load: Callable[[Backend], Mapping[str, Callable[..., Any]]]  # op name -> implementation
    supports: Callable[[Any], str | None]  # model -> None if it can, else why not
    api_version: int
    summary: str = ""
    """What it is and where it ends, for ``octavo ops``: one line."""


@dataclass(frozen=True)
class ModelSpec:
    """A model architecture: ``build(config)`` returns an octavo.models.base.Model.

    The architecture ``*`` stands for every one; it serves where ``--model-impl`` asks for its
    ``implementation``, or where nobody has written the architecture itself.
    """

    architecture: str  # as in config.json, e.g. "LlamaForCausalLM"
    build: Callable[..., Any]
    backend: str | None = None  # replaces the architecture on this backend only
    api_version: int = API_VERSION
    implementation: str = "octavo"  # what ``--model-impl`` calls it; "transformers" for ``*``


@dataclass(frozen=True)
class ParserSpec:
    """How a family of models writes tool calls, or its reasoning.

    The parser of a plugin replaces the built-in one of its kind and name.
    """

    name: str
    kind: Literal["tool_calls", "reasoning"]
    summary: str
    load: Callable[[], ToolCallFormat | ReasoningFormat]
    detect: Callable[[ModelClues], bool]  # whether a model writes so
    api_version: int
