"""Finding stop strings in text that arrives in pieces."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from octavo.errors import UsageError

__all__ = ["StopChecker"]


class _Prefix:
    """A node of the Aho-Corasick automaton: a prefix of one stop string or of several.

    ``stop`` is the longest stop string that the prefix ends with, if any.
    """

    __slots__ = ("fallback", "length", "next", "stop")

    def __init__(self, length: int) -> None:
        self.length = length
        self.next: dict[str, _Prefix] = {}
        self.fallback: _Prefix | None = None
        self.stop: str | None = None

    def step(self, character: str) -> _Prefix:
        """The longest prefix that text ending here, followed by `character`, ends with."""
        node: _Prefix | None = self
        while node is not None:
            following = node.next.get(character)
            if following is not None:
                return following
            if node.fallback is None:
                return node
            node = node.fallback
        raise AssertionError("the empty prefix has no fallback and ends the search")


class StopChecker:
    """Cuts a streamed text at the first stop string to be completed.

    Of stop strings completed by the same character, the one that began first wins, so the result
    does not depend on how the text was cut into pieces, and generation never runs on past a
    completed stop string. Text that may be the beginning of one is held back until that is
    decided. Time is linear in the text, whatever the number of stop strings.
    """

    def __init__(self, stops: Sequence[str] = (), include_stop_str_in_output: bool = False) -> None:
        if isinstance(stops, str):
            stops = [stops]
        if not all(isinstance(stop, str) and stop for stop in stops):
            raise UsageError(f"Stop strings must be non-empty text, got {list(stops)!r}.")
        self._include_stop = include_stop_str_in_output
        self._start = _automaton(stops)
        self._state = self._start
        self._held = ""
        self._stopped: str | None = None

    @property
    def stopped(self) -> str | None:
        """The stop string that ended the text, or None so far."""
        return self._stopped

    def push(self, text: str) -> tuple[str, str | None]:
        """The text that may be shown now, and the stop string that ended it, if one did.

        After a stop nothing more comes: what follows it is dropped.
        """
        if self._stopped is not None:
            return "", self._stopped
        state = self._state
        if state is self._start and state.next.keys().isdisjoint(text):
            return text, None
        for index, character in enumerate(text):
            state = state.step(character)
            if state.stop is not None:
                return self._stop(state.stop, self._held + text[: index + 1])
        self._state = state
        text = self._held + text
        shown = len(text) - state.length
        self._held = text[shown:]
        return text[:shown], None

    def _stop(self, stop: str, text: str) -> tuple[str, str]:
        self._stopped, self._held = stop, ""
        return text if self._include_stop else text[: -len(stop)], stop

    def flush(self) -> str:
        """The text still held back, once no more can come."""
        held, self._held, self._state = self._held, "", self._start
        return held


def _automaton(stops: Sequence[str]) -> _Prefix:
    start = _Prefix(0)
    for stop in stops:
        node = start
        for character in stop:
            node = node.next.setdefault(character, _Prefix(node.length + 1))
        node.stop = stop
    waiting = deque([start])
    while waiting:  # breadth first: a fallback is shorter, so it is complete already
        node = waiting.popleft()
        for character, child in node.next.items():
            child.fallback = start if node.fallback is None else node.fallback.step(character)
            child.stop = child.stop or child.fallback.stop
            waiting.append(child)
    return start
