"""The errors a user can meet; each message says what happened, what was expected, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from octavo.outputs import RequestOutput

__all__ = [
    "BackendError",
    "CapacityError",
    "DeviceError",
    "ModelLoadError",
    "OctavoError",
    "PluginError",
    "QueueFullError",
    "RequestFailedError",
    "UsageError",
]


class OctavoError(Exception):
    """Base of every error Octavo raises on purpose; the CLI prints it without a traceback."""


class UsageError(OctavoError, ValueError):
    """A flag, parameter or request holds a value that cannot be used."""


class CapacityError(UsageError):
    """A request can never fit the configured context or cache, however long it waits."""


class QueueFullError(OctavoError):
    """The bounded waiting queue is full; the request was refused, not dropped."""


class ModelLoadError(OctavoError):
    """A checkpoint is missing, malformed, hostile, or of an unknown architecture."""


class PluginError(OctavoError):
    """A plugin or plugins.toml is unusable as a whole (single broken plugins are only reported)."""


class DeviceError(OctavoError):
    """The requested device or backend is unknown, absent or unusable here."""


class BackendError(OctavoError):
    """A backend broke its contract or failed while running."""


class RequestFailedError(BackendError):
    """Requests of a call ended with an error; the others were answered.

    ``outputs`` holds what there is of all of them, in the order of the prompts; ``error`` and
    ``finish_reason`` tell them apart.
    """

    def __init__(self, message: str, outputs: Sequence[RequestOutput]) -> None:
        super().__init__(message)
        self.outputs = list(outputs)
