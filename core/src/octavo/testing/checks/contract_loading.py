"""Checks of loading and closing: twice in a process, on absent devices, with bad options."""

from __future__ import annotations

import re
from collections.abc import Iterable
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from octavo.contract import ContractFault, contract_faults
from octavo.errors import DeviceError, UsageError
from octavo.isolation import describe
from octavo.testing.check import Case, Check, CheckFailure, one_case
from octavo.testing.checks.raw_backend import close_quietly, load_raw, opened, opened_sound

if TYPE_CHECKING:
    from octavo.testing.subject import Subject

__all__ = ["CHECKS"]

_UNKNOWN_OPTION = "no_such_option_of_any_backend"
_ABSENT_INDEX = 99_999


def _check_loads(subject: Subject, _value: None) -> None:
    """Two backends live in one process, and both work."""
    backends: list[Any] = []
    try:
        backends.append(_loaded(subject, "first"))
        backends.append(_loaded(subject, "second"))
        if backends[0] is backends[1]:
            raise CheckFailure(
                "load returned the same object twice. Closing one would close the other: return a "
                "new object each time, and let them share what they must."
            )
        first, second = (getattr(backend, "caps", None) for backend in backends)
        if first != second:
            raise CheckFailure(
                f"Loaded twice on one device, the backend claims {first}, and then {second}. What "
                "it can do is a property of the device: claim what always holds.",
                look="backend.caps",
            )
        for nth, backend in zip(("first", "second"), backends, strict=True):
            _use(backend, f"Of two loaded backends, the {nth}")
    finally:
        for backend in backends:
            close_quietly(backend)


def _loaded(subject: Subject, nth: str) -> Any:
    place = f"{subject.resolution.device.kind}:{subject.resolution.device.index}"
    try:
        backend = load_raw(subject)
    except Exception as error:
        raise CheckFailure(
            f"The {nth} load on {place} in this process raised {describe(error)}."
        ) from error
    if backend is None:
        raise CheckFailure(f"The {nth} load on {place} returned None; expected a Backend.")
    return backend


def _use(backend: Any, subject_of_sentence: str) -> None:
    """Move an array there and back. Raises CheckFailure; says nothing if a member is missing."""
    if any(fault.member in ("put", "get") for fault in contract_faults(backend, "")):
        return  # contract.members and contract.signatures say what is wrong
    sent = np.arange(6, dtype=np.int32).reshape(2, 3)
    try:
        got = backend.get(backend.put(sent))
    except Exception as error:
        raise CheckFailure(
            f"{subject_of_sentence} cannot be used: putting and getting an array raised "
            f"{describe(error)}."
        ) from error
    if not np.array_equal(got, sent):
        raise CheckFailure(
            f"{subject_of_sentence} cannot be used: of the array {sent.tolist()}, get "
            f"returned {np.asarray(got).tolist()}."
        )


def _report_faults(subject: Subject, kind: str) -> None:
    """Fail with every fault of a kind, not only with the first, on which Octavo gives up."""
    with opened(subject) as backend:
        faults = [each for each in contract_faults(backend, subject.name) if each.kind == kind]
    if faults:
        raise CheckFailure("\n".join(each.message for each in faults), look=_members(faults))


def _members(faults: Iterable[ContractFault]) -> str:
    from octavo.ops.names import OP_NAMES

    return ", ".join(
        ("ops." if fault.member in OP_NAMES else "backend.") + fault.member for fault in faults
    )


def _check_members(subject: Subject, _value: None) -> None:
    _report_faults(subject, "member")


def _check_signatures(subject: Subject, _value: None) -> None:
    _report_faults(subject, "signature")


def _need_load(subject: Subject) -> None:
    """Raises Blocked if not even a load without fault works: then a refusal says nothing."""
    with opened(subject):
        pass


def _option_cases(subject: Subject) -> Iterable[Case]:
    yield Case("unknown", _check_unknown_option)
    yield Case("read-only", _check_options_are_kept)
    yield Case("wrong type", _check_option_types)
    if subject.policy.options.get(subject.name):
        yield Case("listed", _check_options_are_listed)


def _run_value(subject: Subject, value: Any) -> None:
    value(subject)


def _check_unknown_option(subject: Subject) -> None:
    _refusal_of_unknown_option(subject)


def _refusal_of_unknown_option(subject: Subject) -> str:
    """The message with which an option is refused that no backend has."""
    _need_load(subject)
    try:
        backend = load_raw(subject, options={_UNKNOWN_OPTION: 1})
    except UsageError as error:
        if _UNKNOWN_OPTION not in str(error):
            raise CheckFailure(
                f"The unknown option {_UNKNOWN_OPTION!r} is refused with {str(error)!r}, which "
                "does not name it."
            ) from error
        return str(error)
    except Exception as error:
        raise CheckFailure(
            f"The unknown option {_UNKNOWN_OPTION!r} makes load raise {describe(error)}; expected "
            "octavo.api.UsageError naming the option and those there are."
        ) from error
    close_quietly(backend)
    raise CheckFailure(
        f"load ignores the unknown option {_UNKNOWN_OPTION!r}. A misspelt option would go "
        "unnoticed: raise octavo.api.UsageError naming it and the options there are."
    )


