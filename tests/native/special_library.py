"""Libraries with a single kernel that misbehaves as told: backends/cpu/kernels/check/NAME/."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from octavo_cpu.native.library import load_library
from octavo_cpu.native.library_file import open_library

SOURCES = ("library.cpp", "memory.cpp", "nodes.cpp", "pool.cpp", "seat.cpp")


def build_library(kernels: Path, name: str, folder: Path) -> Path:
    """Compile the threads and the special kernel ``name`` into a library in ``folder``."""
    compilers = (os.environ.get("CXX", "c++"), "g++", "clang++")
    compiler = next(filter(None, map(shutil.which, compilers)), None)
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    path = folder / f"lib{name}.so"
    sources = [*(kernels / source for source in SOURCES), kernels / "check" / name / "variant.cpp"]
    flags = ["-std=c++17", "-shared", "-fPIC", "-pthread", "-Wall", "-Werror", f"-I{kernels}"]
    built = subprocess.run(
        [compiler, *flags, *sources, "-o", path], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return path


@contextmanager
def contexts_use(library: Path) -> Iterator[None]:
    """Contexts that are made in here are of that library."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OCTAVO_CPU_KERNELS", str(library))
        _forget_libraries()
        yield
    _forget_libraries()


def _forget_libraries() -> None:
    for loaded in (open_library, load_library):
        loaded.cache_clear()
