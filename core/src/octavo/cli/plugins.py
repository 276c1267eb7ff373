"""``octavo plugins``: every installed plugin, what it brings, and why it is not used if so."""

from __future__ import annotations

from typing import Any

from octavo.cli.listing import (
    AsJson,
    PluginsFile,
    installed,
    plugin_output_to_stderr,
    print_json,
)
from octavo.cli.tables import print_note, print_table
from octavo.plugins import PluginRecord

__all__ = ["plugins"]


def plugins(as_json: AsJson = False, plugins_file: PluginsFile = None) -> None:
    r"""Show every installed plugin: used, blocked by plugins.toml, or broken and why.

    Plugins come with pip packages. To block one, name it in plugins.toml, \[plugins] block.

    [bold]Examples[/bold]

      octavo plugins

      octavo plugins --json
    """
    with plugin_output_to_stderr():
        policy, found = installed(plugins_file)
    if as_json:
        print_json({"policy": policy.path, "plugins": [_record(each) for each in found.records]})
        return
    print_table(
        "Plugins",
        ("plugin", "distribution", "version", "status", "brings", "reason"),
        [
            (
                record.name,
                record.distribution,
                record.version,
                record.status,
                _brings(record) or "-",
                record.reason or "-",
            )
            for record in found.records
        ],
    )
    if not found.records:
        print_note("No plugin is installed. For any CPU: pip install octavo-cpu")
    print(f"Policy: {policy.path}")


def _brings(record: PluginRecord) -> str:
    return ", ".join(
        [
            *(f"backend {spec.name}" for spec in record.backends),
            *(f"model {spec.architecture}" for spec in record.models),
            *(f"attention {spec.name} for {spec.backend}" for spec in record.attention),
        ]
    )


def _record(record: PluginRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "distribution": record.distribution,
        "version": record.version,
        "module": record.module,
        "status": record.status,
        "reason": record.reason,
        "backends": [
            {"name": spec.name, "device_kinds": spec.device_kinds, "summary": spec.summary}
            for spec in record.backends
        ],
        "models": [
            {"architecture": spec.architecture, "backend": spec.backend} for spec in record.models
        ],
        "attention": [
            {"name": spec.name, "backend": spec.backend, "ops": spec.ops}
            for spec in record.attention
        ],
    }
