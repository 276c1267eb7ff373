"""The optional package that compiles grammars and computes masks."""

from __future__ import annotations

from typing import Any

from octavo.errors import UsageError

__all__ = ["load_llguidance"]


def load_llguidance() -> Any:
    """The module ``llguidance``; raises UsageError with the pip line where it is missing."""
    try:
        import llguidance
        import llguidance.gbnf_to_lark
        import llguidance.numpy
    except ImportError as error:
        raise UsageError(
            "structured_outputs needs the package llguidance, which is not installed: "
            'pip install "octavo[structured]"'
        ) from error
    return llguidance
