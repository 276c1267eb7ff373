"""Bind each op to one implementation, once at load, and record who serves it and why.

The backend's own ops stand unless plugins.toml or ``--attention-backend`` prefers another
implementation. One that a plugin registers is taken whole: its ops share a cache layout.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from octavo.ops.names import OP_NAMES
from octavo.ops.selection import PORTABLE_MODULE, Choice, Selector, portable_base

if TYPE_CHECKING:
    from octavo.backend import Backend
    from octavo.devices import Resolution
    from octavo.ops.protocol import Ops
    from octavo.plugins import Plugins
    from octavo.policy import Policy

__all__ = ["OpBinding", "bind_ops"]


# A composite of the backend's own may bypass these; where one of them is replaced, the portable
# composite, which calls them through ``self``, has to take its place.
_LEAVES_OF_COMPOSITES = {
    "attend": ("write_kv", "paged_attention"),
    "rope_attend": ("rope", "write_kv", "paged_attention", "attend"),
    "mlp": ("linear", "silu_mul", "gelu_mul"),
    "add_rms_norm": ("rms_norm",),
}
_OF_OPS_ALONE = ("attend", "rope_attend")


@dataclass(frozen=True)
class OpBinding:
    """Who serves an op: the implementation, the distribution it comes from, and why it is it."""

    op: str
    implementation: str
    distribution: str
    reason: str


def bind_ops(
    backend: Backend,
    resolution: Resolution,
    policy: Policy,
    plugins: Plugins,
    *,
    model: Any = None,
    attention_backend: str | None = None,
) -> tuple[Ops, list[OpBinding]]:
    """The op set to run with, and one binding for each op in the protocol's order.

    ``backend`` is what ``resolution`` loaded; its own ``ops`` stay as they are. Without a model,
    implementations are not asked whether they support it.

    Raises UsageError if ``attention_backend`` cannot be had, or if two preferences disagree.
    """
    name, kind = resolution.spec.name, resolution.device.kind
    selector = Selector(backend, name, plugins.attention_of(name), model)
    selected = selector.select(policy.ops_for(name, kind), attention_backend)
    members, reasons = _replacements(backend.ops, selected)
    bound = _with_members(backend.ops, members) if members else backend.ops
    distributions = plugins.distributions_by_package()
    bindings = []
    for op in OP_NAMES:
        implementation, module = _implementer(backend.ops, op, members.get(op))
        reason = reasons.get(op) or _default_reason(module)
        distribution = _owner(module, distributions)
        choice = selected[op][0] if op in selected else None
        if choice is not None and choice.source == "plugin":
            implementation = choice.name
            distribution = plugins.distribution_of_attention(name, choice.name)
        bindings.append(OpBinding(op, implementation, distribution, reason))
    return bound, bindings


def _replacements(
    ops: Ops, selected: Mapping[str, tuple[Choice, str]]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Class members that take the place of the backend's own, and a reason for each op."""
    members: dict[str, Any] = {}
    reasons = {op: reason for op, (_, reason) in selected.items()}
    for op, (choice, _) in selected.items():
        if choice.source == "plugin":
            members[op] = staticmethod(choice.functions[op])
        elif choice.source == "portable":
            members[op] = _portable_member(ops, op)
    for composite, leaves in _LEAVES_OF_COMPOSITES.items():
        replaced = [leaf for leaf in leaves if leaf in members]
        can_replace = composite in _OF_OPS_ALONE or portable_base(ops) is not None
        if replaced and composite not in selected and can_replace:
            members[composite] = _portable_member(ops, composite)
            reasons[composite] = f"calls {' and '.join(replaced)}, chosen elsewhere"
    return members, reasons


def _portable_member(ops: Ops, op: str) -> Any:
    """Octavo's own function for an op, to run with the backend's object as ``self``.

    An op set whose caches are laid out in another way brings a ``portable_OP`` that reads them, or
    has None in its place.
    """
    adapted = getattr(type(ops), f"portable_{op}", None)
    if adapted is not None:
        return adapted
    base = portable_base(ops)
    if base is not None:
        return vars(base)[op]
    # Only what calls nothing but ops gets here: any op set can be its ``self``.
    from octavo.ops.portable import PortableOps

    return vars(PortableOps)[op]


def _with_members(ops: Ops, members: Mapping[str, Any]) -> Ops:
    """A copy of an op set whose class has the members, so that composites find them as well."""
    bound = copy.copy(ops)
    for op in members:
        getattr(bound, "__dict__", {}).pop(op, None)
    base = type(ops)
    bound_class = type(f"Bound{base.__name__}", (base,), {"__slots__": (), **members})
    # Also right for a frozen dataclass, and for a class with slots: the layout is the base's.
    object.__setattr__(bound, "__class__", bound_class)
    return bound


def _implementer(ops: Ops, op: str, member: Any) -> tuple[str, str]:
    """(name to show, module) of what serves an op."""
    if member is not None:
        function = getattr(member, "__func__", member)
        module = getattr(function, "__module__", None) or type(function).__module__
        name = getattr(function, "__qualname__", type(function).__name__)
    elif op in getattr(ops, "__dict__", {}):
        module, name = type(ops).__module__, f"{type(ops).__name__}.{op}"
    else:
        home = next(base for base in type(ops).__mro__ if op in vars(base))
        module, name = home.__module__, f"{home.__name__}.{op}"
    return ("portable default" if module == PORTABLE_MODULE else name), module


def _default_reason(module: str) -> str:
    if module == PORTABLE_MODULE:
        return "the backend does not override it"
    return "the backend's own"


def _owner(module: str, distributions: Mapping[str, str]) -> str:
    package = module.partition(".")[0]
    return "octavo" if package == "octavo" else distributions.get(package, package)
