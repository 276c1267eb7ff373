"""The process in which checks run: ``python -m octavo.testing.worker``, a request a line.

A backend may crash, exit or hang. Here that costs one case: the parent sees the end of this process
and starts another. Requests come in on standard input and answers leave on what was standard
output; both are taken away first, so that nothing a backend prints or reads can come between.
"""

from __future__ import annotations

import faulthandler
import functools
import importlib
import json
import logging
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from octavo.errors import DeviceError, OctavoError, UsageError
from octavo.testing.conform import Planned, Result, cases_of, run_case
from octavo.testing.locate import locate

if TYPE_CHECKING:
    from octavo.testing.check import Check
    from octavo.testing.subject import Subject

__all__ = ["main"]

Answer = dict[str, Any]


class Worker:
    """One subject, and the checks that it is asked to run."""

    def __init__(self) -> None:
        self._subject: Subject | None = None
        self._checks: dict[str, Check] = {}
        self._cases: dict[str, dict[str, Planned] | Result] = {}

    def answer(self, request: Mapping[str, Any]) -> Answer:
        """Do what a request asks; an error that is no finding is an answer too."""
        arguments = dict(request)
        actions: dict[str, Callable[..., Answer]] = {
            "open": self._open,
            "load": self._load,
            "plan": self._plan,
            "run": self._run,
        }
        try:
            return actions[arguments.pop("do")](**arguments)
        except OctavoError as error:
            return {"error": type(error).__name__, "message": str(error)}

    def close(self) -> None:
        """Release the backend."""
        if self._subject is not None:
            self._subject.close()

    def _open(
        self,
        backend: str,
        device: str,
        attention_backend: str | None,
        plugins_file: str | None,
        checks: str,
        load_death: str | None,
    ) -> Answer:
        from octavo.testing.gaps import read_gaps

        module, _, name = checks.partition(":")
        self._checks = {each.id: each for each in getattr(importlib.import_module(module), name)}
        subject = _open_subject(backend, device, attention_backend, plugins_file)
        if load_death is not None:
            subject = _refusing_load(subject, load_death)
        self._subject = subject
        gaps = read_gaps(subject.record, backend)
        return {
            "distribution": {
                "name": subject.record.distribution,
                "version": subject.record.version,
            },
            "device": asdict(subject.resolution.device),
            "reason": subject.resolution.reason,
            "gaps": {"source": gaps.source, "gaps": [asdict(gap) for gap in gaps.gaps]},
        }

    def _load(self) -> Answer:
        """Load the backend and bind its ops. UsageError for an unknown attention backend."""
        subject = self._opened
        try:
            caps = asdict(subject.caps)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a backend may raise anything
            return {"blocked": f"The backend cannot be loaded: {error}"}
        try:
            _ = subject.ops
        except UsageError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001
            return {"blocked": f"The ops of the backend cannot be bound: {error}"}
        return {"capabilities": caps}

    def _plan(self, check: str) -> Answer:
        cases = self._cases_of(check)
        where = locate(self._opened, self._checks[check].look)
        if isinstance(cases, Result):
            return {"result": asdict(cases), "where": where}
        rows = [
            {"id": each.id, "unclaimed": each.case.unclaimed, "quick": each.case.quick}
            for each in cases.values()
        ]
        return {"cases": rows, "where": where}

    def _run(self, check: str, case: str) -> Answer:
        cases = self._cases_of(check)
        if isinstance(cases, Result):
            return {"result": {**asdict(cases), "id": case}}
        result = run_case(self._opened, cases[case])
        measured = {name: float(value) for name, value in result.measured.items()}
        return {"result": {**asdict(result), "measured": measured}}

    def _cases_of(self, check: str) -> dict[str, Planned] | Result:
        if check not in self._cases:
            cases = cases_of(self._opened, self._checks[check])
            self._cases[check] = (
                cases if isinstance(cases, Result) else {each.id: each for each in cases}
            )
        return self._cases[check]

    @property
    def _opened(self) -> Subject:
        assert self._subject is not None, "the first request is 'open'"
        return self._subject


def _open_subject(
    backend: str, device: str, attention_backend: str | None, plugins_file: str | None
) -> Subject:
    """The installed backend. UsageError if there is none of that name, and nothing is broken."""
    from octavo.device_search import DeviceSearch
    from octavo.devices import resolve
    from octavo.plugins import load_plugins
    from octavo.policy import load_policy
    from octavo.testing.subject import Subject

    policy = load_policy(plugins_file)
    plugins = load_plugins(policy)
    try:
        DeviceSearch(policy, plugins, backend)
    except DeviceError as error:
        if plugins.broken:  # what they would have registered is not known
            raise
        raise UsageError(str(error)) from error
    return Subject(policy, plugins, resolve(device, backend, policy, plugins), attention_backend)


class LoadEndedError(Exception):
    """Loading the backend has ended an earlier process; the message says how."""


def _refusing_load(subject: Subject, death: str) -> Subject:
    """The subject with a ``load`` that says what became of its own, and does not try it again."""
    spec = subject.spec

    @functools.wraps(spec.load)
    def load(*_: object) -> NoReturn:
        raise LoadEndedError(death)

    resolution = replace(subject.resolution, spec=replace(spec, load=load))
    return replace(subject, resolution=resolution)


def main() -> None:
    """Serve requests until standard input ends. The argument is where to write crash reports."""
    answers = _take_standard_output()
    requests = _read_requests()
    # What the engine logs of the faults that checks inject is what they expect, and no news.
    logging.getLogger("octavo").addHandler(logging.NullHandler())
    with open(sys.argv[1], "w", encoding="utf-8") as crash_report:  # noqa: PTH123
        faulthandler.enable(crash_report)
        _serve(requests, answers, crash_report)
        faulthandler.disable()


def _serve(requests: queue.SimpleQueue[str | None], answers: TextIO, crash_report: TextIO) -> None:
    worker = Worker()
    while (line := requests.get()) is not None:
        request = json.loads(line)
        # Its thread needs no interpreter lock, so that native code which holds it is ended too.
        faulthandler.dump_traceback_later(request.pop("limit_s"), exit=True, file=crash_report)
        answer = worker.answer(request)
        faulthandler.cancel_dump_traceback_later()
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    try:
        worker.close()
    except Exception:  # noqa: BLE001 - all checks are over; it is shown and changes nothing
        traceback.print_exc()


def _take_standard_output() -> TextIO:
    """A private file for answers; whatever else writes to standard output reaches the error."""
    private = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return private


def _read_requests() -> queue.SimpleQueue[str | None]:
    """Requests as they come, and None at their end: the parent closed them, or died."""
    private = os.fdopen(os.dup(0), encoding="utf-8")
    with open(os.devnull) as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for line in private:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, name="octavo-conform-requests", daemon=True).start()
    return lines


if __name__ == "__main__":
    main()
