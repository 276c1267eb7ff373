"""An engine asleep: its caches, and its weights if asked, are given back until it is woken."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from octavo.errors import BackendError, UsageError
from octavo.freed_memory import return_freed_memory

if TYPE_CHECKING:
    from octavo.models.base import Weights
    from octavo.runner import Runner

__all__ = ["SLEEP_LEVELS", "Sleep"]

SLEEP_LEVELS = (1, 2)
ReloadWeights = Callable[[], "Weights"]


class Sleep:
    """What of a runner's memory is given back now: 0 nothing, 1 the KV caches, 2 the weights too.

    Only between steps, and only while no request holds a block.
    """

    def __init__(self, runner: Runner, reload_weights: ReloadWeights | None) -> None:
        self._runner = runner
        self._reload_weights = reload_weights
        self.level = 0

    def check_level(self, level: int) -> None:
        """Raise UsageError for a level that does not exist, or not for this engine."""
        if level not in SLEEP_LEVELS or isinstance(level, bool):
            raise UsageError(
                f"level={level!r} is not a level of sleep: 1 gives back the KV cache, 2 the "
                "weights as well."
            )
        if level == 2 and self._reload_weights is None:
            raise UsageError(
                "level=2 gives the weights back, and this engine was built without a checkpoint to "
                "load them from again; use level=1."
            )

    def fall_asleep(self, level: int) -> None:
        """Give back what ``level`` says; what is given back already stays so."""
        self._runner.store.release()
        if level == 2:
            self._runner.release_weights()
        self.level = max(self.level, level)
        return_freed_memory()

    def wake_up(self) -> None:
        """Take everything again; asleep as before if that fails."""
        if self.level == 2:
            assert self._reload_weights is not None  # noqa: S101 - checked by ``check_level``
            self._runner.take_weights(self._reload_weights())
            self.level = 1
        if self.level == 1:
            self._runner.store.reset()
            self.level = 0

    def check_awake(self) -> None:
        """Raise BackendError while it sleeps."""
        if self.level:
            raise BackendError(
                f"The engine sleeps (level {self.level}) and takes no requests: wake it up first."
            )
