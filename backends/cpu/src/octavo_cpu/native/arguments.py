"""What changes from step to step: the arrays among a function's arguments, and what else there is.

Arrays are listed in the order of ``listed``; ``traced`` puts symbolic ones in their places.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterable
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from octavo.api import SamplingBatch, StepBatch
from octavo_cpu.native.plan import NativePlan
from octavo_cpu.native.rows import Untraceable
from octavo_cpu.native.sampling import SETTINGS

__all__ = ["listed", "traced"]

Arrays = list[NDArray[Any]]
Symbolic = Callable[[NDArray[Any], str | None], Any]
"""``symbolic(array, name)`` gives what stands for an array; ``name`` is that of its number of rows,
or None where its shape is fixed."""

_ROWS_OF_BATCH = {
    "token_ids": "tokens",
    "positions": "tokens",
    "token_seqs": "tokens",
    "context_lens": "tokens",
    "logits_rows": "rows",
}


def listed(value: Any, arrays: Arrays) -> Hashable:  # noqa: PLR0911 - a case each
    """Append the arrays in ``value``; returns all else that a recording depends on.

    That is everything but the numbers in arrays, and how many rows those have that a StepBatch or a
    NativePlan brings.
    """
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return (value.dtype, value.shape)
    if isinstance(value, StepBatch):
        arrays.extend([getattr(value, name) for name in _ROWS_OF_BATCH])
        return StepBatch
    if isinstance(value, SamplingBatch) and value.plain:
        arrays.extend([getattr(value, name) for name in _settings(value)])
        return (SamplingBatch, value.all_greedy, value.num_logprobs)
    if isinstance(value, NativePlan):
        arrays.extend((value.buffer, value.scratch))
        return NativePlan
    if isinstance(value, tuple | list):
        return (type(value), *(listed(item, arrays) for item in value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return (
            type(value),
            *(listed(getattr(value, field.name), arrays) for field in fields),
        )
    if value is None or isinstance(value, bool | int | float | str):
        return (type(value), value)
    return _Same(value)


class _Same:
    """A thing that nothing is known of: the same only as itself. Keeps it, so that its id stays."""

    def __init__(self, thing: object) -> None:
        self._thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other._thing is self._thing

    def __hash__(self) -> int:
        return id(self._thing)


def traced(value: Any, symbolic: Symbolic) -> Any:  # noqa: PLR0911 - a case each
    """``value`` with symbolic arrays, asked for in the order in which ``listed`` lists."""
    if isinstance(value, np.ndarray):
        return symbolic(value, None)
    if isinstance(value, StepBatch):
        return _traced_batch(value, symbolic)
    if isinstance(value, SamplingBatch) and value.plain:
        return _traced_sampling(value, symbolic)
    if isinstance(value, NativePlan):
        return NativePlan(symbolic(value.buffer, "plan"), symbolic(value.scratch, None))
    if isinstance(value, tuple | list):
        return type(value)(traced(item, symbolic) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(
            value,
            **{
                field.name: traced(getattr(value, field.name), symbolic)
                for field in dataclasses.fields(value)
            },
        )
    return value


def _traced_batch(batch: StepBatch, symbolic: Symbolic) -> StepBatch:
    """Models read no more than this (octavo.models.base.StepInput); the rest is in the plans."""
    arrays = {name: symbolic(getattr(batch, name), rows) for name, rows in _ROWS_OF_BATCH.items()}
    others: Any = _Untold()
    return StepBatch(**arrays, query_start=others, seq_lens=others, groups=others)


def _settings(sampling: SamplingBatch) -> Iterable[str]:
    """Greedy rows have none; their temperature tells how many there are."""
    return ("temperature",) if sampling.all_greedy else SETTINGS


def _traced_sampling(sampling: SamplingBatch, symbolic: Symbolic) -> SamplingBatch:
    others: Any = _Untold()
    fields = {
        field.name: others
        for field in dataclasses.fields(sampling)
        if isinstance(getattr(sampling, field.name), np.ndarray)
    }
    for name in _settings(sampling):
        values = getattr(sampling, name)
        if values.dtype != SETTINGS[name]:
            raise Untraceable(f"{name} is of {values.dtype}")
        fields[name] = symbolic(values, "rows")
    return dataclasses.replace(sampling, **fields)


class _Untold:
    """Part of a batch that models do not read."""

    def __getattr__(self, name: str) -> NoReturn:
        raise Untraceable(f"{name!r} of a part of the batch was asked for")
