"""A kernel with what it is checked by: its reference in torch and its table of shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

__all__ = ["Case", "Kernel"]


@dataclass(frozen=True)
class Case:
    """One shape: arguments for the kernel and its reference, made on any device."""

    label: str
    make: Callable[[torch.device, torch.Generator], dict[str, Any]]
    """(device, generator) -> keyword arguments. Values are about unit size."""
    dtypes: tuple[str, ...] = ("float32", "float16", "bfloat16")
    """Which dtypes' tolerances (octavo.testing.tolerances) hold: the loosest of these."""
    ahead: bool = False
    """Compiled for every target too. Such a case has a model's true sizes: it is never computed."""
    expects: Mapping[str, str] = field(default_factory=dict)
    """For ``ahead``: what the compiled code must contain, by vendor (``{"cuda": "wgmma"}``)."""
    exact: bool = False
    """For ``ahead``: no product may be fused with a sum."""


@dataclass(frozen=True)
class Kernel:
    """``launch(**arguments)`` equals ``reference(**arguments)`` for every case.

    Both return a tensor or a tuple of them, and write to no argument; a kernel that works in place
    is wrapped so that it copies first.
    """

    name: str
    launch: Callable[..., Any]
    reference: Callable[..., Any]
    cases: tuple[Case, ...]
