"""Prompts in the forms that users send: text or token ids, checked and encoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from octavo.errors import CapacityError, UsageError

if TYPE_CHECKING:
    from octavo.completion import Vocabulary
    from octavo.sampling_params import SamplingParams

__all__ = ["Prompt", "check_text", "has_token_ids", "is_token_ids", "read_prompt"]

Prompt: TypeAlias = str | Sequence[int] | Mapping[str, Any]
"""Text, token ids, ``{"prompt": text}`` or ``{"prompt_token_ids": ids}`` (with or without text)."""

_KEYS = ("prompt", "prompt_token_ids")


def is_token_ids(prompt: object) -> bool:
    """Whether ``prompt`` is one prompt of token ids rather than a list of prompts."""
    return (
        isinstance(prompt, Sequence)
        and not isinstance(prompt, str | bytes)
        and len(prompt) > 0
        and all(isinstance(token_id, int) and not isinstance(token_id, bool) for token_id in prompt)
    )


def has_token_ids(prompt: Prompt) -> bool:
    """Whether ``read_prompt`` takes it as it is, without a tokenizer."""
    if isinstance(prompt, Mapping):
        return prompt.get("prompt_token_ids") is not None
    return not isinstance(prompt, str)


def read_prompt(
    prompt: Prompt, params: SamplingParams, vocabulary: Vocabulary, max_model_len: int
) -> tuple[str | None, list[int]]:
    """(text if there is any, token ids); raises UsageError for what cannot be a prompt."""
    text, token_ids = _text_and_ids(prompt)
    if token_ids is None:
        if vocabulary.tokenizer is None:
            raise UsageError("This engine has no tokenizer: pass token ids instead of text.")
        check_text("The prompt", text or "")
        token_ids = vocabulary.tokenizer.encode(text or "")
    if params.truncate_prompt_tokens is not None:
        keep = params.truncate_prompt_tokens
        token_ids = token_ids[-(max_model_len - 1 if keep == -1 else keep) :]
    _check_ids(token_ids, vocabulary.size)
    if len(token_ids) >= max_model_len:
        raise CapacityError(
            f"The prompt has {len(token_ids)} tokens, and the context holds {max_model_len}, of "
            "which at least one is for the answer. Shorten the prompt, set "
            "truncate_prompt_tokens, or raise max_model_len if the model allows it."
        )
    return text, token_ids


def check_text(name: str, text: str) -> None:
    """Raise UsageError for what no tokenizer can encode."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{name} holds a lone surrogate (at character {error.start}), which no text can have."
        ) from None


def _text_and_ids(prompt: Prompt) -> tuple[str | None, list[int] | None]:
    if isinstance(prompt, str):
        return prompt, None
    if isinstance(prompt, Mapping):
        unknown = [key for key in prompt if key not in _KEYS]
        if unknown or not prompt:
            raise UsageError(
                f"A prompt mapping has the keys {sorted(map(str, prompt))}; expected 'prompt' "
                "(text) or 'prompt_token_ids' (a list of token ids)."
            )
        ids, text = prompt.get("prompt_token_ids"), prompt.get("prompt")
        if text is not None and not isinstance(text, str):
            raise UsageError(f"'prompt' must be text, not {type(text).__name__}.")
        return text, None if ids is None else list(ids)
    if isinstance(prompt, Sequence) and not isinstance(prompt, bytes):
        return None, [*prompt]
    raise UsageError(
        f"A prompt of type {type(prompt).__name__} cannot be used: pass text, a list of token ids, "
        "or a mapping with 'prompt' or 'prompt_token_ids'."
    )


def _check_ids(token_ids: list[int], vocab_size: int) -> None:
    if not token_ids:
        raise UsageError("The prompt is empty: at least one token is needed to start from.")
    for position, token_id in enumerate(token_ids):
        if isinstance(token_id, bool) or not isinstance(token_id, int):
            raise UsageError(
                f"prompt_token_ids[{position}]={token_id!r} is not a token id (a whole number)."
            )
    if min(token_ids) < 0 or max(token_ids) >= vocab_size:
        bad = next(token_id for token_id in token_ids if not 0 <= token_id < vocab_size)
        raise UsageError(
            f"prompt_token_ids holds {bad}, outside this model's vocabulary of {vocab_size} tokens."
        )
