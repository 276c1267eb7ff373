"""What an engine's client and the engine's own thread say to each other; plain data only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import octavo.errors
from octavo.errors import BackendError, OctavoError

if TYPE_CHECKING:
    from octavo.engine_snapshot import EngineStats
    from octavo.outputs import RequestOutput
    from octavo.prompts import Prompt
    from octavo.sampling_params import SamplingParams
    from octavo.server.engines.client import EngineInfo

__all__ = [
    "Abort",
    "Add",
    "Call",
    "Key",
    "Loaded",
    "Message",
    "Reply",
    "ReplyError",
    "Round",
    "Stop",
    "as_reply_error",
    "error_of",
]

Key: TypeAlias = int
"""Names a request or a call between the two: a request's own id may come back for another."""
ReplyError: TypeAlias = tuple[str, str]
"""(class of an OctavoError, message)"""


@dataclass(frozen=True, slots=True)
class Add:
    """Queue a request; answered by a Reply."""

    key: Key
    request_id: str
    prompt: Prompt
    params: SamplingParams
    priority: int
    cache_salt: str | None


@dataclass(frozen=True, slots=True)
class Abort:
    """End the request that was added under ``key``, if it has not ended; not answered."""

    key: Key


@dataclass(frozen=True, slots=True)
class Call:
    """Do something else with the engine; answered by a Reply with what it returned."""

    key: Key
    name: Literal["snapshot", "reset_prefix_cache", "sleep", "wake_up"]
    arguments: tuple[Any, ...] = ()


Message: TypeAlias = Add | Abort | Call


@dataclass(frozen=True, slots=True)
class Reply:
    """How the message of the same key fared."""

    key: Key
    value: Any = None
    error: ReplyError | None = None


@dataclass(frozen=True, slots=True)
class Round:
    """All that came of one round of the engine's loop. Replies come before the outputs."""

    replies: list[Reply]
    outputs: list[tuple[Key, RequestOutput]]
    stats: EngineStats
    failure: str | None
    is_sleeping: bool


@dataclass(frozen=True, slots=True)
class Loaded:
    """The first message of the worker: the engine is ready, or could not be loaded."""

    info: EngineInfo | None = None
    eos_token_ids: frozenset[int] = frozenset()
    stats: EngineStats | None = None
    error: ReplyError | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """The last message of the client, and of the worker once it has closed the engine."""

    error: ReplyError | None = None


def as_reply_error(error: Exception) -> ReplyError:
    """An exception as plain data; what is not an OctavoError becomes a BackendError."""
    if isinstance(error, OctavoError):
        return type(error).__name__, str(error)
    return "BackendError", f"Octavo failed on this request: {type(error).__name__}: {error}"


def error_of(error: ReplyError) -> OctavoError:
    """The exception that was sent; BackendError where its class takes more than a message."""
    name, message = error
    kind = getattr(octavo.errors, name) if name in octavo.errors.__all__ else BackendError
    return BackendError(message) if issubclass(kind, BackendError) else kind(message)
