"""Loads the engine of a served model, wherever it is to run."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from octavo.server.thread_engine import ThreadEngine

if TYPE_CHECKING:
    from octavo.config import EngineConfig
    from octavo.server.engine_client import EngineClient

__all__ = ["load_engine_client"]


async def load_engine_client(config: EngineConfig) -> EngineClient:
    """Load a model beside the event loop; raises an OctavoError that says what to do about it."""
    return await asyncio.to_thread(ThreadEngine.load, config)
