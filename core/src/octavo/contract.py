"""Check a loaded backend against the contract: members, signatures, capabilities."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from octavo.backend import Backend, Capabilities
from octavo.errors import BackendError
from octavo.kv import KV_DTYPES, KVSpec
from octavo.ops.names import OP_NAMES
from octavo.ops.protocol import Ops

__all__ = ["ContractFault", "check_backend", "check_signature", "contract_faults"]

_METHODS = tuple(
    name
    for name, member in vars(Backend).items()
    if inspect.isfunction(member) and not name.startswith("_")
)
_COMPUTE_DTYPES = frozenset({"float64", "float32", "float16", "bfloat16"})
_FLAGS = (
    "sliding_window",
    "soft_cap",
    "sinks",
    "asynchronous",
    "batch_invariant",
    "host_swap",
    "separate_sampling",
    "rehearsed",
    "reads_weights",
)
_BUCKETS = ("token_buckets", "seq_buckets", "decode_buckets")
_TEXTS = ("dtypes", "kv_dtypes", "quantization", "collectives")


@dataclass(frozen=True)
class ContractFault:
    """Something that a loaded backend lacks, or has otherwise than the contract says."""

    kind: Literal["member", "signature", "capability"]
    member: str
    """Of the backend, of its op set, or of its capabilities."""
    message: str


def contract_faults(backend: Any, name: str) -> Iterator[ContractFault]:
    """Every fault that can be seen without running anything: methods, capabilities, ops."""
    for method in _METHODS:
        yield from _member_faults(backend, method, Backend, f"backend {name!r}")
    caps, missing = _read(backend, "caps", name)
    yield from missing or _caps_faults(caps, name)
    ops, missing = _read(backend, "ops", name)
    yield from missing
    for op in () if missing else OP_NAMES:
        yield from _member_faults(ops, op, Ops, f"the op set of backend {name!r}")


def check_backend(backend: Any, name: str) -> None:
    """Raise BackendError naming the first member of ``backend`` that breaks the contract."""
    for fault in contract_faults(backend, name):
        raise BackendError(fault.message)


def check_signature(function: Callable[..., Any], protocol: type, member: str, owner: str) -> None:
    """Raise BackendError unless ``function`` takes exactly the parameters of the contract."""
    fault = _signature_fault(function, protocol, member, owner)
    if fault is not None:
        raise BackendError(fault)


def _signature_fault(
    function: Callable[..., Any], protocol: type, member: str, owner: str
) -> str | None:
    expected = _expected_parameters(protocol, member)
    try:
        found = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        return f"{member} of {owner} has no readable signature: {error}."
    if list(map(_identity, found)) == list(map(_identity, expected)):
        return None
    return (
        f"{member} of {owner} has the signature {_render(member, found)}; "
        f"the contract is {_render(member, expected)}."
    )


def _member_faults(
    owner_object: Any, member: str, protocol: type, owner: str
) -> Iterator[ContractFault]:
    function = getattr(owner_object, member, None)
    if not callable(function):
        problem = "lacks" if function is None else f"has, in place of a method, {function!r} for"
        expected = _render(member, _expected_parameters(protocol, member))
        yield ContractFault("member", member, f"{owner} {problem} {expected}.")
        return
    fault = _signature_fault(function, protocol, member, owner)
    if fault is not None:
        yield ContractFault("signature", member, fault)


def _expected_parameters(protocol: type, member: str) -> list[inspect.Parameter]:
    return list(inspect.signature(getattr(protocol, member)).parameters.values())[1:]  # no self


def _read(backend: Any, member: str, name: str) -> tuple[Any, list[ContractFault]]:
    """A property's value, or what is wrong with it."""
    try:
        return getattr(backend, member), []
    except AttributeError as error:
        message = f"backend {name!r} lacks the property {member}: {error}."
        return None, [ContractFault("member", member, message)]


def _identity(parameter: inspect.Parameter) -> tuple[str, Any, Any]:
    return (parameter.name, parameter.kind, parameter.default)


def _render(member: str, parameters: list[inspect.Parameter]) -> str:
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    return f"{member}{inspect.Signature(bare)}"


def _caps_faults(caps: Any, name: str) -> Iterator[ContractFault]:
    """Capabilities are a closed set: core asks for these fields and no others."""
    if type(caps) is not Capabilities:
        message = (
            f"caps of backend {name!r} is of type {type(caps).__name__}; "
            "expected octavo.api.Capabilities itself."
        )
        yield ContractFault("capability", "caps", message)
        return
    for field, is_good, expectation in _caps_checks(caps):
        if not is_good:
            message = (
                f"caps.{field} of backend {name!r} is {getattr(caps, field)!r}; "
                f"expected {expectation}."
            )
            yield ContractFault("capability", field, message)


def _caps_checks(caps: Capabilities) -> list[tuple[str, bool, str]]:
    """(field, whether its value is good, what a good one is)."""
    checks = [
        (field, _is_tuple_of(getattr(caps, field), str), "a tuple of strings") for field in _TEXTS
    ]
    checks += [(field, type(getattr(caps, field)) is bool, "True or False") for field in _FLAGS]
    checks += [
        (field, _is_ascending(getattr(caps, field)), "an ascending tuple of positive integers")
        for field in _BUCKETS
    ]
    known_dtypes, known_kv_dtypes = ", ".join(sorted(_COMPUTE_DTYPES)), ", ".join(KV_DTYPES)
    return [
        *checks,
        ("dtypes", _is_subset(caps.dtypes), f"at least one of {known_dtypes}"),
        ("kv_dtypes", _are_kv_dtypes(caps.kv_dtypes), f"at least one of {known_kv_dtypes}"),
        ("block_sizes", _are_positive(caps.block_sizes), "at least one positive integer"),
        ("max_head_dim", _are_positive((caps.max_head_dim,)), "a positive integer"),
        ("int8_scale_bytes", _is_size(caps.int8_scale_bytes), "a number of bytes"),
    ]


def _is_tuple_of(value: Any, item_type: type) -> bool:
    return isinstance(value, tuple) and all(type(item) is item_type for item in value)


def _are_positive(value: Any) -> bool:
    return bool(value) and _is_tuple_of(value, int) and all(item > 0 for item in value)


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_ascending(value: Any) -> bool:
    return value == () or (_are_positive(value) and list(value) == sorted(set(value)))


def _is_subset(dtypes: Any) -> bool:
    return bool(dtypes) and isinstance(dtypes, tuple) and _COMPUTE_DTYPES.issuperset(dtypes)


def _are_kv_dtypes(dtypes: Any) -> bool:
    try:
        return all(KVSpec("full", 1, 1, dtype).bytes_per_token for dtype in dtypes) and bool(dtypes)
    except (KeyError, TypeError):
        return False
