"""Ids of what the server makes; nobody can guess one."""

from __future__ import annotations

import uuid

__all__ = ["new_id"]


def new_id(prefix: str) -> str:
    """``resp_``, ``msg_``, … and 122 random bits."""
    return f"{prefix}_{uuid.uuid4().hex}"
