"""These tests run where torch, transformers and octavo-torch are installed."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore_glob = (
    []
    if all(find_spec(name) for name in ("torch", "transformers", "octavo_torch"))
    else ["test_*.py"]
)
