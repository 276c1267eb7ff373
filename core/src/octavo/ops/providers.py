"""Which implementations of attention there are for a backend, and why some cannot serve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from octavo.ops.selection import Selector

if TYPE_CHECKING:
    from octavo.backend import Backend
    from octavo.devices import Resolution
    from octavo.ops.binding import OpBinding
    from octavo.plugins import Plugins
    from octavo.policy import Policy
    from octavo.spec import AttentionSpec

__all__ = ["AttentionProvider", "attention_providers"]


@dataclass(frozen=True)
class AttentionProvider:
    """An implementation that a plugin registered for the backend."""

    name: str
    distribution: str
    ops: tuple[str, ...]
    serves: bool
    state: str
    """``serves``, how to ask for it, or why it cannot be had."""
    summary: str


def attention_providers(
    backend: Backend,
    resolution: Resolution,
    policy: Policy,
    plugins: Plugins,
    bindings: Sequence[OpBinding],
) -> list[AttentionProvider]:
    """Every one for the backend that is loaded, those that plugins.toml prefers first.

    ``bindings`` are what ``bind_ops`` returned.
    """
    name, kind = resolution.spec.name, resolution.device.kind
    specs = {spec.name: spec for spec in plugins.attention_of(name)}
    selector = Selector(backend, name, tuple(specs.values()), None)
    serving = {each.implementation for each in bindings}
    return [
        AttentionProvider(
            name=spec.name,
            distribution=plugins.distribution_of_attention(name, spec.name),
            ops=spec.ops,
            serves=spec.name in serving,
            state=_state(spec, selector, is_serving=spec.name in serving),
            summary=spec.summary,
        )
        for spec in _in_order(specs, policy.ops_for(name, kind))
    ]


def _in_order(
    specs: Mapping[str, AttentionSpec], preferences: Mapping[str, Sequence[str]]
) -> Iterator[AttentionSpec]:
    preferred = [name for names in preferences.values() for name in names if name in specs]
    for name in dict.fromkeys([*preferred, *specs]):
        yield specs[name]


def _state(spec: AttentionSpec, selector: Selector, *, is_serving: bool) -> str:
    if is_serving:
        return "serves"
    refusal = selector.refusal(spec)
    return f"--attention-backend {spec.name}" if refusal is None else f"cannot serve: {refusal}"
