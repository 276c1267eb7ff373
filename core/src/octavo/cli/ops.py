"""``octavo ops``: who serves each op on a device, from which distribution, and why."""

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

__all__ = ["ops"]


def ops(
    device: Annotated[
        str,
        typer.Option("--device", "-d", help="auto, or KIND[:INDEX], for example cpu or cuda:0."),
    ] = "auto",
    backend: Annotated[str | None, typer.Option(help="Pin the backend: numpy, torch, …")] = None,
    attention_backend: Annotated[
        str | None, typer.Option(help="Pin an attention implementation that a plugin registered.")
    ] = None,
    as_json: AsJson = False,
    plugins_file: PluginsFile = None,
) -> None:
    r"""Show who serves each op on a device, and why.

    What a backend does not override is served by Octavo's portable default.

    Where there are several implementations of attention, all are listed, in order of preference.

    In plugins.toml, \[ops.NAME] can prefer another implementation.

    [bold]Examples[/bold]

      octavo ops --device cpu

      octavo ops --device cpu --attention-backend portable --json
    """
    # Loading a backend imports NumPy and its framework; asking for help should not.
    from octavo.devices import load_backend, resolve
    from octavo.member_faults import close_backend
    from octavo.ops.binding import bind_ops
    from octavo.ops.providers import attention_providers

    with plugin_output_to_stderr():
        policy, plugins = installed(plugins_file)
        resolution = resolve(device, backend, policy, plugins)
        loaded = load_backend(resolution, policy)
        try:
            _, bindings = bind_ops(
                loaded, resolution, policy, plugins, attention_backend=attention_backend
            )
            providers = attention_providers(loaded, resolution, policy, plugins, bindings)
        finally:
            close_backend(loaded, resolution.spec.name)
    if as_json:
        place = {"kind": resolution.device.kind, "index": resolution.device.index}
        record: dict[str, Any] = {
            "device": place,
            "backend": resolution.spec.name,
            "reason": resolution.reason,
        }
        record["ops"] = [vars(binding) for binding in bindings]
        print_json({**record, "attention": [vars(provider) for provider in providers]})
        return
    print_note(resolution.reason)
    print_table(
        "Ops",
        ("op", "implementation", "distribution", "why"),
        [(each.op, each.implementation, each.distribution, each.reason) for each in bindings],
    )
    print_table(
        "Attention",
        ("provider", "distribution", "state", "what it is"),
        [(each.name, each.distribution, each.state, each.summary) for each in providers],
    )
