"""Faults in a step: a passing one costs nobody a token, a lasting one costs one request its end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from octavo.testing.check import Case, Check, CheckFailure
from octavo.testing.faulty import FaultKind, InjectedFault
from octavo.testing.faulty_engine import (
    FORKED,
    LATER,
    MARKED,
    MARKED_TOKEN,
    REQUESTS,
    FaultyEngine,
    expect_undisturbed,
)

if TYPE_CHECKING:
    from octavo.outputs import RequestOutput
    from octavo.testing.subject import Subject

__all__ = ["CHECKS"]

_KINDS: tuple[FaultKind, ...] = ("raise", "out_of_memory")
# (member, call): in the middle of a prompt, or of decodes.
_PASSING = (("put", 30), ("get", 4), ("plan", 2), ("step", 3))
_LASTING = ("put", "get", "plan", "step")
_LOOK = "backend.compile, backend.make_kv, backend.copy_blocks"


def _passing_cases(subject: Subject) -> Iterable[Case]:
    # Who has seen every shape of a step before it serves compiles none in one.
    compiles = not (subject.caps.rehearsed and subject.caps.token_buckets)
    for kind in _KINDS:
        faults = tuple(InjectedFault(member, kind, call) for member, call in _PASSING)
        yield Case(kind, faults, quick=kind == "raise")
        if compiles:
            yield Case(f"{kind} while compiled", (InjectedFault("model", kind),))
        copying = InjectedFault("copy_blocks", kind), InjectedFault("step", kind, 1)
        yield Case(f"{kind} with forks", copying, quick=False)


def _check_passing(subject: Subject, faults: tuple[InjectedFault, ...]) -> None:
    """One failed step at a time, after which all is computed again from new caches."""
    requests = REQUESTS
    if any(fault.member == "copy_blocks" for fault in faults):
        requests = {**REQUESTS, **FORKED}
    with FaultyEngine.open(subject) as faulty:
        for fault in faults:
            faulty.arm(fault)
            finished = faulty.serve(requests)
            faulty.expect_struck()
            after = (
                f"After one failed step ({_told(fault)}), when all was computed again in new caches"
            )
            expect_undisturbed(subject, finished.outputs, after, _LOOK)
        faulty.arm()
        expect_undisturbed(subject, faulty.serve(LATER).outputs, "After failed steps", _LOOK)


def _lasting_cases(_subject: Subject) -> Iterable[Case]:
    for kind in _KINDS:
        yield Case(
            kind,
            tuple(
                InjectedFault(member, kind, times=None, token_id=MARKED_TOKEN)
                for member in _LASTING
            ),
            quick=kind == "raise",
        )


def _check_lasting(subject: Subject, faults: tuple[InjectedFault, ...]) -> None:
    """Each step of one request fails, whoever is with it."""
    with FaultyEngine.open(subject) as faulty:
        for fault in faults:
            faulty.arm(fault)
            finished = faulty.serve({**MARKED, **REQUESTS})
            after = (
                f"While each step of another request failed ({_told(fault)}, caught each time, and "
                "new caches made)"
            )
            if faulty.engine.failure is not None:
                raise CheckFailure(f"{after}, the engine had to stop: {faulty.engine.failure}")
            expect_undisturbed(subject, finished.outputs, after, _LOOK)
            _expect_error(finished.outputs["marked"], "fault injected", after, _LOOK)
            expect_undisturbed(subject, faulty.serve(LATER).outputs, after, _LOOK)


def _told(fault: InjectedFault) -> str:
    return f"{fault.member} raised {'MemoryError' if fault.kind == 'out_of_memory' else 'an error'}"


def _check_nan(subject: Subject, _value: None) -> None:
    """One token's embedding is NaN, and so is all that its request computes and stores."""
    fault = InjectedFault("put", "nan", token_id=MARKED_TOKEN)
    look = "ops.sample, ops.paged_attention, backend.compile"
    after = "While another request computed NaN (its prompt holds a token whose embedding is NaN)"
    with FaultyEngine.open(subject, fault) as faulty:
        finished = faulty.serve({**MARKED, **REQUESTS})
        _expect_error(finished.outputs["marked"], "hold NaN", after, look)
        expect_undisturbed(subject, finished.outputs, after, look)
        after = "After a request had computed NaN, whose blocks are used again"
        expect_undisturbed(subject, faulty.serve(REQUESTS).outputs, after, look)


def _expect_error(output: RequestOutput, words: str, after: str, look: str) -> None:
    if output.error is None:
        raise CheckFailure(
            f"{after}, that request should have ended with an error; it answered "
            f"{output.outputs[0].token_ids}.",
            look=look,
        )
    if words not in output.error:
        raise CheckFailure(
            f"{after}, that request ended with another error: {output.error}", look=look
        )


CHECKS: tuple[Check, ...] = (
    Check(
        "faults",
        "passing",
        "after a step that failed once, everybody gets the tokens of an undisturbed run",
        "backend.compile, backend.make_kv",
        _check_passing,
        _passing_cases,
    ),
    Check(
        "faults",
        "lasting",
        "a request whose steps always fail ends with the error, and nobody else",
        "backend.make_kv, backend.compile",
        _check_lasting,
        _lasting_cases,
    ),
    Check(
        "faults",
        "nan",
        "a request that computes NaN ends with an error, and nobody else sees the NaN",
        "ops.sample, ops.paged_attention",
        _check_nan,
    ),
)
