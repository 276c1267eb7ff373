"""POST /v1/completions."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from octavo.server.completions.events import completion_events
from octavo.server.completions.prompts import check_lengths, read_prompts
from octavo.server.completions.run import CompletionRun
from octavo.server.completions.task import completion_task
from octavo.server.completions.whole import whole_completion
from octavo.server.event_stream import EVENT_STREAM, EventStream, until_disconnect
from octavo.server.protocol.completions import CompletionRequest, completion_object
from octavo.server.state import server_of

__all__ = ["router"]

router = APIRouter(tags=["completions"])


@router.post("/v1/completions", response_model=None, responses=EVENT_STREAM)
async def create_completion(body: CompletionRequest, request: Request) -> Any:
    """Go on from a prompt or from many, whole or as a stream of server-sent events."""
    server = server_of(request)
    model = server.model_for(body.model)
    task = completion_task(body, model.engine.info.default_sampling_params, server.config)
    head = completion_object(_completion_id(body, request), int(time.time()), model.name)

    async def opened() -> CompletionRun:
        prompts = await read_prompts(
            body.prompt,
            model,
            server.config,
            add_special_tokens=body.add_special_tokens is not False,
        )
        check_lengths(prompts, server.config, body.truncate_prompt_tokens)
        return await CompletionRun.open(model, task, prompts, head["id"], server.config.max_choices)

    async def answer() -> bytes:
        run = await opened()
        try:
            return await whole_completion(run, head)
        finally:
            run.close()

    if not body.stream:
        whole = await until_disconnect(request, answer())
        return Response(whole, media_type="application/json")
    run = await opened()
    return EventStream(completion_events(run, head), on_close=run.close)


def _completion_id(body: CompletionRequest, request: Request) -> str:
    """From the request's id, so that an answer can be found in the server's log."""
    request_id: str = body.request_id or request.state.request_id
    return f"cmpl-{request_id.removeprefix('req_')}"
