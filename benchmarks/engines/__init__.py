"""The engines under comparison: one module each, with ``load(EngineOptions)``."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


class Engine(Protocol):
    """A loaded model that continues prompts greedily, ignoring end-of-text."""

    @property
    def description(self) -> str:
        """Name, version and settings, for the report."""
        ...

    def generate(
        self, prompts: Sequence[Sequence[int]], output_lens: Sequence[int]
    ) -> list[list[int]]:
        """Exactly ``output_lens[i]`` new token ids for each prompt."""
        ...


@dataclass(frozen=True)
class EngineOptions:
    """How a worker loads its engine."""

    hf_folder: str
    gguf_path: str
    dtype: str
    num_threads: int
    static_batch_size: int = 32
    extra: dict[str, Any] = field(default_factory=dict)
    """Options of the engine itself, over those above and over the benchmark's own."""


INSTALL = {
    "octavo": "pip install -c constraints.txt -e core -e backends/cpu",
    "transformers": "pip install -c constraints.txt torch transformers",
    "vllm": "pip install vllm (CPU: see docs/benchmarks.md; an environment of its own)",
    "llama_cpp": "pip install llama-cpp-python",
}
"""Engines by the package that must be importable, and how to get it."""


def why_missing(name: str, python: str = sys.executable) -> str | None:
    """None if ``python`` can import the engine, else how to install it."""
    if python == sys.executable:
        is_there = importlib.util.find_spec(name) is not None
    else:
        look = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({name!r}) is None)"
        is_there = subprocess.run([python, "-c", look], check=False).returncode == 0
    return None if is_there else f"{name} is not installed for {python}: {INSTALL[name]}"


def load(name: str, options: EngineOptions) -> Engine:
    """Load an engine and its weights in this process."""
    engine: Engine = importlib.import_module(f"engines.{name}_engine").load(options)
    return engine