def _check_options_are_kept(subject: Subject) -> None:
    """They may be the same mapping each time, such as that of plugins.toml."""
    _need_load(subject)
    own_options = subject.policy.options.get(subject.name, {})
    try:
        backend = subject.spec.load(subject.resolution.device.index, MappingProxyType(own_options))
    except Exception as error:
        raise CheckFailure(
            f"With options in a mapping that cannot be changed, load raises {describe(error)}. "
            "They belong to the caller: read them, or change a copy (dict(options))."
        ) from error
    close_quietly(backend)


def _check_option_types(subject: Subject) -> None:
    """Every word of the refusal that could be an option is tried with a value of no sensible type.

    The options that there are should be among the words; the others are unknown options.
    """
    message = _refusal_of_unknown_option(subject)
    words = set(re.findall(r"[A-Za-z_][A-Za-z0-9_-]*", message)) - {_UNKNOWN_OPTION}
    for word in sorted(words):
        try:
            backend = load_raw(subject, options={word: object()})
        except UsageError:
            continue
        except Exception as error:
            raise CheckFailure(
                f"The option {word!r} with an object() for its value makes load raise "
                f"{describe(error)}; expected octavo.api.UsageError that says what it takes."
            ) from error
        close_quietly(backend)
        raise CheckFailure(
            f"load takes the option {word!r} with an object() for its value. Check the type, and "
            "raise octavo.api.UsageError that says what it takes."
        )


def _check_options_are_listed(subject: Subject) -> None:
    message = _refusal_of_unknown_option(subject)
    missing = [name for name in subject.policy.options[subject.name] if name not in message]
    if missing:
        raise CheckFailure(
            f"An unknown option is refused with {message!r}, which does not name the options "
            f"{', '.join(missing)} that the backend has."
        )


def _device_cases(_subject: Subject) -> Iterable[Case]:
    yield Case("too high", _ABSENT_INDEX)
    yield Case("negative", -1)  # with a list of devices, Python would take the last


def _check_bad_device(subject: Subject, index: int) -> None:
    _need_load(subject)
    place = f"{subject.resolution.device.kind}:{index}"
    try:
        backend = load_raw(subject, index=index)
    except DeviceError as error:
        if str(index) in str(error):
            return
        raise CheckFailure(
            f"The device {place} is refused with {str(error)!r}, which does not name the index."
        ) from error
    except Exception as error:
        raise CheckFailure(
            f"Loading on the device {place}, which is not there, raised {describe(error)}; "
            "expected octavo.api.DeviceError naming the index and the devices there are."
        ) from error
    close_quietly(backend)
    raise CheckFailure(
        f"load accepts the device {place}, which is not there; expected octavo.api.DeviceError."
    )


def _close_cases(_subject: Subject) -> Iterable[Case]:
    yield Case("twice", _check_close_twice)
    yield Case("others stay", _check_others_stay)


def _check_close_twice(subject: Subject) -> None:
    with opened_sound(subject) as backend:
        for nth in ("first", "second"):
            try:
                backend.close()
            except Exception as error:
                raise CheckFailure(
                    f"The {nth} close() raised {describe(error)}. Closing is done in the cleaning "
                    "up after an error too, and twice must be harmless."
                ) from error


def _check_others_stay(subject: Subject) -> None:
    """Closing the one that was loaded first, then the one loaded last, spares a third."""
    with (
        opened_sound(subject) as first,
        opened_sound(subject) as kept,
        opened_sound(subject) as last,
    ):
        for nth, closed in (("first", first), ("last", last)):
            close_quietly(closed)
            _use(kept, f"After the backend that was loaded {nth} has been closed, another")


CHECKS: tuple[Check, ...] = (
    Check(
        "contract",
        "loads",
        "load returns a backend that works, as often as it is called",
        "spec.load",
        _check_loads,
        one_case,
    ),
    Check(
        "contract",
        "members",
        "every method, property and op of the contract is there",
        "the class that spec.load returns",
        _check_members,
        one_case,
    ),
    Check(
        "contract",
        "signatures",
        "every override takes exactly the parameters of the contract",
        "the class that spec.load returns",
        _check_signatures,
        one_case,
    ),
    Check(
        "contract",
        "options",
        "no option is ignored: unknown ones and wrong types are refused",
        "spec.load, where it reads the options",
        _run_value,
        _option_cases,
    ),
    Check(
        "contract",
        "bad_device",
        "a device that is not there is refused",
        "spec.load, where it reads the index",
        _check_bad_device,
        _device_cases,
    ),
    Check(
        "contract",
        "close",
        "closing is harmless to whoever closes twice, and to the other backends of the process",
        "backend.close",
        _run_value,
        _close_cases,
    ),
)
