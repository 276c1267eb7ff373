"""All kernels by name, for the checks and the ahead-of-time builds."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from pkgutil import iter_modules

from octavo_torch import kernels
from octavo_torch.kernels.kernel import Kernel

__all__ = ["all_kernels"]


@lru_cache(maxsize=1)
def all_kernels() -> dict[str, Kernel]:
    """Every ``KERNELS`` of a module in ``octavo_torch.kernels``, by name. Needs Triton."""
    found: dict[str, Kernel] = {}
    for module in iter_modules(kernels.__path__):
        each = getattr(import_module(f"{kernels.__name__}.{module.name}"), "KERNELS", ())
        found |= {kernel.name: kernel for kernel in each}
    return found
