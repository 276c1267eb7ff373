"""Anthropic's /v1/messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from octavo.server.chat import ChatTask, ChatTurn
from octavo.server.chat.prompt import chat_prompt
from octavo.server.event_stream import EVENT_STREAM, EventStream, sse, until_disconnect
from octavo.server.messages import MessageRun, counted_task, message_task
from octavo.server.protocol.messages import CountTokensRequest, MessageRequest
from octavo.server.responses import new_id
from octavo.server.state import server_of
from octavo.server.whole_run import finish

if TYPE_CHECKING:
    from octavo.server.served_model import ServedModel

__all__ = ["router"]

router = APIRouter(prefix="/v1/messages", tags=["messages"])


@router.post("", response_model=None, responses=EVENT_STREAM)
async def create_message(body: MessageRequest, request: Request) -> Any:
    """Answer a conversation, whole or as a stream of server-sent events."""
    server = server_of(request)
    model = server.model_for(body.model)
    task = message_task(body, model.engine.info.default_sampling_params, server.config)
    if not body.stream:
        return JSONResponse(await until_disconnect(request, _whole(model, task, body)))
    run = await _open(model, task, body)
    return EventStream(_encoded(run), on_close=run.close)


@router.post("/count_tokens", response_model=None)
async def count_tokens(body: CountTokensRequest, request: Request) -> Any:
    """How many tokens the prompt of such a message has."""
    model = server_of(request).model_for(body.model)
    task = counted_task(body, model.engine.info.default_sampling_params)
    prompt = await chat_prompt(model, task)
    return {"input_tokens": len(prompt.token_ids)}


async def _open(model: ServedModel, task: ChatTask, body: MessageRequest) -> MessageRun:
    message_id = new_id("msg")
    return MessageRun(
        await ChatTurn.open(model, task, message_id),
        message_id,
        stop_sequences=body.stop_sequences or (),
        shows_thinking=body.thinking is None or body.thinking.display != "omitted",
    )


async def _whole(model: ServedModel, task: ChatTask, body: MessageRequest) -> dict[str, Any]:
    run = await _open(model, task, body)
    await finish(run)
    return run.message


async def _encoded(run: MessageRun) -> AsyncIterator[bytes]:
    async for event in run.events():
        yield sse(event, event["type"])
