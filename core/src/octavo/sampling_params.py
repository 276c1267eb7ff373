"""SamplingParams: how one request's tokens are chosen, when it ends and what it returns.

Names, defaults and refusals are vLLM's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import TYPE_CHECKING, Any

from octavo.errors import UsageError
from octavo.sampling_checks import (
    checked_bool,
    checked_float,
    checked_int,
    checked_logit_bias,
    checked_strings,
    checked_token_ids,
    refuse_outside_vocabulary,
)
from octavo.structured.params import StructuredOutputs, checked_structured_outputs
from octavo.suggest import choices, did_you_mean

if TYPE_CHECKING:
    from octavo.structured.parts import AnswerGrammar

__all__ = ["RequestOutputKind", "SamplingParams"]

_log = logging.getLogger(__name__)

_MIN_TEMPERATURE = 0.01
_MAX_ANSWERS = 16_384
_INT64 = (-(2**63), 2**63 - 1)
_INT32_MAX = 2**31 - 1
_NOT_YET = ("thinking_token_budget",)
_BOOLEANS = (
    "ignore_eos",
    "detokenize",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "include_stop_str_in_output",
)
_FROM_GENERATION_CONFIG = {
    "repetition_penalty": "repetition_penalty",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "max_new_tokens": "max_tokens",
}


class RequestOutputKind(Enum):
    """What each output of a streamed request holds."""

    CUMULATIVE = 0  # everything so far
    DELTA = 1  # only what is new
    FINAL_ONLY = 2  # nothing before the end


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """Sampling parameters of one request; validated when made, and never changed afterwards.

    Sequences may be given as any sequence or as None, ``stop`` as one string too; they are tuples
    afterwards. With temperature 0, sampling is greedy and top_p, top_k and min_p are off.
    """

    n: int = 1
    """Answers to the prompt."""
    presence_penalty: float = 0.0
    """Subtracted from the logit of every token in the output so far; -2 to 2."""
    frequency_penalty: float = 0.0
    """The same, times how often the token is in the output; -2 to 2."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens in prompt and output; 1e-6 to 1e6,
    beyond which float32 logits would overflow."""
    temperature: float = 1.0
    """0 is greedy; at most 2."""
    top_p: float = 1.0
    """Keep the likeliest tokens that together reach this probability; in (0, 1]."""
    top_k: int = 0
    """Keep the k likeliest tokens; 0 or -1 keeps all."""
    min_p: float = 0.0
    """Keep tokens at least this likely relative to the likeliest; in [0, 1]."""
    seed: int | None = None
    """The same seed gives the same tokens from the same logits; None or -1: the engine's."""
    stop: Sequence[str] = ()
    """Strings that end the answer; it does not contain them unless asked to."""
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    max_tokens: int | None = 16
    """None: until the context is full."""
    min_tokens: int = 0
    """No end-of-sequence and no stop token before so many tokens."""
    logprobs: int | None = None
    """How many of the likeliest tokens to report beside the chosen one; -1: the vocabulary."""
    prompt_logprobs: int | None = None
    """The same, for each token of the prompt."""
    detokenize: bool = True
    skip_special_tokens: bool = True
    kept_special_tokens: Sequence[int] = ()
    """Of the special tokens those that the text has even so: marks of calls and of reasoning."""
    spaces_between_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE
    logit_bias: Mapping[int, float] | None = field(default=None, hash=False)
    """Added to logits by token id; values beyond -100 and 100 are clamped."""
    allowed_token_ids: Sequence[int] | None = None
    bad_words: Sequence[str] = ()
    """Text whose last token is banned wherever it would complete it."""
    truncate_prompt_tokens: int | None = None
    """Keep only so many tokens at the prompt's end; -1: what the context holds."""
    structured_outputs: StructuredOutputs | AnswerGrammar | Mapping[str, Any] | None = field(
        default=None, hash=False
    )
    """What the answer must look like: one of json, regex, choice, grammar, json_object,
    structural_tag. Where it is complete and nothing may follow, the answer ends."""
    thinking_token_budget: int | None = None
    """Not there yet; refused."""

    def __post_init__(self) -> None:
        for name in _NOT_YET:
            if getattr(self, name) is not None:
                raise UsageError(
                    f"{name} is not supported yet, and ignoring it would change the answer. "
                    "Leave it out."
                )
        self._check_numbers()
        self._check_counts()
        self._check_stops()
        self._check_tokens()
        self._set("structured_outputs", checked_structured_outputs)
        self._normalise_temperature()

    @classmethod
    def from_generation_config(
        cls, generation_config: Mapping[str, Any], **overrides: Any
    ) -> SamplingParams:
        """A model's own defaults (generation_config.json), with ``overrides`` on top.

        Of the file, the six settings that vLLM takes count; end-of-sequence tokens are the
        engine's matter.
        """
        known = {parameter.name for parameter in fields(cls)}
        for name in overrides:
            if name not in known:
                raise UsageError(
                    f"There is no sampling parameter {name!r}.{did_you_mean(name, known)} "
                    f"Known: {choices(sorted(known))}."
                )
        defaults = {
            parameter: generation_config[key]
            for key, parameter in _FROM_GENERATION_CONFIG.items()
            if generation_config.get(key) is not None
        }
        return cls(**{**defaults, **overrides})

    @property
    def is_greedy(self) -> bool:
        """The likeliest token each time, no draw."""
        return self.temperature == 0.0

    def validated_for(self, vocab_size: int, max_logprobs: int) -> SamplingParams:
        """These parameters, if a model of ``vocab_size`` tokens can serve them.

        ``max_logprobs`` is the engine's limit on logprobs and prompt_logprobs, -1 for none.
        """
        limit = vocab_size if max_logprobs == -1 else max_logprobs
        for name in ("logprobs", "prompt_logprobs"):
            value = getattr(self, name)
            wanted = vocab_size if value == -1 else value or 0
            if wanted > limit:
                raise UsageError(
                    f"{name}={value} asks for {wanted} tokens, more than this engine's limit "
                    f"max_logprobs={max_logprobs}. Ask for fewer, or start it with a higher limit."
                )
        for name in ("stop_token_ids", "kept_special_tokens", "allowed_token_ids", "logit_bias"):
            refuse_outside_vocabulary(name, getattr(self, name) or (), vocab_size)
        return self

    def _check_numbers(self) -> None:
        self._set("presence_penalty", checked_float, low=-2.0, high=2.0)
        self._set("frequency_penalty", checked_float, low=-2.0, high=2.0)
        self._set("repetition_penalty", checked_float, low=1e-6, high=1e6)
        self._set("temperature", checked_float, low=0.0, high=2.0)
        self._set("top_p", checked_float, above=0.0, high=1.0)
        self._set("min_p", checked_float, low=0.0, high=1.0)

    def _check_counts(self) -> None:
        self._set("n", checked_int, low=1, high=_MAX_ANSWERS)
        self._set("top_k", checked_int, low=-1, high=_INT32_MAX)
        self._set("min_tokens", checked_int, low=0, high=_INT32_MAX)
        self._set("max_tokens", checked_int, low=1, high=_INT32_MAX, optional=True)
        self._set("logprobs", checked_int, low=-1, high=_INT32_MAX, optional=True)
        self._set("prompt_logprobs", checked_int, low=-1, high=_INT32_MAX, optional=True)
        self._set("truncate_prompt_tokens", checked_int, low=-1, high=_INT32_MAX, optional=True)
        self._set("seed", checked_int, low=_INT64[0], high=_INT64[1], optional=True)
        if self.truncate_prompt_tokens == 0:
            raise UsageError("truncate_prompt_tokens=0 would leave no prompt; use -1 or at least 1")
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise UsageError(
                f"min_tokens={self.min_tokens} is more than max_tokens={self.max_tokens}; "
                "lower the one or raise the other."
            )
        if self.top_k == -1:
            self._replace("top_k", 0)
        if self.seed == -1:
            self._replace("seed", None)

    def _check_stops(self) -> None:
        for name in _BOOLEANS:
            self._set(name, checked_bool)
        self._set("stop", checked_strings)
        self._set("bad_words", checked_strings)
        if self.stop and not self.detokenize:
            raise UsageError(
                f"stop={list(self.stop)} needs text to search; set detokenize=True, or use "
                "stop_token_ids."
            )
        if not isinstance(self.output_kind, RequestOutputKind):
            raise UsageError(
                f"output_kind={self.output_kind!r} is not a RequestOutputKind; choose from "
                f"{choices(str(kind) for kind in RequestOutputKind)}."
            )

    def _check_tokens(self) -> None:
        self._set("stop_token_ids", checked_token_ids)
        self._set("kept_special_tokens", checked_token_ids)
        self._set("logit_bias", checked_logit_bias)
        if self.allowed_token_ids is not None:
            self._set("allowed_token_ids", checked_token_ids)
            if not self.allowed_token_ids:
                raise UsageError("allowed_token_ids is empty, so that no token could be chosen.")

    def _normalise_temperature(self) -> None:
        if self.is_greedy:
            if self.n > 1:
                raise UsageError(
                    f"n must be 1 when using greedy sampling, got {self.n}: all answers would be "
                    "the same. Set temperature above 0."
                )
            for name, off in (("top_p", 1.0), ("top_k", 0), ("min_p", 0.0)):
                self._replace(name, off)
        elif self.temperature < _MIN_TEMPERATURE:
            _log.warning(
                "temperature=%g is raised to %g, below which probabilities lose their meaning; "
                "use 0 for greedy sampling.",
                self.temperature,
                _MIN_TEMPERATURE,
            )
            self._replace("temperature", _MIN_TEMPERATURE)

    def _set(self, name: str, check: Any, **limits: Any) -> None:
        self._replace(name, check(name, getattr(self, name), **limits))

    def _replace(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # frozen for everyone else
