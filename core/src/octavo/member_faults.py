"""What a backend raises, in words: which member of which backend, and what to do about it."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from octavo.errors import BackendError, CapacityError, OctavoError
from octavo.isolation import describe

if TYPE_CHECKING:
    from octavo.backend import Backend

__all__ = ["close_backend", "explain", "naming_faults", "naming_step_faults"]

_LOG = logging.getLogger(__name__)

_MEMORY_ADVICE = {
    "put": "The weights do not fit the device: take a smaller or a quantised model, or a smaller "
    "dtype.",
    "make_kv": "The cache does not fit the device: lower kv_cache_memory_bytes, "
    "gpu_memory_utilization, max_model_len or swap_space.",
    "step": "The device is out of memory: lower gpu_memory_utilization or kv_cache_memory_bytes, "
    "max_num_seqs or max_num_batched_tokens.",
}
_MEMORY_ADVICE["put_linear"] = _MEMORY_ADVICE["put"]


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory is short, in the words of NumPy, torch, JAX or a driver."""
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or any(
        words in text for words in ("out of memory", "outofmemory", "resource_exhausted")
    )


def explain(error: BaseException, member: str = "step") -> str:
    """What was raised and where, a full stop, and what to do if memory is short."""
    advice = _MEMORY_ADVICE.get(member, _MEMORY_ADVICE["step"])
    if isinstance(error, OctavoError):
        return str(error)  # says all that there is to say
    return f"{describe(error)}.{' ' + advice if _is_out_of_memory(error) else ''}"


class _NamingFaults:
    """A backend whose members raise OctavoErrors only. Too slow for what is called in each step."""

    def __init__(self, backend: Backend, name: str) -> None:
        self._backend = backend
        self._name = name

    def __getattr__(self, member: str) -> Any:
        value = getattr(self._backend, member)
        if member in ("caps", "ops") or not callable(value):
            return value
        return functools.partial(self._call, member, value)

    def _call(self, member: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except OctavoError:
            raise
        except Exception as error:
            kind = CapacityError if _is_out_of_memory(error) else BackendError
            raise kind(
                f"Backend {self._name!r} failed in {member}: {explain(error, member)}"
            ) from error


def naming_faults(backend: Backend, name: str) -> Backend:
    """The same backend for loading: what a member raises becomes one error that names both.

    CapacityError where memory is short, BackendError otherwise; OctavoErrors pass as they are.
    """
    return cast("Backend", _NamingFaults(backend, name))


@contextmanager
def naming_step_faults(name: str) -> Iterator[None]:
    """As ``naming_faults``, for a step that is run while an engine is loaded."""
    try:
        yield
    except OctavoError:
        raise
    except Exception as error:
        kind = CapacityError if _is_out_of_memory(error) else BackendError
        raise kind(f"Backend {name!r} failed in a step: {explain(error)}") from error


def close_backend(backend: Backend, name: str) -> None:
    """Close it. Raises BackendError if it cannot be.

    While another error is on its way, which must not be hidden, that is only logged.
    """
    first = sys.exc_info()[1]
    try:
        naming_faults(backend, name).close()
    except OctavoError as error:
        if first is None:
            raise
        _LOG.warning("%s", error)
