"""Finds and opens the library of compiled kernels; light, because whoever lists devices does so."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path

import octavo_cpu.native
from octavo.api import DeviceError

__all__ = ["ABI_VERSION", "library_path", "open_library", "variants"]

ABI_VERSION = 4
"""Of kernels/library.cpp and kernels/abi.h."""

_VARIABLE = "OCTAVO_CPU_KERNELS"
_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")


def library_path() -> Path:
    """Where the library is, or would be; in an editable installation not beside the sources."""
    if named := os.environ.get(_VARIABLE):
        return Path(named)
    paths = [Path(folder) / f"libkernels{_SUFFIX}" for folder in octavo_cpu.native.__path__]
    return next((path for path in paths if path.is_file()), paths[-1])


@cache
def open_library() -> ctypes.CDLL:
    """The library; raises DeviceError where there is none, or one of another version."""
    path = library_path()
    if not path.is_file():
        raise DeviceError(
            f"Backend 'native' has no compiled kernels here ({path} is missing). Install a C++ "
            "compiler and reinstall octavo-cpu, or use --backend numpy."
        )
    try:
        library = ctypes.CDLL(os.fspath(path))
        version = library.octavo_abi_version()
    except (OSError, AttributeError) as error:
        raise DeviceError(f"The kernels in {path} cannot be loaded: {error}") from error
    if version != ABI_VERSION:
        raise DeviceError(
            f"The kernels in {path} have ABI version {version}; expected {ABI_VERSION}. "
            "Reinstall octavo-cpu."
        )
    return library


def variants() -> list[str]:
    """The instruction sets that this processor can run, the best first."""
    text = ctypes.create_string_buffer(256)
    open_library().octavo_variants(text, len(text))
    return text.value.decode().split()
