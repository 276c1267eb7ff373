"""Load one plugin: import it, check its hooks, collect what it registers, or say what is wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pluggy

from octavo import hookspecs
from octavo.discovery import Candidate
from octavo.isolation import Fault, GuardedCall, describe, time_limit_s
from octavo.spec import AttentionSpec, BackendSpec, ModelSpec, ParserSpec
from octavo.spec_checks import check_spec
from octavo.suggest import choices, did_you_mean

__all__ = ["PLUGIN_TIMEOUT_S", "PLUGIN_TIMEOUT_VARIABLE", "Registered", "load_plugin"]

PLUGIN_TIMEOUT_S = 3.0
"""How long importing a plugin and calling its hooks may take; plugin.py is light by contract."""

PLUGIN_TIMEOUT_VARIABLE = "OCTAVO_PLUGIN_TIMEOUT_S"

_HOOK_PREFIX = "octavo_"
_SPEC_TYPES: dict[str, type] = {
    "octavo_register_backends": BackendSpec,
    "octavo_register_models": ModelSpec,
    "octavo_register_attention": AttentionSpec,
    "octavo_register_parsers": ParserSpec,
}


@dataclass
class Registered:
    """What a plugin handed over; a plugin is used whole or, with any fault, not at all."""

    backends: list[BackendSpec] = field(default_factory=list)
    models: list[ModelSpec] = field(default_factory=list)
    attention: list[AttentionSpec] = field(default_factory=list)
    parsers: list[ParserSpec] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def load_plugin(candidate: Candidate) -> Registered:
    """Import a plugin and call its hooks under a time limit. Raises Fault with the reason."""
    limit_s = time_limit_s(PLUGIN_TIMEOUT_VARIABLE, PLUGIN_TIMEOUT_S)
    call = GuardedCall(lambda: _load(candidate), candidate.name)
    hint = f" ({limit_s:g} s; ${PLUGIN_TIMEOUT_VARIABLE} changes the limit)"
    try:
        return call.result(time.monotonic() + limit_s, hint)
    except Fault as fault:
        if call.is_running:
            raise Fault(f"importing it or calling its hooks {fault}") from None
        raise


def _load(candidate: Candidate) -> Registered:
    try:
        plugin = candidate.entry_point.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise Fault(f"importing {candidate.entry_point.value} raised {describe(error)}") from error
    manager = _manager_with(plugin, candidate.name)
    registered = Registered()
    for hook_name, spec_type in _SPEC_TYPES.items():
        _call_hook(manager, hook_name, _registrar(registered, spec_type, candidate.distribution))
    if registered.faults:
        # Raised in the hook already, which may have caught it.
        raise registered.faults[0]
    if not any(_lists_of(registered).values()):
        raise Fault("its hooks registered nothing")
    return registered


def _manager_with(plugin: Any, name: str) -> pluggy.PluginManager:
    """A plugin manager of the plugin's own: pluggy isolates nothing between plugins."""
    _check_hook_names(plugin)
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin, name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise Fault(f"a hook is not what octavo calls: {_one_line(error)}") from error
    return manager


def _check_hook_names(plugin: Any) -> None:
    """Catch what pluggy passes over in silence: misspelt hooks, and hooks without ``@hookimpl``."""
    hooks = [
        name
        for name in dir(plugin)
        if name.startswith(_HOOK_PREFIX) and callable(getattr(plugin, name, None))
    ]
    for name in hooks:
        if name not in _SPEC_TYPES:
            raise Fault(
                f"defines {name}, which is no hook of octavo.{did_you_mean(name, _SPEC_TYPES)} "
                f"The hooks are {choices(_SPEC_TYPES)}"
            )
        if not hasattr(getattr(plugin, name), f"{hookspecs.PROJECT}_impl"):
            raise Fault(f"defines {name} without the decorator @octavo.api.hookimpl")
    if not hooks:
        raise Fault(f"defines none of the hooks {choices(_SPEC_TYPES)}")


def _call_hook(
    manager: pluggy.PluginManager, hook_name: str, register: Callable[[Any], None]
) -> None:
    try:
        getattr(manager.hook, hook_name)(register=register)
    except (Fault, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise Fault(f"{hook_name} raised {describe(error)}") from error


def _registrar(registered: Registered, spec_type: type, distribution: str) -> Callable[[Any], None]:
    def register(spec: Any) -> None:
        try:
            check_spec(spec, spec_type, distribution)
        except Fault as fault:
            registered.faults.append(fault)
            raise
        _lists_of(registered)[spec_type].append(spec)

    return register


def _lists_of(registered: Registered) -> dict[type, list[Any]]:
    return {
        BackendSpec: registered.backends,
        ModelSpec: registered.models,
        AttentionSpec: registered.attention,
        ParserSpec: registered.parsers,
    }


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
