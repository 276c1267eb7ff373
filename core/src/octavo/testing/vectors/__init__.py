"""Expected values that come from outside the code under test, as JSON files beside this one."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

__all__ = ["read_vectors"]


def read_vectors(name: str) -> Any:
    """The content of ``name.json``; each file says in ``source`` where it comes from."""
    text = files(__name__).joinpath(f"{name}.json").read_text(encoding="utf-8")
    return json.loads(text)
