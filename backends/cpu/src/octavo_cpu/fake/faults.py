"""The small language in which a user says what shall fail: ``step:raise@5``."""

from __future__ import annotations

import re

from octavo.api import UsageError
from octavo.testing import InjectedFault

__all__ = ["parse_faults"]

_FAULT = re.compile(
    r"(?P<member>\w+):(?P<kind>\w+)@(?P<call>[1-9]\d{0,8})(?P<onwards>\+?)"
    r"(?::(?P<seconds>\d{1,5}(?:\.\d{1,6})?)s)?",
    re.ASCII,
)
_MEMBERS = (
    "step",
    "get",
    "put",
    "put_linear",
    "make_kv",
    "copy_blocks",
    "plan",
    "compile",
    "memory",
    "close",
)
_KINDS = {"raise": "raise", "oom": "out_of_memory", "hang": "hang", "nan": "nan"}
_GRAMMAR = (
    "expected MEMBER:KIND@CALL, for example step:raise@5 (the fifth step raises), step:hang@7:2s "
    "(the seventh takes two seconds more), step:nan@3, make_kv:oom@1, get:raise@10+ (every call "
    "from the tenth on)"
)


def parse_faults(value: object) -> tuple[InjectedFault, ...]:
    """Faults from the option ``faults``: a text, or a list of texts. Raises UsageError."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise UsageError(f"Option faults of backend 'fake' is {value!r}; {_GRAMMAR}.")
    return tuple(_parse(text.strip()) for each in texts for text in each.split(",") if text.strip())


def _parse(text: str) -> InjectedFault:
    match = _FAULT.fullmatch(text)
    if match is None:
        raise _refusal(text, _GRAMMAR)
    member, kind, seconds = match["member"], match["kind"], match["seconds"]
    if member not in _MEMBERS:
        raise _refusal(text, f"the members are {', '.join(_MEMBERS)}")
    if kind not in _KINDS:
        raise _refusal(text, f"the kinds are {', '.join(_KINDS)}")
    if kind == "nan" and member != "step":
        raise _refusal(text, "nan is a fault of step: its logits hold NaN")
    if (kind == "hang") != (seconds is not None):
        raise _refusal(text, "a hang, and nothing else, says how long it lasts: step:hang@7:2s")
    return InjectedFault(
        member,
        _KINDS[kind],  # type: ignore[arg-type]  # a literal's values
        call=int(match["call"]) - 1,
        times=None if match["onwards"] else 1,
        seconds=None if seconds is None else float(seconds),
    )


def _refusal(text: str, expectation: str) -> UsageError:
    return UsageError(f"Fault {text!r} of backend 'fake' cannot be read: {expectation}.")
