"""Refuses options that a backend on torch does not have, and names the nearest one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from octavo.api import UsageError

__all__ = ["check_option_names"]


def check_option_names(names: Iterable[object], known: Iterable[str], backend: str) -> None:
    """Raise UsageError for the first name that is not known."""
    known = list(known)
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(str(name), known, n=1)
            suggestion = f" Did you mean {nearest[0]!r}?" if nearest else ""
            raise UsageError(
                f"Backend {backend!r} has no option {name!r}.{suggestion} It has: "
                f"{', '.join(known)}. Mend [options.{backend}] in plugins.toml, or the options "
                "that were passed (--threads, LLM(threads=...) is option 'threads')."
            )
