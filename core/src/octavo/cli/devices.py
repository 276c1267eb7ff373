"""``octavo devices``: what is here, who serves it, what is unusable and what mends it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from octavo.cli.listing import (
    AsJson,
    PluginsFile,
    installed,
    plugin_output_to_stderr,
    print_json,
)
from octavo.cli.tables import print_note, print_table
from octavo.device_listing import DeviceListing, ListedDevice, list_devices

__all__ = ["devices"]


def devices(
    as_json: AsJson = False,
    plugins_file: PluginsFile = None,
    everything: Annotated[
        bool, typer.Option("--all", help="List what is no hardware, too, such as the fake device.")
    ] = False,
) -> None:
    """Show the devices that can run a model here, and who serves them.

    Also what is missing, with the line that mends it, and what is broken, with the reason.
    A broken plugin is no error of this command.

    [bold]Examples[/bold]

      octavo devices

      octavo devices --json

      octavo devices --all
    """
    with plugin_output_to_stderr():
        policy, plugins = installed(plugins_file)
        listing = list_devices(policy, plugins, everything=everything)
    if as_json:
        print_json(_record(listing, policy.path))
    else:
        _print_tables(listing, policy.path)


def _print_tables(listing: DeviceListing, policy_path: str) -> None:
    print_table(
        "Devices",
        ("device", "name", "memory", "served by", ""),
        [
            (
                f"{device.info.kind}:{device.info.index}",
                device.info.name,
                _memory(device),
                ", ".join(device.backends),
                "auto chooses this" if device.is_automatic else "",
            )
            for device in listing.devices
        ],
    )
    if not listing.devices:
        print_note("No device can be used.")
    print_table(
        "Not usable",
        ("kind", "backend", "why", "what helps"),
        [
            (missing.kind, missing.backend or "-", missing.reason, missing.remedy or "-")
            for missing in listing.unusable
        ],
    )
    print_table(
        "Broken",
        ("plugin", "distribution", "reason"),
        [(broken.plugin, broken.distribution, broken.reason) for broken in listing.broken],
    )
    print(f"Policy: {policy_path}")


def _memory(device: ListedDevice) -> str:
    total_bytes = device.info.total_bytes
    return "-" if total_bytes is None else f"{total_bytes / 2**30:.1f} GiB"


def _record(listing: DeviceListing, policy_path: str) -> dict[str, Any]:
    return {
        "policy": policy_path,
        "devices": [
            {**vars(device.info), "backends": device.backends, "auto": device.is_automatic}
            for device in listing.devices
        ],
        "unusable": [vars(missing) for missing in listing.unusable],
        "broken": [vars(broken) for broken in listing.broken],
    }
