"""The options of the backend ``torch``, as ``[options.torch]`` in plugins.toml may set them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from octavo.api import UsageError
from octavo_torch.option_names import check_option_names

__all__ = ["CpuOptions"]


@dataclass(frozen=True)
class CpuOptions:
    """Every option has a default that suits the machine."""

    threads: int | None = None
    """Threads that share an op; None leaves the count to torch (OMP_NUM_THREADS, or every core)."""

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> CpuOptions:
        """Raise UsageError for an unknown option or a value that cannot be used."""
        check_option_names(options, ("threads",), "torch")
        threads = options.get("threads")
        is_count = isinstance(threads, int) and not isinstance(threads, bool) and threads >= 1
        if threads is not None and not is_count:
            raise UsageError(
                f"Option threads of backend 'torch' is {threads!r}; "
                "expected a whole number of at least 1. Leave it out to use every core."
            )
        return cls(threads=threads)
