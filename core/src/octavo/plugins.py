"""All installed plugins: which are used, which are blocked, which are broken, and why.

Plugins are loaded one by one. A failing plugin costs nobody else anything: it is kept with its
reason. Two plugins that claim one name are both refused, because nothing tells the impostor from
the original; blocking one of them in plugins.toml, or uninstalling it, brings the other back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from octavo.discovery import Candidate, find_candidates, normalized
from octavo.isolation import Fault
from octavo.plugin_loading import load_plugin
from octavo.policy import Policy
from octavo.spec import AttentionSpec, BackendSpec, ModelSpec, ParserSpec

__all__ = ["PluginRecord", "Plugins", "load_plugins"]


@dataclass(frozen=True)
class PluginRecord:
    """One plugin and what became of it; a blocked or broken one registers nothing."""

    name: str
    distribution: str
    version: str
    module: str
    status: Literal["ok", "blocked", "broken"]
    reason: str | None = None
    backends: tuple[BackendSpec, ...] = ()
    models: tuple[ModelSpec, ...] = ()
    attention: tuple[AttentionSpec, ...] = ()
    parsers: tuple[ParserSpec, ...] = ()

    def broken(self, reason: str) -> PluginRecord:
        """The same plugin, refused."""
        nothing: dict[str, Any] = {"backends": (), "models": (), "attention": (), "parsers": ()}
        return replace(self, status="broken", reason=reason, **nothing)


@dataclass(frozen=True)
class Plugins:
    """Every plugin found, in order of name, and what the usable ones registered."""

    records: tuple[PluginRecord, ...]

    @property
    def backends(self) -> dict[str, BackendSpec]:
        """Backends by name."""
        return {spec.name: spec for record in self.records for spec in record.backends}

    @property
    def models(self) -> tuple[ModelSpec, ...]:
        """Architectures that plugins add or replace."""
        return tuple(spec for record in self.records for spec in record.models)

    @property
    def attention(self) -> tuple[AttentionSpec, ...]:
        """Attention and cache implementations that plugins add."""
        return tuple(spec for record in self.records for spec in record.attention)

    def attention_of(self, backend: str) -> tuple[AttentionSpec, ...]:
        """Those of them that are for one backend."""
        return tuple(spec for spec in self.attention if spec.backend == backend)

    @property
    def parsers(self) -> tuple[ParserSpec, ...]:
        """Formats of tool calls and of reasoning that plugins add or replace."""
        return tuple(spec for record in self.records for spec in record.parsers)

    @property
    def broken(self) -> tuple[PluginRecord, ...]:
        """Plugins that cannot be used, with reasons."""
        return tuple(record for record in self.records if record.status == "broken")

    def distribution_of(self, backend: str) -> str:
        """The distribution that registered a backend."""
        for record in self.records:
            if any(spec.name == backend for spec in record.backends):
                return record.distribution
        raise KeyError(backend)

    def distribution_of_attention(self, backend: str, name: str) -> str:
        """The distribution that registered an implementation of attention for a backend."""
        for record in self.records:
            if any((spec.backend, spec.name) == (backend, name) for spec in record.attention):
                return record.distribution
        raise KeyError(name)

    def distributions_by_package(self) -> dict[str, str]:
        """Top-level package → distribution, for the usable plugins and Octavo itself."""
        packages = {
            record.module.partition(".")[0]: record.distribution
            for record in self.records
            if record.status == "ok"
        }
        return {**packages, "octavo": "octavo"}


def load_plugins(policy: Policy) -> Plugins:
    """Find every plugin and load those the policy lets through; no plugin's fault is raised."""
    candidates, unreadable = find_candidates()
    records = [
        PluginRecord(entry.distribution, entry.distribution, "unknown", "", "broken", entry.reason)
        for entry in unreadable
    ]
    admitted = []
    for candidate in candidates:
        reason = _why_blocked(candidate, policy)
        if reason is None:
            admitted.append(candidate)
        else:
            records.append(replace(_record_of(candidate), status="blocked", reason=reason))
    records += _load_admitted(admitted)
    return Plugins(tuple(sorted(records, key=lambda record: (record.name, record.distribution))))


def _load_admitted(candidates: list[Candidate]) -> list[PluginRecord]:
    claims = _claims((candidate.name, candidate.distribution) for candidate in candidates)
    records = []
    for candidate in candidates:
        owners = claims[candidate.name]
        if len(owners) > 1:
            reason = _conflict(f"the plugin name {candidate.name!r}", owners)
            records.append(_record_of(candidate).broken(reason))
        else:
            records.append(_load_one(candidate))
    return _refuse_duplicates(records)


def _load_one(candidate: Candidate) -> PluginRecord:
    record = _record_of(candidate)
    try:
        registered = load_plugin(candidate)
    except Fault as fault:
        return record.broken(str(fault))
    return replace(
        record,
        backends=tuple(registered.backends),
        models=tuple(registered.models),
        attention=tuple(registered.attention),
        parsers=tuple(registered.parsers),
    )


def _record_of(candidate: Candidate) -> PluginRecord:
    return PluginRecord(
        name=candidate.name,
        distribution=candidate.distribution,
        version=candidate.version,
        module=candidate.entry_point.value.partition(":")[0].strip(),
        status="ok",
    )


def _why_blocked(candidate: Candidate, policy: Policy) -> str | None:
    """A plugin is blocked or allowed by its own name or by its distribution's."""
    names = {candidate.name, normalized(candidate.distribution)}

    def listed(entries: Iterable[str]) -> bool:
        return any(entry in names or normalized(entry) in names for entry in entries)

    if listed(policy.block):
        return f"in [plugins] block of {policy.path}"
    if policy.allow and not listed(policy.allow):
        return f"not in [plugins] allow of {policy.path}"
    return None


def _claimed_names(record: PluginRecord) -> Iterator[str]:
    """What may exist once only, in the words of the message."""
    for backend in record.backends:
        yield f"the backend name {backend.name!r}"
    for model in record.models:
        place = f" on backend {model.backend!r}" if model.backend else ""
        yield f"the architecture {model.architecture!r}{place}"
    for attention in record.attention:
        yield f"the attention backend {attention.name!r} of backend {attention.backend!r}"
    for parser in record.parsers:
        yield f"the {parser.kind} parser {parser.name!r}"


def _refuse_duplicates(records: list[PluginRecord]) -> list[PluginRecord]:
    claims = _claims(
        (claim, record.distribution) for record in records for claim in _claimed_names(record)
    )

    def judged(record: PluginRecord) -> PluginRecord:
        for claim in _claimed_names(record):
            if len(claims[claim]) > 1:
                return record.broken(_conflict(claim, claims[claim]))
        return record

    return [judged(record) for record in records]


def _claims(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Name → the distributions that claim it, each time they do."""
    claims: dict[str, list[str]] = {}
    for name, distribution in pairs:
        claims.setdefault(name, []).append(distribution)
    return claims


def _conflict(claim: str, distributions: list[str]) -> str:
    owners = sorted(set(distributions))
    if len(owners) == 1:
        return f"{claim} is claimed twice by {owners[0]}; a name may be registered once"
    return (
        f"{claim} is claimed by {' and by '.join(owners)}; neither is used. Uninstall one, "
        f"or put its distribution into [plugins] block of plugins.toml"
    )
