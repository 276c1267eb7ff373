"""The four hooks of a plugin; all are cold: called once, when plugins are loaded."""

from __future__ import annotations

from collections.abc import Callable

import pluggy

from octavo.spec import AttentionSpec, BackendSpec, ModelSpec, ParserSpec

__all__ = [
    "PROJECT",
    "hookimpl",
    "octavo_register_attention",
    "octavo_register_backends",
    "octavo_register_models",
    "octavo_register_parsers",
]

PROJECT = "octavo"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a plugin's implementation of a hook."""


@hookspec
def octavo_register_backends(register: Callable[[BackendSpec], None]) -> None:
    """Call ``register`` once for each backend. Import nothing heavy here: ``probe`` may."""


@hookspec
def octavo_register_models(register: Callable[[ModelSpec], None]) -> None:
    """Add an architecture, or replace one for a named backend."""


@hookspec
def octavo_register_attention(register: Callable[[AttentionSpec], None]) -> None:
    """Add an implementation of attention or cache ops to a named backend."""


@hookspec
def octavo_register_parsers(register: Callable[[ParserSpec], None]) -> None:
    """Add a format of tool calls or of reasoning."""
