"""Octavo: run Hugging Face language models on whatever hardware is at hand.

Importing this package is light: each public name is imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from octavo import devices
    from octavo.async_llm import AsyncLLM
    from octavo.llm import LLM
    from octavo.outputs import RequestOutput
    from octavo.sampling_params import SamplingParams
    from octavo.structured import StructuredOutputs

    __version__: str

__all__ = [
    "LLM",
    "AsyncLLM",
    "RequestOutput",
    "SamplingParams",
    "StructuredOutputs",
    "__version__",
    "devices",
]

_LAZY_HOMES = {
    "AsyncLLM": "octavo.async_llm",
    "LLM": "octavo.llm",
    "RequestOutput": "octavo.outputs",
    "SamplingParams": "octavo.sampling_params",
    "StructuredOutputs": "octavo.structured",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, and remember it."""
    if name == "devices":
        return import_module("octavo.devices")
    if name == "__version__":
        value: Any = import_module("importlib.metadata").version("octavo")
    elif name in _LAZY_HOMES:
        value = getattr(import_module(_LAZY_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
