"""Runs requests through an engine to the end and keeps what checks compare: tokens and numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from octavo.sampling_params import SamplingParams

if TYPE_CHECKING:
    from octavo.engine import Engine
    from octavo.engine_loader import LoadedEngine
    from octavo.outputs import Logprob, RequestOutput

__all__ = ["Answer", "answers_of", "generate", "greedy", "run_all"]

_MAX_STEPS = 10_000  # far more than tiny requests take: an engine that never ends is at fault


@dataclass(frozen=True)
class Answer:
    """One completion; log-probabilities only where they were asked for."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    """Of each token."""
    likeliest: tuple[Mapping[int, float], ...] = ()
    """For each token, the log-probabilities of the likeliest and of itself, by token id."""
    prompt_logprobs: tuple[float, ...] = ()
    """Of each token of the prompt but the first."""
    finish_reason: str | None = None
    error: str | None = None


def greedy(max_tokens: int = 16, **options: Any) -> SamplingParams:
    """The likeliest token each time, with its log-probability, up to ``max_tokens``."""
    defaults: dict[str, Any] = {"temperature": 0.0, "logprobs": 0, "ignore_eos": True}
    return SamplingParams(max_tokens=max_tokens, **{**defaults, **options})


def generate(
    loaded: LoadedEngine,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams | Sequence[SamplingParams] | None = None,
    *,
    steps_apart: int = 0,
) -> list[Answer]:
    """All prompts together, each to its end; with n > 1, n answers in a row for each.

    ``params`` are for all prompts, or one for each; None is ``greedy()``. Each prompt comes
    ``steps_apart`` steps after the one before it.
    Raises RuntimeError if the engine still has requests after ten thousand steps.
    """
    if params is None or isinstance(params, SamplingParams):
        params = [params or greedy()] * len(prompts)
    engine = loaded.engine
    outputs: dict[str, RequestOutput] = {}
    for index, (prompt, prompt_params) in enumerate(zip(prompts, params, strict=True)):
        engine.add_request(str(index), list(prompt), prompt_params)
        for _ in range(steps_apart):
            outputs.update({output.request_id: output for output in engine.step()})
    outputs.update(*run_all([engine]))
    return [answer for index in range(len(prompts)) for answer in answers_of(outputs[str(index)])]


def run_all(engines: Sequence[Engine]) -> list[dict[str, RequestOutput]]:
    """Let the engines take turns, step by step, until none has anything left to do.

    The last output of each request by its id, for each engine. What a step raises is raised here,
    although the engine would compute its requests again. RuntimeError as in ``generate``.
    """
    outputs: list[dict[str, RequestOutput]] = [{} for _ in engines]
    raised: list[Exception] = []
    with ExitStack() as stack:
        for engine in engines:
            stack.enter_context(_recorded(engine, raised))
        for _ in range(_MAX_STEPS):
            if not any(engine.has_unfinished_requests for engine in engines):
                return outputs
            for engine, last in zip(engines, outputs, strict=True):
                if engine.has_unfinished_requests:
                    last.update({output.request_id: output for output in engine.step()})
            if raised:
                raise raised[0]
    num_unfinished = sum(engine.num_unfinished_requests for engine in engines)
    raise RuntimeError(
        f"{num_unfinished} requests are unfinished after {_MAX_STEPS} steps; requests of a few "
        "tokens must have ended."
    )


@contextmanager
def _recorded(engine: Engine, raised: list[Exception]) -> Iterator[None]:
    """Note what steps raise: the engine recovers from it, and a right backend does not need to."""
    runner: Any = engine.runner
    members = ("launch", "wait")

    def noting(member: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            try:
                return member(*arguments, **keywords)
            except Exception as error:
                raised.append(error)
                raise

        return call

    for name in members:
        setattr(runner, name, noting(getattr(runner, name)))
    try:
        yield
    finally:
        for name in members:
            delattr(runner, name)  # the method of the class shows again


def answers_of(output: RequestOutput) -> list[Answer]:
    """The n answers of one finished request."""
    prompt = zip(output.prompt_token_ids, output.prompt_logprobs or (), strict=False)
    prompt_logprobs = tuple(entry[token].logprob for token, entry in prompt if entry is not None)
    return [
        Answer(
            token_ids=tuple(completion.token_ids),
            logprobs=tuple(
                entry[token].logprob
                for token, entry in zip(
                    completion.token_ids, completion.logprobs or (), strict=False
                )
            ),
            likeliest=tuple(map(_plain, completion.logprobs or ())),
            prompt_logprobs=prompt_logprobs,
            finish_reason=completion.finish_reason,
            error=output.error,
        )
        for completion in output.outputs
    ]


def _plain(entry: Mapping[int, Logprob]) -> dict[int, float]:
    return {token_id: logprob.logprob for token_id, logprob in entry.items()}
