"""The options of the backend ``jax``, as ``[options.jax]`` or a caller may set them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from octavo.api import UsageError

__all__ = ["JaxOptions"]


@dataclass(frozen=True)
class JaxOptions:
    """Few shapes, all of them compiled before the first request."""

    device_kind: str = "cpu"
    """Octavo says which of its kinds a device is of."""
    token_buckets: tuple[int, ...] = (8, 64, 512, 2048)
    """Numbers of tokens that a step is padded to."""
    seq_buckets: tuple[int, ...] = (8, 64, 256)
    """Numbers of sequences that a step is padded to."""
    compile_at_start: bool = True
    """False: a shape is compiled when it first comes about, and requests wait for it."""
    compilation_cache: bool | str = True
    """Keep what is compiled for the next start: in JAX's own folder if one is set, in that of the
    user's caches, or in the folder that is named here. False: do not."""

    tensor_parallel_size: int = 1
    """Octavo says how many devices share a model."""
    coordinator_address: str | None = None
    """HOST:PORT of the first of several processes whose devices share a model; or as
    JAX_COORDINATOR_ADDRESS, with JAX_NUM_PROCESSES and JAX_PROCESS_ID for the other two."""
    num_processes: int | None = None
    process_id: int | None = None

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> JaxOptions:
        """Raise UsageError for an unknown option or a value that cannot be used."""
        known = [field.name for field in fields(cls)]
        for name, value in options.items():
            if name not in known:
                public = ", ".join(known[1:])
                raise UsageError(f"Backend 'jax' has no option {name!r}; it has {public}.")
            is_good, expected = _EXPECTED[name]
            if not is_good(value):
                raise UsageError(
                    f"Option {name} of backend 'jax' is {value!r}; expected {expected}."
                )
        values = dict(options)
        for name in ("token_buckets", "seq_buckets"):
            if name in values:
                values[name] = tuple(sorted(set(values[name])))
        return cls(**values)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _are_counts(value: object) -> bool:
    return (
        isinstance(value, list | tuple) and bool(value) and all(_is_count(each) for each in value)
    )


def _is_count(value: object, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


_COUNTS = (_are_counts, "a list of whole numbers, at least 1 each")
_EXPECTED: Mapping[str, tuple[Any, str]] = {
    "device_kind": (lambda value: isinstance(value, str), "a kind of device"),
    "token_buckets": _COUNTS,
    "seq_buckets": _COUNTS,
    "compile_at_start": (_is_flag, "true or false"),
    "tensor_parallel_size": (_is_count, "a whole number, at least 1"),
    "coordinator_address": (
        lambda value: isinstance(value, str) and ":" in value,
        "HOST:PORT of the first process",
    ),
    "num_processes": (_is_count, "a whole number, at least 1"),
    "process_id": (lambda value: _is_count(value, 0), "a whole number, 0 for the first process"),
    "compilation_cache": (
        lambda value: _is_flag(value) or (isinstance(value, str) and bool(value)),
        "true, false or a folder",
    ),
}
