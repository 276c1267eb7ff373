"""POST /tokenize and /detokenize, as vLLM has them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from octavo.errors import UsageError
from octavo.sampling_params import SamplingParams
from octavo.server.chat.prompt import chat_prompt
from octavo.server.chat_completions import chat_task
from octavo.server.errors import ApiError
from octavo.server.protocol.chat import ChatRequest
from octavo.server.protocol.tokenize import MAX_CHARS, DetokenizeRequest, TokenizeRequest
from octavo.server.state import server_of

if TYPE_CHECKING:
    from octavo.server.config import ServerConfig
    from octavo.server.served_model import ServedModel
    from octavo.tokenizer import Tokenizer

__all__ = ["router"]

router = APIRouter(tags=["tokens"])

_CHAT_FIELDS = (
    "messages",
    "tools",
    "add_generation_prompt",
    "continue_final_message",
    "add_special_tokens",
    "chat_template",
    "chat_template_kwargs",
)
_LONG_CHARS = 20_000  # more than this is done beside the event loop
_LONG_TOKENS = 5_000
_ID_DIGITS = 20


@router.post("/tokenize", response_class=Response)
async def tokenize(body: TokenizeRequest, request: Request) -> Response:
    """The tokens of a text, or of the prompt that a chat becomes: those a completion would get."""
    server = server_of(request)
    model = server.models.find(body.model)
    tokenizer = model.require_tokenizer()
    token_ids = await (
        _text_ids(tokenizer, body) if _has_prompt(body) else _chat_ids(model, body, server.config)
    )
    head = {"count": len(token_ids), "max_model_len": model.engine.info.max_model_len}

    def answer() -> bytes:
        spelled = (
            [tokenizer.id_to_token(token_id) for token_id in token_ids]
            if body.return_token_strs
            else None
        )
        return _json({**head, "tokens": token_ids, "token_strs": spelled})

    text = await asyncio.to_thread(answer) if len(token_ids) > _LONG_TOKENS else answer()
    return Response(text, media_type="application/json")


@router.post("/detokenize", response_class=Response)
async def detokenize(body: DetokenizeRequest, request: Request) -> Response:
    """The text of tokens, special ones included."""
    model = server_of(request).models.find(body.model)
    tokenizer = model.require_tokenizer()
    _check_known(body.tokens, max(model.engine.info.vocab_size, tokenizer.vocab_size))

    def text() -> str:
        return tokenizer.decode(body.tokens, skip_special_tokens=False)

    is_long = len(body.tokens) > _LONG_TOKENS
    return JSONResponse({"prompt": await asyncio.to_thread(text) if is_long else text()})


def _has_prompt(body: TokenizeRequest) -> bool:
    """Whether there is a text rather than a chat; raises ApiError unless there is one of them."""
    if (body.prompt is None) == (body.messages is None):
        found = "both" if body.prompt is not None else "neither"
        raise ApiError(
            f"Tokenizing takes a prompt (text) or messages (a chat), and there are {found}.",
            param="prompt",
            code="missing_required_parameter" if found == "neither" else None,
        )
    if body.messages is not None:
        return False
    for name in _CHAT_FIELDS:
        if name != "add_special_tokens" and getattr(body, name) is not None:
            raise ApiError(f"{name} goes with messages, not with a prompt.", param=name)
    return True


async def _text_ids(tokenizer: Tokenizer, body: TokenizeRequest) -> list[int]:
    text, adds_special_tokens = body.prompt or "", body.add_special_tokens is not False

    def ids() -> list[int]:
        return tokenizer.encode(text, add_special_tokens=adds_special_tokens)

    try:
        return await asyncio.to_thread(ids) if len(text) > _LONG_CHARS else ids()
    except UsageError as error:
        raise ApiError(str(error), param="prompt") from error


async def _chat_ids(model: ServedModel, body: TokenizeRequest, config: ServerConfig) -> list[int]:
    """Read as a chat completion's request, so that the tokens are those of its prompt."""
    chat = ChatRequest.model_construct(**{name: getattr(body, name) for name in _CHAT_FIELDS})
    task = chat_task(chat, SamplingParams(), config)
    num_chars = sum(len(str(message.get("content"))) for message in task.messages)
    if num_chars > MAX_CHARS:
        raise ApiError(
            f"The messages have {num_chars:,} characters; up to {MAX_CHARS:,} are tokenized.",
            param="messages",
        )
    return (await chat_prompt(model, task)).token_ids


def _check_known(token_ids: Sequence[int], vocab_size: int) -> None:
    if not token_ids or max(token_ids) < vocab_size:
        return
    bad = next(index for index, token_id in enumerate(token_ids) if token_id >= vocab_size)
    raise ApiError(
        f"tokens[{bad}]={str(token_ids[bad])[:_ID_DIGITS]} is outside of the model's vocabulary of "
        f"{vocab_size} tokens.",
        param=f"tokens[{bad}]",
    )


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
