"""OpenAI's /v1/responses: make, fetch, cancel and delete them, and list what they were made of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse

from octavo.server.chat import ChatTask, ChatTurn
from octavo.server.chat.prompt import chat_prompt
from octavo.server.errors import ApiError
from octavo.server.event_stream import EVENT_STREAM, EventStream, sse, until_disconnect
from octavo.server.protocol.responses import ResponseRequest
from octavo.server.responses import (
    ReplyForm,
    ResponseRun,
    StoredResponse,
    cancel,
    input_items,
    new_id,
    new_response,
    response_task,
    run_in_background,
)
from octavo.server.state import server_of
from octavo.server.whole_run import finish

if TYPE_CHECKING:
    from octavo.server.responses.items import Item
    from octavo.server.served_model import ServedModel
    from octavo.server.state import Server

__all__ = ["router"]

router = APIRouter(prefix="/v1/responses", tags=["responses"])

_USABLE = ("completed", "incomplete")
Conversation = tuple[tuple["Item", ...], tuple["Item", ...]]


@router.post("", response_model=None, responses=EVENT_STREAM)
async def create_response(body: ResponseRequest, request: Request) -> Any:
    """Make a response: whole, as a stream of events, or in the background."""
    server = server_of(request)
    model = server.model_for(body.model)
    earlier, given = _conversation(server, body)
    defaults = model.engine.info.default_sampling_params
    task = response_task(body, defaults, server.config, earlier, given)
    response = new_response(body, task, new_id("resp"), model.name)
    stored = StoredResponse(response, earlier, given)
    form = ReplyForm.of(body)
    if not (body.stream or body.background):
        made = _whole(server, model, task, stored, form)
        return JSONResponse(await until_disconnect(request, made))
    run = ResponseRun(await _open(model, task, stored.id), response, form)
    if response["store"]:
        server.responses.put(stored)
    if not body.background:
        return EventStream(_encoded(run), on_close=lambda: _end(server, stored, run))
    run_in_background(server, stored, run, keeps_events=bool(body.stream))
    if stored.log is not None:
        return EventStream(stored.log.follow())
    return JSONResponse(response)


@router.post("/input_tokens", response_model=None)
async def count_input_tokens(body: ResponseRequest, request: Request) -> Any:
    """How many tokens the prompt of such a response has."""
    server = server_of(request)
    model = server.model_for(body.model)
    earlier, given = _conversation(server, body)
    defaults = model.engine.info.default_sampling_params
    task = response_task(body, defaults, server.config, earlier, given)
    prompt = await chat_prompt(model, task)
    return {"object": "response.input_tokens", "input_tokens": len(prompt.token_ids)}


@router.get("/{response_id}", response_model=None, responses=EVENT_STREAM)
async def retrieve_response(
    response_id: str,
    request: Request,
    stream: bool = False,
    starting_after: Annotated[int, Query(ge=-1)] = -1,
) -> Any:
    """A stored response as it is now, or the events of one that is made in the background."""
    stored = server_of(request).responses.get(response_id)
    if not stream:
        return JSONResponse(stored.response)
    if stored.log is None:
        raise ApiError(
            "Only the events of responses made with background=true and stream=true are kept.",
            param="stream",
        )
    return EventStream(stored.log.follow(starting_after))


@router.post("/{response_id}/cancel", response_model=None)
async def cancel_response(response_id: str, request: Request) -> Any:
    """End a response that is made in the background; one that has ended stays as it is."""
    stored = server_of(request).responses.get(response_id)
    if not stored.response["background"]:
        raise ApiError(
            "Only responses made with background=true can be cancelled; any other ends when its "
            "connection is closed."
        )
    await cancel(stored)
    return JSONResponse(stored.response)


@router.delete("/{response_id}", response_model=None)
async def delete_response(response_id: str, request: Request) -> Any:
    """Forget a response; one that is still being made in the background is ended."""
    responses = server_of(request).responses
    stored = responses.get(response_id)
    await cancel(stored)
    responses.discard(response_id)
    return {"id": response_id, "object": "response", "deleted": True}


@router.get("/{response_id}/input_items", response_model=None)
async def list_input_items(
    response_id: str,
    request: Request,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
) -> Any:
    """The items that a response was given as input, the latest first."""
    items = list(server_of(request).responses.get(response_id).input_items)
    if order == "desc":
        items.reverse()
    ids = [item["id"] for item in items]
    if after is not None:
        if after not in ids:
            raise ApiError(
                f"No item with the id {after!r:.100} in this response's input.", param="after"
            )
        items = items[ids.index(after) + 1 :]
    page = items[:limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else "",
        "last_id": page[-1]["id"] if page else "",
        "has_more": len(items) > limit,
    }


def _conversation(server: Server, body: ResponseRequest) -> Conversation:
    """The items before, and those of the request."""
    earlier: tuple[Item, ...] = ()
    name = "previous_response_id"
    if body.previous_response_id is not None:
        previous = server.responses.get(body.previous_response_id, name)
        status = previous.response["status"]
        if status not in _USABLE:
            raise ApiError(
                f"The response {previous.id!r} is {status}: only one that has ended with an answer "
                "can be gone on from.",
                param=name,
            )
        earlier = previous.conversation
    return earlier, tuple(input_items(body, server.responses.item))


async def _open(model: ServedModel, task: ChatTask, response_id: str) -> ChatTurn:
    """Queue the request; what is wrong is told in this interface's names."""
    try:
        return await ChatTurn.open(model, task, response_id)
    except ApiError as error:
        for theirs, ours in _PARAMS.items():
            if error.param is not None and error.param.endswith(theirs):
                param = error.param.removesuffix(theirs) + ours
                error.message = error.message.replace(repr(error.param), repr(param))
                error.param = param
        raise


_PARAMS = {
    "messages": "input",
    ".function.parameters": ".parameters",
}
"""Parameters of chat completions, and what they are called here."""


async def _whole(
    server: Server, model: ServedModel, task: ChatTask, stored: StoredResponse, form: ReplyForm
) -> dict[str, Any]:
    """The response once it has ended; kept only then, as nobody knows its id before."""
    run = ResponseRun(await _open(model, task, stored.id), stored.response, form)
    await finish(run)
    if stored.response["store"]:
        server.responses.put(stored)
        server.responses.settle(stored)
    return stored.response


async def _encoded(run: ResponseRun) -> AsyncIterator[bytes]:
    async for event in run.events():
        yield sse(event, event["type"])


def _end(server: Server, stored: StoredResponse, run: ResponseRun) -> None:
    run.close()
    server.responses.settle(stored)
