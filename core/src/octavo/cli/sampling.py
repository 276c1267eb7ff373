"""Sampling flags over the model's own defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from octavo.llm import LLM
    from octavo.sampling_params import SamplingParams

__all__ = ["check_sampling_flags", "sampling_params"]


def check_sampling_flags(flags: Mapping[str, Any] | None) -> None:
    """Raise UsageError for a value that no model could use, before a model is loaded."""
    from octavo.sampling_params import SamplingParams

    SamplingParams(**(flags or {}))


def sampling_params(llm: LLM, flags: Mapping[str, Any]) -> SamplingParams:
    """What the user set, else what the model's generation config says, else Octavo's defaults."""
    return replace(llm.get_default_sampling_params(), **flags)
