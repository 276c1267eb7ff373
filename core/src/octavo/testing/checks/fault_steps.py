"""Faults in a step: a passing one costs nobody a token, a lasting one costs one request its end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from octavo.testing.check import Case, Check, CheckFailure
from octavo.testing.faulty import InjectedFault
from octavo.testing.faulty_engine import (
    LATER,
    MARKED,
    MARKED_TOKEN,
    FaultyEngine,
    chosen_requests,
    expect_undisturbed,
)

if TYPE_CHECKING:
    from octavo.outputs import RequestOutput
    from octavo.testing.subject import Subject

__all__ = ["CHECKS"]

_ERRORS = {"raise": "raised", "out_of_memory": "raised MemoryError"}
# (member, call): in the middle of a prompt, of a fork, or of decodes; "model" counts from the start
# because a backend that traces it calls it a few times only.
_PASSING = (("put", 30), ("get", 4), ("plan", 2), ("copy_blocks", 0), ("step", 3), ("model", 0))
_LASTING = ("plan", "put", "get", "step", "model")
_QUICK = (("put", "raise"), ("model", "out_of_memory"), ("copy_blocks", "raise"))


def _passing_cases(_subject: Subject) -> Iterable[Case]:
    for member, call in _PASSING:
        for kind in _ERRORS:
            fault = InjectedFault(member, kind, call)  # type: ignore[arg-type]
            yield Case(f"{member} {kind}", fault, quick=(member, kind) in _QUICK)


def _check_passing(subject: Subject, fault: InjectedFault) -> None:
    """One failed step, then all is computed again from new caches."""
    with FaultyEngine.open(subject) as faulty:
        faulty.backend.arm(fault)
        finished = faulty.serve(chosen_requests(subject))
        if fault.member != "model":  # which a backend that traces may never call again
            faulty.expect_struck()
        after = (
            f"After one failed step ({fault.member} {_ERRORS[fault.kind]}), when all was computed "
            "again in new caches"
        )
        look = "backend.compile, backend.make_kv, backend.copy_blocks"
        expect_undisturbed(subject, finished.outputs, after, look)
        faulty.backend.arm()
        expect_undisturbed(subject, faulty.serve(LATER).outputs, after, look)


def _lasting_cases(_subject: Subject) -> Iterable[Case]:
    for member in _LASTING:
        for kind in _ERRORS:
            fault = InjectedFault(member, kind, times=None, token_id=MARKED_TOKEN)  # type: ignore[arg-type]
            yield Case(f"{member} {kind}", fault, quick=(member, kind) == ("step", "raise"))


def _check_lasting(subject: Subject, fault: InjectedFault) -> None:
    """Each step of one request fails, whoever is with it."""
    with FaultyEngine.open(subject) as faulty:
        faulty.backend.arm(fault)
        finished = faulty.serve({**MARKED, **chosen_requests(subject)})
        after = (
            f"While each step of another request failed ({fault.member} {_ERRORS[fault.kind]}, "
            "caught each time, and new caches made)"
        )
        look = "backend.make_kv, backend.compile"
        if faulty.engine.failure is not None:
            raise CheckFailure(f"{after}, the engine had to stop: {faulty.engine.failure}")
        expect_undisturbed(subject, finished.outputs, after, look)
        if fault.member != "model" or faulty.backend.num_struck:
            faulty.expect_struck()
            _expect_error(finished.outputs["marked"], "fault injected", after, look)
        expect_undisturbed(subject, faulty.serve(LATER).outputs, after, look)


def _check_nan(subject: Subject, _value: None) -> None:
    """One token's embedding is NaN, and so is all that its request computes and stores."""
    fault = InjectedFault("put", "nan", token_id=MARKED_TOKEN)
    look = "ops.sample, ops.paged_attention, backend.compile"
    after = "While another request computed NaN (its prompt holds a token whose embedding is NaN)"
    with FaultyEngine.open(subject, fault) as faulty:
        finished = faulty.serve({**MARKED, **chosen_requests(subject)})
        _expect_error(finished.outputs["marked"], "hold NaN", after, look)
        expect_undisturbed(subject, finished.outputs, after, look)
        after = "After a request had computed NaN, whose blocks are used again"
        expect_undisturbed(subject, faulty.serve(chosen_requests(subject)).outputs, after, look)


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
