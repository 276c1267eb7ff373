"""Registers the backend ``rocm``; imports no torch, so that listing devices is quick."""

from __future__ import annotations

from collections.abc import Callable

from octavo.api import BackendSpec, hookimpl

__all__ = ["octavo_register_backends"]


@hookimpl
def octavo_register_backends(register: Callable[[BackendSpec], None]) -> None:
    """Nothing yet."""
