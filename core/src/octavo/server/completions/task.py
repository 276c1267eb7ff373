"""What a completion's request asks for: of the engine, and of the answer's form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from octavo.server.chat_completions.response_format import content_form
from octavo.server.errors import ApiError

if TYPE_CHECKING:
    from octavo.sampling_params import SamplingParams
    from octavo.server.config import ServerConfig
    from octavo.server.protocol.completions import CompletionRequest

__all__ = ["CompletionTask", "completion_task"]

_DEFAULT_MAX_TOKENS = 16


@dataclass(frozen=True, kw_only=True)
class CompletionTask:
    """The same for every prompt of a request."""

    params: SamplingParams
    """As the engine gets them: ``n`` counts the answers it makes."""
    num_choices: int
    """How many answers to a prompt are returned."""
    is_scoring: bool
    """No answer is wanted, only the prompt: the one token that the engine makes is dropped."""
    echo: bool
    num_logprobs: int | None
    """Likeliest tokens listed beside the chosen one; -1: all; None: no log-probabilities."""
    has_prompt_logprobs: bool
    """vLLM's list of the prompt's log-probabilities is wanted."""
    shows_token_ids: bool
    names_tokens_by_id: bool
    form_parameter: str
    """By which parameter the answer's form was asked for, if it was."""
    priority: int
    cache_salt: str | None
    has_usage: bool
    """The stream ends with the usage."""
    has_continuous_usage: bool
    """Each chunk has the usage so far."""

    @property
    def picks_best(self) -> bool:
        """Whether more answers are made than returned."""
        return not self.is_scoring and self.params.n > self.num_choices


def completion_task(
    body: CompletionRequest, defaults: SamplingParams, config: ServerConfig
) -> CompletionTask:
    """Read a request; ``defaults`` are the model's. Raises ApiError."""
    _check_refused(body)
    _check_stream(body)
    max_tokens = _max_tokens(body)
    num_choices, num_answers = _num_answers(body, defaults, config)
    is_scoring = max_tokens == 0
    options = body.stream_options
    params = body.sampling_params(
        defaults,
        n=1 if is_scoring else num_answers,
        max_tokens=max_tokens or 1,
        logprobs=_answer_logprobs(body, picks_best=num_answers > num_choices),
        prompt_logprobs=_prompt_logprobs(body),
        structured_outputs=content_form(body),
    )
    return CompletionTask(
        params=params,
        num_choices=num_choices,
        is_scoring=is_scoring,
        echo=bool(body.echo),
        num_logprobs=body.logprobs,
        has_prompt_logprobs=body.prompt_logprobs is not None,
        shows_token_ids=bool(body.return_token_ids),
        names_tokens_by_id=bool(body.return_tokens_as_token_ids),
        form_parameter=(
            "structured_outputs" if body.response_format is None else "response_format"
        ),
        priority=body.priority or 0,
        cache_salt=body.cache_salt,
        has_usage=options is not None and bool(options.include_usage),
        has_continuous_usage=options is not None and bool(options.continuous_usage_stats),
    )


def _check_refused(body: CompletionRequest) -> None:
    if body.suffix:
        raise ApiError(
            "suffix cannot be used: this server only goes on behind a prompt. For a model that "
            "fills gaps, write its own marks (such as <|fim_suffix|>) into the prompt.",
            param="suffix",
        )


def _check_stream(body: CompletionRequest) -> None:
    if not body.stream:
        if body.stream_options is not None:
            raise ApiError(
                "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
                param="stream_options",
            )
        return
    if body.prompt_logprobs is not None:
        raise ApiError(
            "prompt_logprobs cannot be streamed. Leave stream out, or use echo with logprobs.",
            param="prompt_logprobs",
        )
    if body.best_of is not None and body.best_of > (body.n or 1):
        raise ApiError(
            f"best_of={body.best_of} cannot be streamed: which answers are best is known once all "
            "have ended. Leave stream out, or best_of.",
            param="best_of",
        )


def _max_tokens(body: CompletionRequest) -> int:
    old, new = body.max_tokens, body.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise ApiError(
            f"max_tokens={old} and max_completion_tokens={new} are two names of one limit. Give "
            "only max_tokens.",
            param="max_completion_tokens",
        )
    max_tokens = next((value for value in (old, new) if value is not None), _DEFAULT_MAX_TOKENS)
    name = "max_tokens" if new is None else "max_completion_tokens"
    if max_tokens < 0:
        raise ApiError(f"{name}={max_tokens} must be at least 0.", param=name)
    if max_tokens == 0 and body.min_tokens:
        raise ApiError(
            f"min_tokens={body.min_tokens} is more than {name}=0; lower the one or raise the "
            "other.",
            param="min_tokens",
        )
    return max_tokens


def _num_answers(
    body: CompletionRequest, defaults: SamplingParams, config: ServerConfig
) -> tuple[int, int]:
    """(answers returned, answers made)."""
    num_choices = 1 if body.n is None else body.n
    num_answers = num_choices if body.best_of is None else body.best_of
    for name, value in (("n", num_choices), ("best_of", num_answers)):
        if not 1 <= value <= config.max_choices:
            raise ApiError(
                f"{name}={value} must be between 1 and {config.max_choices}, the most answers that "
                "this server gives to a prompt (--max-choices).",
                param=name,
            )
    if num_answers < num_choices:
        raise ApiError(
            f"best_of={num_answers} is less than n={num_choices}: more answers cannot be picked "
            "than are made.",
            param="best_of",
        )
    temperature = defaults.temperature if body.temperature is None else body.temperature
    if num_answers > 1 and temperature == 0 and body.max_tokens != 0:
        name = "best_of" if num_answers > num_choices else "n"
        raise ApiError(
            f"{name}={num_answers} with temperature=0: all answers would be the same. Set "
            "temperature above 0, or ask for one.",
            param=name,
        )
    return num_choices, num_answers


def _answer_logprobs(body: CompletionRequest, *, picks_best: bool) -> int | None:
    """To pick the best answers, their own log-probabilities are needed."""
    return 0 if body.logprobs is None and picks_best else body.logprobs


def _prompt_logprobs(body: CompletionRequest) -> int | None:
    """An echoed prompt has log-probabilities as an answer has."""
    wanted = [body.prompt_logprobs]
    if body.echo:
        wanted.append(body.logprobs)
    given = [value for value in wanted if value is not None]
    return -1 if -1 in given else max(given, default=None)
