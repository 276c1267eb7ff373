"""The options of the NumPy backend, as ``[options.numpy]`` in plugins.toml may set them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from octavo.api import UsageError
from octavo_cpu.option_names import check_option_names

__all__ = ["NumpyOptions"]


@dataclass(frozen=True)
class NumpyOptions:
    """Every option has a default that suits the machine."""

    threads: int | None = None
    """Threads of matrix products and attention; None leaves the count to the BLAS library."""

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> NumpyOptions:
        """Raise UsageError for an unknown option or a value that cannot be used."""
        check_option_names(options, (field.name for field in fields(cls)), "numpy")
        threads = options.get("threads")
        if threads is not None and not _is_positive_integer(threads):
            raise UsageError(
                f"Option threads of backend 'numpy' is {threads!r}; "
                "expected a whole number of at least 1. Leave it out to use every core."
            )
        return cls(threads=threads)


def _is_positive_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
