"""Check a loaded backend against the contract: members, signatures, capabilities."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from octavo.backend import Backend, Capabilities
from octavo.errors import BackendError
from octavo.kv import KVSpec
from octavo.ops.names import OP_NAMES
from octavo.ops.protocol import Ops

__all__ = ["check_backend", "check_signature"]

_METHODS = tuple(
    name
    for name, member in vars(Backend).items()
    if inspect.isfunction(member) and not name.startswith("_")
)
_COMPUTE_DTYPES = frozenset({"float64", "float32", "float16", "bfloat16"})
_FLAGS = ("sliding_window", "soft_cap", "sinks", "asynchronous", "batch_invariant", "host_swap")
_BUCKETS = ("token_buckets", "seq_buckets")
_TEXTS = ("dtypes", "kv_dtypes", "quantization", "collectives")


def check_backend(backend: Any, name: str) -> None:
    """Raise BackendError naming the first member of ``backend`` that breaks the contract."""
    for method in _METHODS:
        _check_member(backend, method, Backend, f"backend {name!r}")
    _check_caps(_read(backend, "caps", name), name)
    ops = _read(backend, "ops", name)
    for op in OP_NAMES:
        _check_member(ops, op, Ops, f"the op set of backend {name!r}")


def check_signature(function: Callable[..., Any], protocol: type, member: str, owner: str) -> None:
    """Raise BackendError unless ``function`` takes exactly the parameters of the contract."""
    expected = list(inspect.signature(getattr(protocol, member)).parameters.values())[1:]  # no self
    try:
        found = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise BackendError(f"{member} of {owner} has no readable signature: {error}.") from error
    if list(map(_identity, found)) != list(map(_identity, expected)):
        raise BackendError(
            f"{member} of {owner} has the signature {_render(member, found)}; "
            f"the contract is {_render(member, expected)}."
        )


def _check_member(owner_object: Any, member: str, protocol: type, owner: str) -> None:
    function = getattr(owner_object, member, None)
    if not callable(function):
        expected = list(inspect.signature(getattr(protocol, member)).parameters.values())[1:]
        problem = "lacks" if function is None else f"has, in place of a method, {function!r} for"
        raise BackendError(f"{owner} {problem} {_render(member, expected)}.")
    check_signature(function, protocol, member, owner)


def _read(backend: Any, member: str, name: str) -> Any:
    try:
        return getattr(backend, member)
    except AttributeError as error:
        raise BackendError(f"backend {name!r} lacks the property {member}: {error}.") from error


def _identity(parameter: inspect.Parameter) -> tuple[str, Any, Any]:
    return (parameter.name, parameter.kind, parameter.default)


def _render(member: str, parameters: list[inspect.Parameter]) -> str:
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    return f"{member}{inspect.Signature(bare)}"


def _check_caps(caps: Any, name: str) -> None:
    """Capabilities are a closed set: core asks for these fields and no others."""
    if type(caps) is not Capabilities:
        raise BackendError(
            f"caps of backend {name!r} is of type {type(caps).__name__}; "
            "expected octavo.api.Capabilities itself."
        )
    for field, is_good, expectation in _caps_checks(caps):
        if not is_good:
            raise BackendError(
                f"caps.{field} of backend {name!r} is {getattr(caps, field)!r}; "
                f"expected {expectation}."
            )


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
    known_dtypes = ", ".join(sorted(_COMPUTE_DTYPES))
    return [
        *checks,
        ("dtypes", _is_subset(caps.dtypes), f"at least one of {known_dtypes}"),
        ("kv_dtypes", _are_kv_dtypes(caps.kv_dtypes), "at least one dtype known to octavo.kv"),
        ("block_sizes", _are_positive(caps.block_sizes), "at least one positive integer"),
        ("max_head_dim", _are_positive((caps.max_head_dim,)), "a positive integer"),
    ]


def _is_tuple_of(value: Any, item_type: type) -> bool:
    return isinstance(value, tuple) and all(type(item) is item_type for item in value)


def _are_positive(value: Any) -> bool:
    return bool(value) and _is_tuple_of(value, int) and all(item > 0 for item in value)


def _is_ascending(value: Any) -> bool:
    return value == () or (_are_positive(value) and list(value) == sorted(set(value)))


def _is_subset(dtypes: Any) -> bool:
    return bool(dtypes) and isinstance(dtypes, tuple) and _COMPUTE_DTYPES.issuperset(dtypes)


def _are_kv_dtypes(dtypes: Any) -> bool:
    try:
        return all(KVSpec("full", 1, 1, dtype).bytes_per_token for dtype in dtypes) and bool(dtypes)
    except (KeyError, TypeError):
        return False
