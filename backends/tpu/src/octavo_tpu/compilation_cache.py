"""Where programs are kept for the next start."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import jax

__all__ = ["keep_programs"]

_LEAST_COMPILE_S = 0.2


def keep_programs(choice: bool | str) -> Path | None:
    """The folder that JAX keeps programs in from now on; None where it keeps none.

    Its cache is the process's, so a folder that is set already stays.
    """
    known: str | None = getattr(jax.config, "jax_compilation_cache_dir", None)
    if known or choice is False:
        return Path(known) if known else None
    folder = Path(choice) if isinstance(choice, str) else _user_folder()
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_COMPILE_S)
    return folder


def _user_folder() -> Path:
    """Of the user's caches, as the system has it."""
    if sys.platform == "darwin":
        base = Path.home() / "Library/Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return base / "octavo" / "jax"
