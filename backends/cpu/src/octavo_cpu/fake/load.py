"""Puts a fake device together: one that computes or one that does not, with its faults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from octavo.api import Backend
from octavo.testing import FaultyBackend
from octavo_cpu.fake.computing import ComputingBackend, MeasuredBackend
from octavo_cpu.fake.hollow_backend import HollowBackend
from octavo_cpu.fake.options import FakeOptions
from octavo_cpu.fake.probe import check_index

__all__ = ["load_fake"]


def load_fake(index: int, options: Mapping[str, Any]) -> Backend:
    """Raises UsageError for bad options, DeviceError for an index that is not there."""
    parsed = FakeOptions.parse(options)
    check_index(index)
    backend: Any = _kind(parsed)(index, parsed)
    return FaultyBackend(backend, *parsed.faults) if parsed.faults else backend


def _kind(options: FakeOptions) -> type[ComputingBackend | HollowBackend]:
    if not options.compute:
        return HollowBackend
    return MeasuredBackend if options.measured else ComputingBackend
