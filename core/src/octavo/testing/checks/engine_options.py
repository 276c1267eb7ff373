"""Every sampling option holds end to end: alone, whatever ran before, and beside all others.

What is static in a step (how many log-probabilities, whether anything is drawn, adjusted or
truncated) changes from request to request here, while the shapes stay the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from octavo.testing.answers import Answer, generate, greedy
from octavo.testing.check import Check, CheckFailure
from octavo.testing.family_answers import Precision
from octavo.testing.family_vectors import family_vectors
from octavo.testing.option_oracle import first_disallowed
from octavo.testing.tiny_models import TINY_MODELS, VOCAB_SIZE

if TYPE_CHECKING:
    from octavo.sampling_params import SamplingParams
    from octavo.testing.subject import Subject

__all__ = ["OPTIONS"]

_MODEL = "llama"
_PROMPT_LEN = 6
_NUM_NEW_TOKENS = 4
_FAVOURITE = 5  # a token that a bias makes the likeliest

_DRAWN: dict[str, Any] = {"temperature": 1.0, "seed": 11}
_TABLE: Mapping[str, Mapping[str, Any]] = {
    "no log-probabilities": {"logprobs": None},  # first: no later step may go without, too
    "greedy": {},
    "drawn": _DRAWN,
    "the 3 likeliest": {"logprobs": 3},
    "logit_bias": {"logit_bias": {_FAVOURITE: 10.0}},
    "drawn, no log-probabilities": {**_DRAWN, "logprobs": None},
    "allowed_token_ids": {"allowed_token_ids": [3, 50, 200]},
    "drawn, top_k": {**_DRAWN, "temperature": 1.5, "top_k": 3},
    "penalties": {
        "presence_penalty": 1.0,
        "frequency_penalty": 0.5,
        "logit_bias": {_FAVOURITE: 6.0},
    },
    "drawn, top_p": {**_DRAWN, "top_p": 0.2},
    "drawn, min_p": {**_DRAWN, "min_p": 0.5},
}


def _run(subject: Subject, _value: None) -> None:
    vector, precision = family_vectors()[_MODEL], Precision.best(subject.caps)
    prompt = vector.prompt[:_PROMPT_LEN]
    table = {
        name: greedy(_NUM_NEW_TOKENS, **{"logprobs": VOCAB_SIZE, **options})
        for name, options in _TABLE.items()
    }
    with subject.engine(
        TINY_MODELS[_MODEL].config,
        seed=vector.seed,
        dtype=precision.dtype,
        kv_cache_dtype=precision.kv_dtype,
        max_num_seqs=len(table),
        max_num_batched_tokens=2 * _PROMPT_LEN * len(table),
        max_logprobs=VOCAB_SIZE,
    ) as loaded:
        alone = [generate(loaded, [prompt], params)[0] for params in table.values()]
        _compare(table, alone, "one request after the other")
        together = generate(loaded, [prompt] * len(table), list(table.values()))
        _compare(table, together, "all requests at once")


def _compare(
    table: Mapping[str, SamplingParams], answers: Sequence[Answer], situation: str
) -> None:
    found = dict(zip(table, answers, strict=True))
    for name, answer in found.items():
        problem = _problem(name, answer, table[name], found)
        if problem is not None:
            raise CheckFailure(f"Option {name!r} ({situation}): {problem}.")


def _problem(
    name: str, answer: Answer, params: SamplingParams, found: Mapping[str, Answer]
) -> str | None:
    if answer.error is not None:
        return f"the engine ended the request: {answer.error}"
    if params.logprobs == VOCAB_SIZE:
        return first_disallowed(answer, params, VOCAB_SIZE) or _sameness(name, found)
    whole = found["drawn" if params.temperature else "greedy"]
    if answer.token_ids != whole.token_ids:
        return (
            f"the tokens are {list(answer.token_ids)}, but {list(whole.token_ids)} when the "
            "log-probabilities of the whole vocabulary are asked for"
        )
    return _wrong_likeliest(answer, params.logprobs, whole)


def _sameness(name: str, found: Mapping[str, Answer]) -> str | None:
    """Draws among 256 tokens, none of them likely, are not the likeliest each time."""
    if name == "drawn" and found["drawn"].token_ids == found["greedy"].token_ids:
        return "the tokens are the greedy ones, so nothing was drawn"
    return None


def _wrong_likeliest(answer: Answer, count: int | None, whole: Answer) -> str | None:
    for place, (some, everything) in enumerate(
        zip(answer.likeliest, whole.likeliest, strict=False)
    ):
        best = sorted(everything.values(), reverse=True)[: count or 0]
        if len(some) != len(best):
            return f"token {place} came with {len(some)} log-probabilities, expected {count}"
        ordered = sorted(some.values(), reverse=True)
        gap = max(abs(one - other) for one, other in zip(ordered, best, strict=True))
        if not gap <= 1e-3:
            return f"the likeliest at token {place} are {ordered}, expected {best}"
    return None


OPTIONS = Check(
    section="engine",
    name="options",
    about="each sampling option holds in any company and in any order of requests",
    look="backend.compile (are the static fields of SamplingBatch part of its key?), ops.sample",
    run=_run,
)
