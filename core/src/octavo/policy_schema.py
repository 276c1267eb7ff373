"""The shape of plugins.toml, schema 1: every key checked, every fault named with its file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from octavo.errors import PluginError
from octavo.suggest import choices, did_you_mean

__all__ = ["SCHEMA", "parse_policy"]

SCHEMA = 1

_TABLES = ("schema", "devices", "plugins", "ops", "options")
_DEFAULT_DEVICE_ORDER = ("cuda", "rocm", "tpu", "xpu", "cpu")


def parse_policy(table: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The fields of a Policy, without ``path``. Raises PluginError."""
    _check_schema(table, path)
    _check_keys(table, _TABLES, "the top level", path)
    devices = _table(table, "devices", path)
    plugins = _table(table, "plugins", path)
    _check_keys(plugins, ("block", "allow"), "[plugins]", path)
    order = devices.get("order", list(_DEFAULT_DEVICE_ORDER))
    device_order = _names(order, "[devices] order", path)
    return {
        "device_order": device_order,
        "backend_order": _backend_order(devices, device_order, path),
        "block": _names(plugins.get("block", []), "[plugins] block", path),
        "allow": _names(plugins.get("allow", []), "[plugins] allow", path),
        "ops": _ops(_table(table, "ops", path), path),
        "options": _options(_table(table, "options", path), path),
    }


def _check_schema(table: Mapping[str, Any], path: str) -> None:
    if "schema" not in table:
        raise PluginError(
            f"{path} does not say which schema it follows; begin it with `schema = {SCHEMA}` "
            "(or, if it is not Octavo's, name another file with --plugins-file)."
        )
    schema = table["schema"]
    if schema != SCHEMA or isinstance(schema, bool):
        raise PluginError(f"{path} has schema = {schema!r}; this octavo reads schema = {SCHEMA}.")


def _backend_order(
    devices: Mapping[str, Any], device_order: tuple[str, ...], path: str
) -> Mapping[str, tuple[str, ...]]:
    kinds = [key for key in devices if key != "order"]
    known = ("order", *dict.fromkeys((*device_order, *_DEFAULT_DEVICE_ORDER)))
    _check_keys(devices, known, "[devices]", path)
    return MappingProxyType(
        {kind: _names(devices[kind], f"[devices] {kind}", path) for kind in kinds}
    )


def _ops(table: Mapping[str, Any], path: str) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    parsed = {}
    for owner in table:
        preferences = _table(table, owner, path, within="ops.")
        if preferences:
            _check_keys(preferences, _op_names(), f"[ops.{owner}]", path)
        parsed[owner] = MappingProxyType(
            {op: _names(names, f"[ops.{owner}] {op}", path) for op, names in preferences.items()}
        )
    return MappingProxyType(parsed)


def _op_names() -> tuple[str, ...]:
    # Imported only where a file has an [ops] table: listing devices needs no op protocol.
    from octavo.ops.names import OP_NAMES

    return OP_NAMES


def _options(table: Mapping[str, Any], path: str) -> Mapping[str, Mapping[str, Any]]:
    return MappingProxyType(
        {
            backend: MappingProxyType(_table(table, backend, path, within="options."))
            for backend in table
        }
    )


def _table(table: Mapping[str, Any], key: str, path: str, within: str = "") -> dict[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise PluginError(f"{path}: {within}{key} is {value!r}; expected a table [{within}{key}].")
    return value


def _names(value: Any, place: str, path: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise PluginError(f"{path}: {place} is {value!r}; expected a list of names.")
    repeated = sorted({name for name in value if value.count(name) > 1})
    if repeated:
        raise PluginError(f"{path}: {place} lists {choices(repeated)} more than once.")
    return tuple(value)


def _check_keys(table: Iterable[str], known: Iterable[str], place: str, path: str) -> None:
    known = tuple(known)
    for key in table:
        if key not in known:
            raise PluginError(
                f"{path}: unknown key {key!r} in {place}.{did_you_mean(key, known)} "
                f"Known keys: {choices(known)}."
            )
