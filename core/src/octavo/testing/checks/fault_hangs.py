"""A step that hangs: everybody is told, the engine stops, and the process goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from octavo.errors import BackendError
from octavo.testing.check import Check, CheckFailure
from octavo.testing.faulty import InjectedFault
from octavo.testing.faulty_engine import (
    MARKED,
    REQUESTS,
    FaultyEngine,
    expect_undisturbed,
)

if TYPE_CHECKING:
    from octavo.testing.subject import Subject

__all__ = ["CHECKS"]

_LIMIT_OF_COMPILING_S = 600.0
_SHORTEST_LIMIT_S = 0.05
_TIMES_THE_LONGEST = 10  # a busy machine must not look like a hang


def _check_hang(subject: Subject, _value: None) -> None:
    """Steps with a time limit run in a thread of their own; one of them does not come back."""
    with FaultyEngine.open(subject, step_timeout_s=_LIMIT_OF_COMPILING_S) as faulty:
        after = "With steps in another thread than the one that loaded the backend"
        look = "spec.load, backend.compile"
        expect_undisturbed(subject, faulty.serve(REQUESTS).outputs, after, look)
        longest_s = faulty.serve(REQUESTS).longest_step_s
        faulty.engine.step_timeout_s = max(_SHORTEST_LIMIT_S, _TIMES_THE_LONGEST * longest_s)
        faulty.arm(InjectedFault("step", "hang", call=1))
        outputs = faulty.serve(REQUESTS).outputs
        silent = [
            request_id
            for request_id, output in outputs.items()
            if "step_timeout_s" not in (output.error or "")
        ]
        if silent:
            raise CheckFailure(f"A step hung, and the requests {silent} were not told.", look=look)
        try:
            faulty.add(MARKED)
        except BackendError:
            return
        raise CheckFailure("A step hung, and the engine still takes requests.", look=look)


CHECKS: tuple[Check, ...] = (
    Check(
        "faults",
        "hang",
        "steps run in any thread; one that hangs ends every request with the reason",
        "spec.load, backend.compile",
        _check_hang,
    ),
)
