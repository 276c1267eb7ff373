"""The options of the fake device, as ``[options.fake]`` or a caller may set them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from octavo.api import UsageError
from octavo.testing import InjectedFault
from octavo_cpu.fake.faults import parse_faults
from octavo_cpu.option_names import check_option_names

__all__ = ["FakeOptions"]

_GIB = 1 << 30
_LONGEST_S = 86_400.0  # a day: far longer than any test, and a time that every system can sleep


@dataclass(frozen=True)
class FakeOptions:
    """A device of 16 GiB that computes at once what the NumPy backend computes."""

    memory_bytes: int = 16 * _GIB
    """Memory of the device; weights, caches and arrays take theirs of it."""
    compute: bool = True
    """False: no arithmetic and no weights, so that a model of any size loads at once; tokens follow
    from a hash of what a request can see through its block tables."""
    latency_s: float = 0.0
    """Seconds that a step takes at least."""
    token_latency_s: float = 0.0
    """Seconds that each token of a step's batch adds to that."""
    asynchronous: bool = False
    """A step's time passes on the device: it is queued, and who reads its results waits for it."""
    measured: bool = False
    """What a step takes is measured (``octavo.api.MemoryMeter``), as NumPy takes it on the host."""
    faults: tuple[InjectedFault, ...] = ()
    """What fails, and when; see octavo_cpu.fake.faults."""

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> FakeOptions:
        """Raise UsageError for an unknown option or a value that cannot be used."""
        check_option_names(options, (field.name for field in fields(cls)), "fake")
        values = {name: _READERS[name](name, value) for name, value in options.items()}
        parsed = cls(**values)
        if parsed.asynchronous and not parsed.compute:
            raise UsageError(
                "Options asynchronous = true and compute = false of backend 'fake' exclude each "
                "other: where nothing is computed, the host chooses the tokens. Leave one out."
            )
        return parsed


def _bytes(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _refusal(name, value, "a whole number of bytes, at least 1")
    return value


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _refusal(name, value, "true or false")
    return value


def _seconds(name: str, value: object) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= _LONGEST_S:  # type: ignore[operator]  # a number
        raise _refusal(name, value, f"a number of seconds from 0 to {_LONGEST_S:.0f}")
    return float(value)  # type: ignore[arg-type]


_READERS: Mapping[str, Any] = {
    "memory_bytes": _bytes,
    "compute": _flag,
    "latency_s": _seconds,
    "token_latency_s": _seconds,
    "asynchronous": _flag,
    "measured": _flag,
    "faults": lambda _name, value: parse_faults(value),
}


def _refusal(name: str, value: object, expectation: str) -> UsageError:
    return UsageError(f"Option {name} of backend 'fake' is {value!r}; expected {expectation}.")
