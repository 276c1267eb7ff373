"""The options of the native backend, as ``[options.native]`` in plugins.toml may set them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from octavo.api import UsageError
from octavo_cpu.native.library import variants
from octavo_cpu.option_names import check_option_names

__all__ = ["NativeOptions"]


@dataclass(frozen=True)
class NativeOptions:
    """Every option has a default that suits the machine."""

    threads: int | None = None
    """Threads that share an op; None: as many as there are cores to use."""
    variant: str = ""
    """The instruction set of the kernels; "" takes the best that the processor has."""

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> NativeOptions:
        """Raise UsageError for an unknown option or a value that cannot be used."""
        check_option_names(options, (field.name for field in fields(cls)), "native")
        threads, variant = options.get("threads"), options.get("variant", "")
        if threads is not None and not _is_positive_integer(threads):
            raise UsageError(
                f"Option threads of backend 'native' is {threads!r}; "
                "expected a whole number of at least 1. Leave it out to use every core."
            )
        if variant and variant not in variants():
            raise UsageError(
                f"Option variant of backend 'native' is {variant!r}, which this processor cannot "
                f"run; it can run {', '.join(variants())}. Leave it out to use the first."
            )
        return cls(threads=threads, variant=variant)


def _is_positive_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
