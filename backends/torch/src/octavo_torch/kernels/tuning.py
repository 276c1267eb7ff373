"""Launch options by kernel, device and shape: tables that are data."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

import torch

from octavo_torch.kernels.target import Target, target_of

__all__ = ["launch_options"]

# Who has the tables of a vendor; the file tuned.toml in it.
_PACKAGES = {"cuda": "octavo_cuda", "hip": "octavo_rocm", "xpu": "octavo_xpu"}


def launch_options(kernel: str, device: torch.device, **shape: int | str) -> dict[str, Any]:
    """Tile sizes, ``num_warps`` and ``num_stages`` for a kernel.

    A table has a list of entries for each kernel. An entry's ``where`` names what it is for:
    ``arch`` and numbers of ``shape``, as an exact value or as ``{ min = …, max = … }``. Of all that
    fit, later entries overrule earlier ones, option by option; the first ones, without ``where``,
    are what is right everywhere.
    """
    return dict(_options(kernel, target_of(device), tuple(shape.items())))


@lru_cache(maxsize=1024)
def _options(
    kernel: str, target: Target, shape: tuple[tuple[str, int | str], ...]
) -> dict[str, Any]:
    facts = {"arch": target.arch, "vendor": target.vendor, **dict(shape)}
    options: dict[str, Any] = {}
    for entry in _entries(kernel, target):
        if all(_fits(facts.get(name), wanted) for name, wanted in entry.get("where", {}).items()):
            options |= {name: value for name, value in entry.items() if name != "where"}
    return options


def _fits(fact: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        return fact is not None and wanted.get("min", fact) <= fact <= wanted.get("max", fact)
    return bool(fact in wanted if isinstance(wanted, list) else fact == wanted)


def _entries(kernel: str, target: Target) -> list[dict[str, Any]]:
    own = _table(_PACKAGES.get(target.vendor, "")).get(kernel, [])
    return [*_table("octavo_torch").get(kernel, []), *own]


@lru_cache(maxsize=8)
def _table(package: str) -> dict[str, list[dict[str, Any]]]:
    try:
        text = files(package).joinpath("tuned.toml").read_text("utf-8")
    except (ModuleNotFoundError, FileNotFoundError, ValueError):
        return {}
    return tomllib.loads(text)
