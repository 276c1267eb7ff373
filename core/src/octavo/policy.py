"""plugins.toml: which devices and implementations are preferred. Policy only, never registration.

The first file found wins whole: ``--plugins-file``, ``$OCTAVO_PLUGINS_FILE``, ``./plugins.toml``,
the user's configuration folder, the packaged default. A file can name things and set options; it
cannot make Octavo import anything.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octavo.errors import PluginError
from octavo.policy_schema import parse_policy

__all__ = ["PLUGINS_FILE_VARIABLE", "Policy", "find_policy_file", "load_policy"]

PLUGINS_FILE_VARIABLE = "OCTAVO_PLUGINS_FILE"
_FILE_NAME = "plugins.toml"


@dataclass(frozen=True)
class Policy:
    """A validated plugins.toml; all mappings are read-only."""

    path: str
    device_order: tuple[str, ...]
    """Device kinds that ``auto`` tries, in order."""
    backend_order: Mapping[str, tuple[str, ...]]
    """Device kind → backends in order of preference; those not listed come after."""
    block: tuple[str, ...]
    """Plugins or distributions that are never imported."""
    allow: tuple[str, ...]
    """If not empty, only these plugins or distributions are imported."""
    ops: Mapping[str, Mapping[str, tuple[str, ...]]]
    """Backend or device kind → op → implementations in order of preference."""
    options: Mapping[str, Mapping[str, Any]]
    """Backend → options handed to its ``load``."""

    def ops_for(self, backend: str, kind: str) -> dict[str, tuple[str, ...]]:
        """Op preferences for a backend on a device kind; the backend's own entries win."""
        return {**self.ops.get(kind, {}), **self.ops.get(backend, {})}


def load_policy(plugins_file: str | os.PathLike[str] | None = None) -> Policy:
    """Read the first plugins.toml found. Raises PluginError naming the file and the fault."""
    path = find_policy_file(plugins_file)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PluginError(f"Cannot read {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise PluginError(f"{path} is not UTF-8 text: {error.reason}.") from error
    except tomllib.TOMLDecodeError as error:
        raise PluginError(f"{path} is not valid TOML: {error}.") from error
    return Policy(path=str(path), **parse_policy(table, str(path)))


def find_policy_file(
    plugins_file: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Path:
    """The file that decides. A file that was asked for by name must exist."""
    environ = os.environ if environ is None else environ
    if plugins_file:
        return _existing(Path(plugins_file).expanduser(), "--plugins-file")
    if environ.get(PLUGINS_FILE_VARIABLE):
        file = Path(environ[PLUGINS_FILE_VARIABLE]).expanduser()
        return _existing(file, "$" + PLUGINS_FILE_VARIABLE)
    for folder in (Path.cwd(), _user_config_folder(environ)):
        if (folder / _FILE_NAME).is_file():
            return folder / _FILE_NAME
    return Path(__file__).with_name(_FILE_NAME)


def _existing(path: Path, source: str) -> Path:
    if not path.is_file():
        raise PluginError(f"{source} names {path}, which is not a file.")
    return path


def _user_config_folder(environ: Mapping[str, str]) -> Path:
    """Where this system keeps a user's settings."""
    if sys.platform == "win32":
        base = environ.get("APPDATA") or "~/AppData/Roaming"
    elif sys.platform == "darwin":
        base = "~/Library/Application Support"
    else:
        base = environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "octavo"
