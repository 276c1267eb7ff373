"""How much of an answer a parser holds back, and how deep it looks."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ParsingLimits"]


@dataclass(frozen=True)
class ParsingLimits:
    """What goes beyond a limit is no call: it comes out as content."""

    max_call_chars: int = 1 << 20
    max_depth: int = 64  # nesting of objects and arrays in the arguments
    max_calls: int = 128  # in one answer

    def __post_init__(self) -> None:
        for name in ("max_call_chars", "max_depth", "max_calls"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name}={value}; expected at least 1")
