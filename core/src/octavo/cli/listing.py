"""What the listing commands share: the policy and plugins to show, and JSON output."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from octavo.plugins import Plugins, load_plugins
from octavo.policy import Policy, load_policy

__all__ = ["AsJson", "PluginsFile", "installed", "plugin_output_to_stderr", "print_json"]

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON, for a program.")]

PluginsFile: TypeAlias = Annotated[
    Path | None, typer.Option(help="Read this plugins.toml instead of the one found first.")
]


def installed(plugins_file: Path | None) -> tuple[Policy, Plugins]:
    """The policy in force, and the plugins it lets through."""
    policy = load_policy(plugins_file)
    return policy, load_plugins(policy)


@contextlib.contextmanager
def plugin_output_to_stderr() -> Iterator[None]:
    """Keep what plugins print out of the listing (and out of its JSON)."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def print_json(record: dict[str, Any]) -> None:
    """Print one JSON object."""
    print(json.dumps(record, indent=2, ensure_ascii=False))
