"""Loads the engine of a served model, wherever it is to run."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from octavo.config import EngineConfig
    from octavo.server.engines.client import EngineClient

__all__ = ["EnginePlacement", "load_engine_client"]

EnginePlacement: TypeAlias = Literal["thread", "process"]


async def load_engine_client(
    config: EngineConfig, placement: EnginePlacement = "process"
) -> EngineClient:
    """Load a model beside the event loop; raises an OctavoError that says what to do about it.

    A process costs some 2 µs a token for the way over the socket. A thread shares the interpreter:
    while the event loop reads a large body, renders a template or writes many events, the engine's
    steps wait, and a server that was busy with JSON let it do a sixth of them. A fault in native
    code takes the engine's process along and leaves a server that says so.
    """
    if placement == "thread":
        from octavo.server.engines.thread_engine import ThreadEngine

        return await asyncio.to_thread(ThreadEngine.load, config)
    from octavo.server.engines.process import EngineProcess
    from octavo.server.engines.process_engine import ProcessEngine

    process = EngineProcess(config)
    try:
        engine = await asyncio.to_thread(ProcessEngine.load, config, process)
    except asyncio.CancelledError:
        process.kill()
        raise
    await engine.attach()
    return engine
