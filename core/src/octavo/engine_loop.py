"""The loop that owns an engine: commands in, a step, and all that came of both out at once."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeAlias

from octavo.isolation import describe

if TYPE_CHECKING:
    from octavo.engine import Engine
    from octavo.outputs import RequestOutput

__all__ = ["Command", "EngineLoop"]

_LOG = logging.getLogger(__name__)

Command: TypeAlias = Callable[[], "Iterable[RequestOutput]"]
"""Something to do with the engine between two steps; returns outputs that it brought about. It
must not raise: what goes wrong belongs to who asked."""


class EngineLoop:
    """Runs in one thread, which the engine belongs to; others reach it through ``post``."""

    def __init__(self, engine: Engine, publish: Callable[[list[RequestOutput]], None]) -> None:
        """``publish`` is called in the loop's thread after each round, also without outputs."""
        self._engine = engine
        self._publish = publish
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()

    def post(self, command: Command) -> None:
        """Have something done before the next step; from any thread."""
        self._commands.put(command)

    def stop(self) -> None:
        """Let ``run`` return once what was posted before is done; from any thread."""
        self._commands.put(None)

    def run(self) -> None:
        """Do commands and steps until ``stop``, waiting while there are none; then abort all."""
        engine = self._engine
        outputs: list[RequestOutput] = []
        while self._do_commands(outputs):
            if engine.has_unfinished_requests:
                outputs += self._step()
            self._publish(outputs)
            outputs = []
        self._publish(outputs + engine.abort(engine.unfinished_request_ids))

    def _do_commands(self, outputs: list[RequestOutput]) -> bool:
        """Those that are there now, at least one if nothing else is to be done. False: stop."""
        # Those that come meanwhile wait for the next round: a flood must not hold up the steps.
        num_commands = self._commands.qsize()
        if not num_commands and not self._engine.has_unfinished_requests:
            num_commands = 1
        for _ in range(num_commands):
            command = self._commands.get()
            if command is None:
                return False
            outputs += command()
        return True

    def _step(self) -> list[RequestOutput]:
        try:
            return self._engine.step()
        except Exception as error:  # noqa: BLE001 - logged, and told to all
            # The backend's faults are the engine's to handle: this one is Octavo's own.
            _LOG.exception("A step failed outside the backend; all requests end")
            return self._engine.end_all(
                f"Octavo failed between two steps: {describe(error)}. This is a bug; all requests "
                "under way were ended."
            )
