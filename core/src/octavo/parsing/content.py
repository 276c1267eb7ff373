"""The text between calls: white space that only sets calls apart is no content."""

from __future__ import annotations

from collections.abc import Callable

from octavo.parsing.events import ContentDelta, Event

__all__ = ["ContentSink"]


class ContentSink:
    """Emits content, and holds white space back until it is known what follows.

    White space at the beginning of an answer is dropped if a call follows, and that behind a call
    if another one or the end follows. All other text is kept as it is.
    """

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self._emit = emit
        self._held: list[str] = []
        self._is_blank = True  # no text since the beginning or the last call
        self._is_behind_call = False
        self.is_line_blank = True
        """Whether only white space is before this place in its line, or behind the last call."""

    def put(self, text: str) -> None:
        """More content."""
        if not text:
            return
        _, line_break, line = text.rpartition("\n")
        self.is_line_blank = (self.is_line_blank or bool(line_break)) and not line.strip()
        if self._is_blank and text.isspace():
            self._held.append(text)
            return
        self._is_blank = False
        self._emit(ContentDelta("".join([*self._held, text])))
        self._held.clear()

    def before_call(self) -> None:
        """A call follows."""
        self._held.clear()
        self._is_blank = self._is_behind_call = self.is_line_blank = True

    def finish(self) -> None:
        """The answer has ended; one of white space alone is content all the same."""
        if self._held and not self._is_behind_call:
            self._emit(ContentDelta("".join(self._held)))
        self._held.clear()
