"""Files that a flag names."""

from __future__ import annotations

from pathlib import Path

from octavo.errors import UsageError

__all__ = ["read_text_file"]


def read_text_file(flag: str, name: str) -> str:
    """The file's text. Raises UsageError, which names the flag."""
    try:
        return Path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{flag} {name}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{flag} {name} is not UTF-8 text (byte {error.start}).") from error
