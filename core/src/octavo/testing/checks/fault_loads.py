"""Faults while a model is loaded, and of what comes after: closing, and loading once more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from octavo.errors import BackendError, CapacityError, OctavoError
from octavo.testing.check import Case, Check, CheckFailure
from octavo.testing.faulty import FaultKind, InjectedFault
from octavo.testing.faulty_engine import REQUESTS, FaultyEngine

if TYPE_CHECKING:
    from octavo.testing.subject import Subject

__all__ = ["CHECKS"]

_ERRORS: dict[FaultKind, type[OctavoError]] = {
    "raise": BackendError,
    "out_of_memory": CapacityError,
}
# The call that fails: in the midst of the weights, or between two layers' caches.
_MEMBERS = {"memory": 0, "put": 1, "put_linear": 2, "make_kv": 1, "compile": 0}


def _load_cases(_subject: Subject) -> Iterable[Case]:
    for kind in _ERRORS:
        faults = tuple(InjectedFault(member, kind, call) for member, call in _MEMBERS.items())
        yield Case(kind, faults, quick=kind == "raise")
    yield Case("make_kv again", None)


def _check_load(subject: Subject, faults: tuple[InjectedFault, ...] | None) -> None:
    """Loading breaks off with one clear error; it can be tried again."""
    if faults is None:
        _break_off_serving(subject)
        after = "After an engine that could not make its caches a second time, and was closed"
        _expect_load(subject, after)
    for fault in faults or ():
        _break_off_loading(subject, fault)
        _expect_load(subject, f"After a load that broke off in {fault.member} and was closed")


def _expect_load(subject: Subject, after: str) -> None:
    try:
        with FaultyEngine.open(subject):
            return
    except OctavoError as error:
        raise CheckFailure(
            f"{after}, the model cannot be loaded: {error}", look="backend.close, spec.load"
        ) from error


def _break_off_loading(subject: Subject, fault: InjectedFault) -> None:
    options: dict[str, Any] = {}
    if fault.member == "memory":  # asked only when the cache has no size of its own
        options = {"kv_cache_memory_bytes": None}
    try:
        with FaultyEngine.open(subject, fault, **options):
            pass
    except _ERRORS[fault.kind] as error:
        if fault.member not in str(error) or subject.name not in str(error):
            raise CheckFailure(
                f"{fault.member} of backend {subject.name!r} failed while a model was loaded; the "
                f"error does not name both: {error}"
            ) from error
        return
    raise CheckFailure(f"{fault.member} failed while a model was loaded, and nobody was told.")


def _break_off_serving(subject: Subject) -> None:
    """A step fails, and then the caches cannot be made again."""
    with FaultyEngine.open(subject) as faulty:
        faulty.add(REQUESTS)
        faulty.engine.step()
        faulty.arm(InjectedFault("step"), InjectedFault("make_kv", "out_of_memory", 1))
        silent = [
            request_id
            for request_id, output in faulty.finish().outputs.items()
            if "make_kv" not in (output.error or "")
        ]
        if silent:
            raise CheckFailure(
                f"The caches could not be made again, and the requests {silent} were not told."
            )


def _check_close(subject: Subject, _value: None) -> None:
    """``close`` returns, also after steps that failed inside of the backend and outside."""
    with FaultyEngine.open(subject) as faulty:
        faulty.arm(InjectedFault("model"), InjectedFault("step", call=2))
        faulty.serve(REQUESTS)
    if faulty.backend.close_error is not None:
        raise CheckFailure(
            f"After steps that failed and were computed again, close {faulty.backend.close_error}."
        )


CHECKS: tuple[Check, ...] = (
    Check(
        "faults",
        "load",
        "a load that breaks off says why, gives everything back, and can be tried again",
        "backend.close, backend.put, backend.put_linear, backend.make_kv, backend.compile",
        _check_load,
        _load_cases,
    ),
    Check(
        "faults",
        "close",
        "a backend whose steps have failed can be closed",
        "backend.close",
        _check_close,
    ),
)
