"""The sampling parameters of a request, in OpenAI's names and vLLM's."""

from __future__ import annotations

import dataclasses
from typing import Any

from pydantic import Field

from octavo.errors import UsageError
from octavo.sampling_params import SamplingParams
from octavo.server.errors import ApiError, api_error_of
from octavo.server.validation import StrictBody

__all__ = ["SamplingFields"]

_MAX_STOPS = 64
_MAX_IDS = 4096


class SamplingFields(StrictBody):
    """What chat completions and completions have in common; null is as good as left out."""

    temperature: float | None = None
    top_p: float | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = Field(None, max_length=_MAX_IDS)

    top_k: int | None = Field(None, description="Octavo's and vLLM's; 0 or -1: off.")
    min_p: float | None = None
    repetition_penalty: float | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    stop_token_ids: list[int] | None = Field(None, max_length=_MAX_IDS)
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    allowed_token_ids: list[int] | None = None
    bad_words: list[str] | None = Field(None, max_length=_MAX_IDS)
    truncate_prompt_tokens: int | None = None
    prompt_logprobs: int | None = None
    structured_outputs: dict[str, Any] | None = Field(
        None, description="One of json, regex, choice, grammar, json_object, structural_tag."
    )
    priority: int | None = Field(None, description="Lower runs first, with --scheduling-policy.")
    cache_salt: str | None = Field(None, description="Shares cached prefixes with its like only.")

    def sampling_params(self, defaults: SamplingParams, **more: Any) -> SamplingParams:
        """The model's defaults, with what the request sets on top and ``more`` on top of that.

        Raises ApiError that names the parameter at fault.
        """
        given = {name: getattr(self, name) for name in _PARAMETERS}
        values = {name: value for name, value in given.items() if value is not None}
        if self.logit_bias is not None:
            values["logit_bias"] = _by_token_id(self.logit_bias)
        if isinstance(self.stop, list) and len(self.stop) > _MAX_STOPS:
            raise ApiError(
                f"stop has {len(self.stop)} strings; at most {_MAX_STOPS} are taken.", param="stop"
            )
        values |= more
        try:
            return dataclasses.replace(defaults, **values)
        except UsageError as error:
            raise api_error_of(error, _named_in(str(error), values)) from error


_SAMPLING_NAMES = {field.name for field in dataclasses.fields(SamplingParams)}
_PARAMETERS = tuple(
    name for name in SamplingFields.model_fields if name in _SAMPLING_NAMES and name != "logit_bias"
)


def _by_token_id(logit_bias: dict[str, float]) -> dict[int, float]:
    if not all(token_id.isascii() and token_id.isdigit() for token_id in logit_bias):
        raise ApiError(
            "logit_bias has a key that is not a token id; expected whole numbers as text, such as "
            '{"1234": -100}.',
            param="logit_bias",
        )
    return {int(token_id): bias for token_id, bias in logit_bias.items()}


def _named_in(message: str, values: dict[str, Any]) -> str | None:
    """The parameter that an error begins with."""
    word = message.replace("=", " ").replace("[", " ").replace(".", " ").split(" ", 1)[0]
    return word if word in values else None
