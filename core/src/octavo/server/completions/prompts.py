"""The prompts of a completion: one or many, as text or as token ids, checked and encoded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from octavo.server.errors import ApiError

if TYPE_CHECKING:
    from octavo.server.config import ServerConfig
    from octavo.server.served_model import ServedModel

__all__ = ["CompletionPrompt", "check_lengths", "read_prompts"]

_LONG_CHARS = 20_000  # more than this is encoded beside the event loop
_FORMS = "a string, a list of strings, a list of token ids or a list of lists of token ids"


@dataclass(frozen=True)
class CompletionPrompt:
    """One prompt."""

    text: str | None
    """As it was sent; None if it came as token ids."""
    token_ids: list[int]


async def read_prompts(
    value: Any, model: ServedModel, config: ServerConfig, *, add_special_tokens: bool
) -> list[CompletionPrompt]:
    """The prompts of a request's ``prompt``; raises ApiError for what is none.

    ``add_special_tokens`` is about text: whether its tokens begin as the model is used to.
    """
    prompts = _listed(value)
    if len(prompts) > config.max_choices:
        _refuse(
            f"prompt has {len(prompts)} prompts; this server takes at most {config.max_choices} in "
            "one request (--max-choices)."
        )
    if isinstance(prompts[0], str):
        return await _encoded(_checked_texts(prompts), model, add_special_tokens)
    vocab_size = model.engine.info.vocab_size
    return [
        CompletionPrompt(None, _checked_ids(token_ids, index, vocab_size))
        for index, token_ids in enumerate(prompts)
    ]


def _listed(value: Any) -> list[Any]:
    """The prompts as a list, whatever form they came in."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        _refuse(f"prompt is {_kind(value)}; expected {_FORMS}.")
    if not value:
        _refuse(f"prompt is an empty list; expected {_FORMS}.")
    first = value[0]
    if isinstance(first, str | list):
        return value
    return [value]


def _checked_texts(prompts: list[Any]) -> list[str]:
    for index, text in enumerate(prompts):
        if not isinstance(text, str):
            _refuse(f"prompt[{index}] is {_kind(text)} where others are text; expected {_FORMS}.")
        if not text:
            _refuse(
                "prompt is empty: at least one token is needed to start from."
                if len(prompts) == 1
                else f"prompt[{index}] is empty: at least one token is needed to start from."
            )
    return prompts


async def _encoded(
    texts: list[str], model: ServedModel, add_special_tokens: bool
) -> list[CompletionPrompt]:
    tokenizer = model.require_tokenizer()

    def encode() -> list[list[int]]:
        return tokenizer.encode_batch(texts, add_special_tokens=add_special_tokens)

    is_long = sum(map(len, texts)) > _LONG_CHARS
    encoded = await asyncio.to_thread(encode) if is_long else encode()
    for text, token_ids in zip(texts, encoded, strict=True):
        if not token_ids:
            _refuse(f"The prompt {text!r:.100} has no tokens: at least one is needed.")
    return [*map(CompletionPrompt, texts, encoded)]


def _checked_ids(token_ids: Any, index: int, vocab_size: int) -> list[int]:
    if not isinstance(token_ids, list):
        _refuse(
            f"prompt[{index}] is {_kind(token_ids)} where others are lists of token ids; expected "
            f"{_FORMS}."
        )
    if not token_ids:
        _refuse(f"prompt[{index}] is an empty list: at least one token is needed to start from.")
    if set(map(type, token_ids)) != {int}:
        position, wrong = next(
            (position, item) for position, item in enumerate(token_ids) if type(item) is not int
        )
        _refuse(f"The prompt has {_kind(wrong)} at {position} where token ids are; no mixture.")
    if min(token_ids) < 0 or max(token_ids) >= vocab_size:
        wrong = next(token_id for token_id in token_ids if not 0 <= token_id < vocab_size)
        _refuse(
            f"The prompt holds the token id {wrong}, outside this model's vocabulary of "
            f"{vocab_size} tokens."
        )
    return token_ids


_KINDS = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number with a point",
    str: "text",
    list: "a list",
    dict: "an object",
}


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), type(value).__name__)


def _refuse(message: str) -> NoReturn:
    raise ApiError(message, param="prompt", code="invalid_value")


def check_lengths(
    prompts: Sequence[CompletionPrompt], config: ServerConfig, truncate_to: int | None
) -> None:
    """Raise ApiError for a prompt with more tokens than this server takes.

    ``truncate_to`` is the request's truncate_prompt_tokens: with -1 the context's length counts.
    """
    limit = config.max_prompt_tokens
    if limit is None or (truncate_to is not None and 0 < truncate_to <= limit):
        return
    longest = max(len(prompt.token_ids) for prompt in prompts)
    if longest > limit:
        raise ApiError(
            f"The prompt has {longest} tokens; this server takes at most {limit} "
            "(--max-prompt-tokens). Shorten it, or set truncate_prompt_tokens.",
            param="prompt",
            code="context_length_exceeded",
        )
