"""POST /v1/chat/completions."""

from __future__ import annotations

import uuid
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from octavo.server.chat import ChatTurn
from octavo.server.chat_completions import ReplyForm, chat_task, stream_chunks, whole_answer
from octavo.server.event_stream import EVENT_STREAM, EventStream, until_disconnect
from octavo.server.protocol.chat import ChatRequest
from octavo.server.state import server_of

__all__ = ["router"]

router = APIRouter(tags=["chat"])


@router.post("/v1/chat/completions", response_model=None, responses=EVENT_STREAM)
async def create_chat_completion(body: ChatRequest, request: Request) -> Any:
    """Answer a conversation, whole or as a stream of server-sent events."""
    server = server_of(request)
    model = server.model_for(body.model)
    task = chat_task(body, model.engine.info.default_sampling_params, server.config)
    request_id = f"chatcmpl-{uuid.uuid4().hex}"
    form = ReplyForm.of(body, task, request_id, model.name)

    async def answer() -> dict[str, Any]:
        turn = await ChatTurn.open(model, task, request_id)
        try:
            return await whole_answer(turn, form)
        finally:
            turn.close()

    if not body.stream:
        return JSONResponse(await until_disconnect(request, answer()))
    turn = await ChatTurn.open(model, task, request_id)
    return EventStream(stream_chunks(turn, form), on_close=turn.close)
