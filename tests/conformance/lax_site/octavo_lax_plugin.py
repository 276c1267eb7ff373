"""The plain backend once more, from a distribution that does not say it needs octavo."""

from __future__ import annotations

from dataclasses import replace

from plain_plugin import SPEC

from octavo.api import hookimpl


@hookimpl
def octavo_register_backends(register):
    register(replace(SPEC, name="lax"))
