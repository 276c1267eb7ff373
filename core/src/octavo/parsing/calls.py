"""From what a reader finds in a call to events; a call is held back until it is complete."""

from __future__ import annotations

from collections.abc import Callable, Collection

from octavo.parsing.content import ContentSink
from octavo.parsing.cursor import MalformedCall
from octavo.parsing.events import Event, ToolCallArguments, ToolCallBegin, ToolCallEnd

__all__ = ["CallSink"]

_MAX_NAME_CHARS = 256


class CallSink:
    """Takes the name and the arguments of one call after the other, in any order.

    With `stream_arguments` a call begins as soon as its name and a first piece of its arguments are
    known; what breaks off then can no longer become content.
    """

    def __init__(
        self,
        emit: Callable[[Event], None],
        content: ContentSink,
        known_names: Collection[str],
        new_id: Callable[[], str],
        *,
        max_calls: int,
        stream_arguments: bool,
    ) -> None:
        self._emit = emit
        self._content = content
        self._known_names = known_names
        self._new_id = new_id
        self._max_calls = max_calls
        self._is_streaming = stream_arguments
        self._num_calls = 0
        self._name: str | None = None
        self._id: str | None = None
        self._arguments: list[str] = []
        self._has_begun = self._has_arguments = False

    def put_name(self, name: str) -> None:
        """The function's name."""
        if self._name is not None:
            raise MalformedCall("a call with two names")
        if not name or not name.isprintable() or len(name) > _MAX_NAME_CHARS:
            raise MalformedCall(f"{name[:40]!r} is no name of a function")
        if self._num_calls == self._max_calls:
            raise MalformedCall(f"more than {self._max_calls} calls")
        self._name = name
        self._stream()

    def put_id(self, call_id: str) -> None:
        """The id that the model gave the call; without one, the call gets a new one."""
        if call_id and call_id.isprintable() and len(call_id) <= _MAX_NAME_CHARS:
            self._id = call_id

    def put_arguments(self, text: str) -> None:
        """More of the text of the JSON object of arguments."""
        self._arguments.append(text)
        self._stream()

    def complete(self) -> None:
        """The call is whole; without arguments they are an empty object."""
        if not self._has_begun:
            self._begin()
        if not self._has_arguments and not self._arguments:
            self._arguments.append("{}")
        self._flush_arguments()
        self._emit(ToolCallEnd(self._num_calls))
        self._num_calls += 1
        self._reset()

    def abandon(self) -> bool:
        """Forget a call that is none after all; returns whether parts of it were handed out."""
        has_begun = self._has_begun
        if has_begun:
            self._emit(ToolCallEnd(self._num_calls, is_complete=False))
            self._num_calls += 1
        self._reset()
        return has_begun

    def _reset(self) -> None:
        self._name = self._id = None
        self._arguments.clear()
        self._has_begun = self._has_arguments = False

    def _stream(self) -> None:
        if not self._is_streaming or self._name is None or not self._arguments:
            return
        if not self._has_begun:
            self._begin()
        self._flush_arguments()

    def _begin(self) -> None:
        if self._name is None:
            raise MalformedCall("a call without a name")
        self._content.before_call()
        is_known = self._name in self._known_names
        call_id = self._id or self._new_id()
        self._emit(ToolCallBegin(self._num_calls, call_id, self._name, is_known))
        self._has_begun = True

    def _flush_arguments(self) -> None:
        if self._arguments:
            self._emit(ToolCallArguments(self._num_calls, "".join(self._arguments)))
            self._arguments.clear()
            self._has_arguments = True
