"""A backend under test in a process of its own, which is started again whenever it dies."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from octavo.errors import BackendError, OctavoError
from octavo.testing.conform import Result, needs_device
from octavo.testing.gaps import Gap, GapTable
from octavo.testing.worker_process import WorkerDeathError, WorkerProcess

if TYPE_CHECKING:
    from octavo.testing.check import Check

__all__ = ["IsolatedSubject", "ListedCase", "Opened"]

_END_LIMIT_S = 10.0
_SETUP_LIMIT_S = 120.0  # to import, probe, load and list, however little a case may take
_SIGN_OF_LIFE_S = 10.0  # of waiting for these, before it is said what is waited for


@dataclass(frozen=True)
class ListedCase:
    """A case as the worker lists it."""

    check: Check
    id: str
    unclaimed: str | None
    quick: bool


@dataclass(frozen=True)
class Opened:
    """What is known of a backend before it is loaded."""

    distribution: Mapping[str, str]
    device: Mapping[str, Any]
    reason: str
    gaps: GapTable


class IsolatedSubject:
    """Lists and runs cases, each for ``limit_s`` at most.

    ``arguments`` are those of the worker's request ``open``.
    """

    def __init__(
        self, arguments: Mapping[str, Any], limit_s: float, on_output: Callable[[str], object]
    ) -> None:
        self._arguments = arguments
        self._limit_s = limit_s
        self._on_output = on_output
        self._worker: WorkerProcess | None = None
        self._blocked: str | None = None
        self._load_death: str | None = None
        self._places: dict[str, str] = {}  # where what a check looks at is written

    def open(self) -> Opened:
        """Find the backend. Raises OctavoError if it cannot even be found."""
        try:
            answer = self._start()
        except WorkerDeathError as death:
            raise BackendError(str(death)) from death
        gaps = answer["gaps"]
        return Opened(
            answer["distribution"],
            answer["device"],
            answer["reason"],
            GapTable(tuple(Gap(**gap) for gap in gaps["gaps"]), gaps["source"]),
        )

    def load(self) -> Mapping[str, Any] | None:
        """Its capabilities; None if it cannot be loaded, and then all but the contract is blocked.

        Raises UsageError for an unknown attention backend.
        """
        try:
            answer = self._ask("while the backend was loaded", do="load")
        except WorkerDeathError as death:
            # Once is enough: most checks of the contract load it, and would hang for as long.
            self._load_death = str(death)
            answer = {"blocked": f"The backend cannot be loaded. {death}"}
        self._blocked = answer.get("blocked")
        return answer.get("capabilities")

    def cases_of(self, check: Check) -> list[ListedCase] | Result:
        """Every case of a check, or the Result that stands for them."""
        if needs_device(check) and self._blocked is not None:
            return Result(check.id, check.id, "blocked", self._blocked)
        try:
            answer = self._ask("while its cases were listed", do="plan", check=check.id)
        except WorkerDeathError as death:
            return Result(check.id, check.id, "failed", str(death), check.look)
        self._places[check.id] = answer["where"]
        if "result" in answer:
            return Result(**answer["result"])
        return [ListedCase(check, **case) for case in answer["cases"]]

    def run(self, case: ListedCase) -> Result:
        """Run one case; the death of the process is its failure."""
        check = case.check
        if case.unclaimed is not None:
            return Result(case.id, check.id, "unclaimed", case.unclaimed)
        if needs_device(check) and self._blocked is not None:
            return Result(case.id, check.id, "blocked", self._blocked)
        try:
            self._revive(check)
        except _CannotReviveError as error:
            self._blocked = str(error)
            return Result(case.id, check.id, "blocked", self._blocked)
        started_s = time.monotonic()
        try:
            answer = self._ask("in this case", do="run", check=check.id, case=case.id)
        except WorkerDeathError as death:
            where, seconds = self._places.get(check.id, ""), time.monotonic() - started_s
            return Result(case.id, check.id, "failed", str(death), check.look, where, seconds)
        return Result(**answer["result"])

    def close(self) -> None:
        """Let the process close the backend and leave."""
        if self._worker is not None:
            self._worker.end(_END_LIMIT_S)
            self._worker = None

    def kill(self) -> None:
        """End the process at once."""
        if self._worker is not None:
            self._worker.kill()
            self._worker = None

    def _revive(self, check: Check) -> None:
        """After a death, have the backend again before the next case is blamed for anything."""
        if self._worker is not None:
            return
        try:
            self._start()
            answer = (
                self._ask("while it was loaded again", do="load") if needs_device(check) else {}
            )
        except (WorkerDeathError, OctavoError) as error:
            raise _CannotReviveError(
                f"After an earlier case ended the process, there is no backend any more: {error}"
            ) from error
        if "blocked" in answer:
            raise _CannotReviveError(answer["blocked"])

    def _start(self) -> dict[str, Any]:
        if self._worker is None:
            self._worker = WorkerProcess(self._on_output)
        request = {**self._arguments, "load_death": self._load_death}
        return self._ask("while plugins were loaded", do="open", **request)

    def _ask(self, doing: str, **request: Any) -> dict[str, Any]:
        if self._worker is None:
            self._start()
        assert self._worker is not None
        try:
            if request["do"] == "run":
                return self._worker.ask(self._limit_s, doing, **request)
            limit_s = max(self._limit_s, _SETUP_LIMIT_S)
            with self._sign_of_life(doing, limit_s):
                return self._worker.ask(limit_s, doing, **request)
        except WorkerDeathError:
            self.kill()
            raise

    @contextmanager
    def _sign_of_life(self, doing: str, limit_s: float) -> Iterator[None]:
        text = f"No answer for {_SIGN_OF_LIFE_S:g} s {doing}; {limit_s:g} s are given.\n"
        timer = threading.Timer(_SIGN_OF_LIFE_S, self._on_output, [text])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


class _CannotReviveError(Exception):
    """The backend works no more, for a reason that is not the next case's."""
