"""Checks that a backend leaves the process as it was: it belongs to the program and to others."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from octavo.isolation import describe
from octavo.testing.answers import generate, greedy
from octavo.testing.check import Blocked, Case, Check, CheckFailure
from octavo.testing.checks.raw_backend import opened_sound
from octavo.testing.process_state import Change, ProcessState
from octavo.testing.tiny_models import TINY_MODELS

if TYPE_CHECKING:
    from octavo.testing.subject import Subject

__all__ = ["CHECKS"]

_NUM_STEPS = 24
_MAX_SHOWN = 80  # characters of what was printed


def _cases(_subject: Subject) -> Iterable[Case]:
    yield Case("probing", ("Probing", _probe))
    yield Case("loading and closing", ("Loading and closing", _load_and_close))
    yield Case("serving", ("Serving a request", _serve))


def _probe(subject: Subject) -> None:
    subject.spec.probe()


def _load_and_close(subject: Subject) -> None:
    with opened_sound(subject):
        pass


def _serve(subject: Subject) -> None:
    with opened_sound(subject):
        pass  # else no engine can be made
    with subject.engine(TINY_MODELS["llama"].config) as loaded:
        generate(loaded, [[3, 141, 59]], greedy(2))
        before = _num_held()
        generate(loaded, [[3, 141, 59]], greedy(_NUM_STEPS))
        after = _num_held()
    for what, number in before.items():
        if after[what] >= number + _NUM_STEPS // 2:
            raise CheckFailure(
                f"In {_NUM_STEPS} steps the process came to hold {after[what]} {what}; before it "
                f"held {number}. A server runs for millions of steps.",
                look="backend.compile, backend.plan, backend.put, backend.get",
            )


def _num_held() -> dict[str, int]:
    held = {"threads": threading.active_count()}
    with contextlib.suppress(OSError):  # where the system has no such folder
        held["open files"] = len(list(Path("/dev/fd").iterdir()))
    return held


def _check(subject: Subject, value: tuple[str, Callable[[Subject], None]]) -> None:
    doing, act = value
    threads = set(threading.enumerate())
    with _standard_output() as written:
        state = ProcessState.now()
        try:
            act(subject)
        except (Blocked, CheckFailure):
            raise
        except Exception as error:
            raise Blocked(f"{doing} raises {describe(error)}, as other checks say.") from error
        finally:
            changes = state.restore()
        output = written()
    for fault in (_changed(changes), _printed(output), _left_running(threads)):
        if fault:
            raise CheckFailure(f"{doing} {fault}")


def _changed(changes: Sequence[Change]) -> str:
    if not changes:
        return ""
    each = (f"{change.name}: was {change.before}, is {change.after}" for change in changes)
    return (
        f"changes what belongs to the whole process. {'; '.join(each)}. Programs and other "
        "backends rely on it: do without, or put it back before you return."
    )


def _printed(output: str) -> str:
    if not output:
        return ""
    return (
        f"prints {output[:_MAX_SHOWN]!r} on standard output, which belongs to the program and is "
        "often read by another one. Use logging, or standard error."
    )


def _left_running(before: set[threading.Thread]) -> str:
    left = [
        thread.name
        for thread in set(threading.enumerate()) - before
        if not thread.daemon and thread.is_alive()
    ]
    if not left:
        return ""
    return (
        f"leaves the threads {', '.join(sorted(left))} running, and Python waits for them before "
        "it ends. End and join them in close(), or make them daemons."
    )


@contextlib.contextmanager
def _standard_output() -> Iterator[Callable[[], str]]:
    """A function that tells what has been written to it since, by Python or by native code."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as file:

        def written() -> str:
            file.flush()
            file.seek(0)
            return file.read()

        sys.stdout.flush()
        kept = os.dup(1)
        os.dup2(file.fileno(), 1)
        try:
            with contextlib.redirect_stdout(file):
                yield written
        finally:
            os.dup2(kept, 1)
            os.close(kept)


CHECKS: tuple[Check, ...] = (
    Check(
        "contract",
        "process",
        "whoever probes, loads, serves and closes leaves the process as it was",
        "spec.probe, spec.load, backend.compile, backend.close, and the modules they import",
        _check,
        _cases,
    ),
)
