"""Checks of all that is random: the draws, what the sampler makes of them, and log-probabilities.

Whoever draws like this answers a seed with the same tokens as every other backend.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octavo import philox
from octavo.ops.protocol import SampleResult
from octavo.sampling_params import SamplingParams
from octavo.step import map_arrays
from octavo.testing.answers import Answer, generate
from octavo.testing.check import Case, Check, CheckFailure
from octavo.testing.philox_reference import reference_draw
from octavo.testing.sampling_vectors import (
    SamplingVector,
    sampling_vectors,
    token_logprob_vectors,
)
from octavo.testing.subject import Subject
from octavo.testing.tiny_models import TINY_MODELS, VOCAB_SIZE
from octavo.testing.tolerances import TOLERANCES
from octavo.testing.vectors import read_vectors

__all__ = ["CHECKS"]

_PARTS = 1 << 24  # of the unit interval, in which uniforms are given
_ENGINE_SEED = (5 << 32) + 7
_NUM_TOKENS = 4
_REQUESTS: tuple[tuple[list[int], dict[str, Any]], ...] = (  # prompts, and how to sample
    ([3, 141, 59, 26], {"seed": (3 << 32) + 11}),
    ([53, 58], {}),
    ([97, 93, 23, 84, 62], {"seed": (9 << 32) + 1, "n": 3}),
    ([64, 33, 83], {"seed": -5}),
    ([27, 95], {}),
)
_RESULT_DTYPES = {
    "token_ids": "int32",
    "logprobs": "float32",
    "ranks": "int32",
    "top_ids": "int32",
    "top_logprobs": "float32",
    "valid": "bool",
}
_NEAR = 1e-3  # probability; float32 log-probabilities add up to 1 within much less


def _check_philox(_subject: Subject, _value: None) -> None:
    """Known answers of the generator, and where seed, request, sample and position go."""
    vectors = read_vectors("philox")
    for answer in vectors["known_answers"]:
        counter, key, output = (_words(answer[name]) for name in ("counter", "key", "output"))
        words = philox.philox4x32(counter, key)
        if words.tolist() != output.tolist():
            raise CheckFailure(
                f"octavo.philox.philox4x32 gives {_hex(words)} for counter {answer['counter']} and "
                f"key {answer['key']}; Random123's known answer is {answer['output']}. "
                "Something has replaced it or what it stands on."
            )
    for draw in vectors["draws"]:
        found = philox.uniforms(
            np.array([draw["seed"]], np.uint64),
            np.array([draw["request_key"]], np.uint64),
            np.array([draw["sample_index"]], np.uint64),
            np.array([draw["position"]], np.uint64),
        )
        if found.tolist() != [draw["uniform"] / _PARTS]:
            asked = {name: number for name, number in draw.items() if name != "uniform"}
            raise CheckFailure(
                f"octavo.philox.uniforms gives {found.tolist()} for {asked}; the documented layout "
                f"of key and counter gives {draw['uniform'] / _PARTS}. Something has replaced it."
            )


def _words(text: str) -> NDArray[np.uint64]:
    return np.array([[int(word, 16)] for word in text.split()], np.uint64)


def _hex(words: NDArray[np.uint64]) -> str:
    return " ".join(f"{word:08x}" for word in words[:, 0].tolist())


def _check_draws(subject: Subject, _value: None) -> None:
    """Each token of an engine is the one that its documented uniform picks."""
    with subject.engine(
        TINY_MODELS["llama"].config, max_logprobs=VOCAB_SIZE, seed=_ENGINE_SEED
    ) as loaded:
        answers = iter(generate(loaded, [prompt for prompt, _ in _REQUESTS], _params()))
    for request, (prompt, settings) in enumerate(_REQUESTS):
        own_seed = settings.get("seed")
        # A request without a seed of its own is drawn for by the engine's, under a key of its own.
        seed, key = (_ENGINE_SEED, request + 1) if own_seed is None else (own_seed % 2**64, 0)
        for sample in range(settings.get("n", 1)):
            drawn = _Drawn(request, seed, key, sample, len(prompt))
            _check_answer(drawn, next(answers))


def _params() -> list[SamplingParams]:
    return [
        SamplingParams(max_tokens=_NUM_TOKENS, logprobs=VOCAB_SIZE, ignore_eos=True, **settings)
        for _, settings in _REQUESTS
    ]


@dataclass(frozen=True)
class _Drawn:
    """One answer, and what its draws are keyed by."""

    request: int
    seed: int
    request_key: int
    sample_index: int
    prompt_len: int


def _check_answer(drawn: _Drawn, answer: Answer) -> None:
    if len(answer.token_ids) != _NUM_TOKENS:
        raise CheckFailure(
            f"{drawn} has {len(answer.token_ids)} tokens, expected {_NUM_TOKENS}: "
            f"{answer.error or 'no error was reported'}."
        )
    for step, token_id in enumerate(answer.token_ids):
        position = drawn.prompt_len + step
        parts = reference_draw(drawn.seed, drawn.request_key, drawn.sample_index, position)
        uniform = parts / _PARTS
        if not _is_drawn(answer, step, uniform):
            raise CheckFailure(
                f"Request {drawn.request} got token {token_id} at position {position}, but the "
                f"uniform of seed={drawn.seed}, request_key={drawn.request_key}, "
                f"sample_index={drawn.sample_index} and {position=} is {uniform:.6f}, which picks "
                f"token {_picked(answer, step, uniform)} from the log-probabilities of this step."
            )


def _is_drawn(answer: Answer, step: int, uniform: float) -> bool:
    edges = _running(answer, step)
    token_id = answer.token_ids[step]
    below = edges[token_id - 1] if token_id else 0.0
    return bool(below - _NEAR <= uniform <= edges[token_id] + _NEAR)


def _picked(answer: Answer, step: int, uniform: float) -> int:
    return int(np.searchsorted(_running(answer, step), uniform, side="right"))


def _running(answer: Answer, step: int) -> NDArray[np.float64]:
    """The running sums of the vocabulary's probabilities."""
    logprobs = answer.likeliest[step]
    if len(logprobs) != VOCAB_SIZE:
        raise CheckFailure(
            f"A request for logprobs={VOCAB_SIZE}, the whole vocabulary, got those of "
            f"{len(logprobs)} tokens.",
            look="ops.sample: SampleResult.top_ids",
        )
    probabilities = np.exp([logprobs[token_id] for token_id in range(VOCAB_SIZE)])
    running: NDArray[np.float64] = np.cumsum(probabilities)
    return running


def _sampling_cases(_subject: Subject) -> Iterable[Case]:
    return (Case(vector.label, vector) for vector in sampling_vectors())


def _check_sampling(subject: Subject, vector: SamplingVector) -> None:
    """Fixed logits, settings and uniforms give the published tokens."""
    logits, batch = vector.logits, vector.batch
    if not subject.buckets.exact:  # as the engine pads what it samples
        num_rows = subject.buckets.num_rows(batch)
        logits = np.pad(logits, ((0, num_rows - len(logits)), (0, 0)))
        batch = subject.buckets.pad_sampling(batch)
    result = subject.ops.sample(subject.put(logits), map_arrays(batch, subject.put))
    _compare(subject, result, vector, "sampled")


def _token_logprob_cases(_subject: Subject) -> Iterable[Case]:
    return (Case(vector.label, vector) for vector in token_logprob_vectors())


def _check_token_logprobs(subject: Subject, vector: SamplingVector) -> None:
    """Log-probabilities and ranks of given tokens are the published ones."""
    result = subject.ops.token_logprobs(
        subject.put(vector.logits), subject.put(vector.token_ids), vector.num_logprobs
    )
    _compare(subject, result, vector, "returned")


def _compare(subject: Subject, result: SampleResult, vector: SamplingVector, verb: str) -> None:
    _check_form(subject, result, vector)
    tokens = subject.get(result.token_ids)
    valid = [True] * len(tokens) if result.valid is None else subject.get(result.valid).tolist()
    for index, (row, expected) in enumerate(zip(vector.rows, vector.expected, strict=True)):
        where = f"row {index} of {vector.label!r} ({_settings(row)})"
        is_valid = expected.get("valid", True)
        if bool(valid[index]) != is_valid:
            raise CheckFailure(
                f"SampleResult.valid is {bool(valid[index])} in {where}; expected {is_valid}: a row"
                " cannot be sampled if it holds NaN or +inf, or if it allows no token."
            )
        wanted = expected.get("token_id", 0)  # of a row that cannot be sampled as well
        if tokens[index] != wanted:
            raise CheckFailure(f"Token {tokens[index]} was {verb}, expected {wanted}, in {where}.")
        if is_valid and vector.num_logprobs >= 0:
            _compare_logprobs(subject, result, index, expected, where)


def _check_form(subject: Subject, result: SampleResult, vector: SamplingVector) -> None:
    for name, dtype in _RESULT_DTYPES.items():
        column = getattr(result, name)
        if column is None:
            continue
        found = subject.get(column).dtype.name
        if found != dtype:
            raise CheckFailure(f"SampleResult.{name} is of {found}; expected {dtype}.")
        if vector.num_logprobs < 0 and name not in ("token_ids", "valid"):
            raise CheckFailure(
                f"SampleResult.{name} is an array, though num_logprobs is -1, in {vector.label!r}; "
                "expected None: log-probabilities that nobody asked for take time."
            )


def _settings(row: Mapping[str, Any]) -> str:
    named = {name: value for name, value in row.items() if name not in ("logits", "expected")}
    if "uniform" in named:
        named["uniform"] = f"{named['uniform']}/2**24"
    texts = [f"{name}={value}" for name, value in named.items()]
    return (
        ", ".join(text if len(text) <= 80 else f"{text[:80]}…" for text in texts) or "nothing set"
    )


def _compare_logprobs(
    subject: Subject, result: SampleResult, index: int, expected: Mapping[str, Any], where: str
) -> None:
    columns: list[NDArray[Any]] = []
    for name in ("logprobs", "ranks", "top_ids", "top_logprobs"):
        column = getattr(result, name)
        if column is None:
            raise CheckFailure(f"Log-probabilities were asked for, but {name} is None, in {where}.")
        columns.append(subject.get(column)[index])
    logprobs, ranks, top_ids, top_logprobs = columns
    if int(ranks) != expected["rank"]:
        raise CheckFailure(
            f"The rank of token {expected['token_id']} is {int(ranks)}, expected "
            f"{expected['rank']} (1 + the number of likelier tokens), in {where}."
        )
    if top_ids.tolist() != expected["top_ids"]:
        raise CheckFailure(
            f"top_ids is {top_ids.tolist()}, expected {expected['top_ids']}, in {where}."
        )
    bounds = TOLERANCES["float32"]
    for name, found, wanted in (
        ("logprob", logprobs, float(expected["logprob"])),
        ("top_logprobs", top_logprobs, expected["top_logprobs"]),
    ):
        if not np.allclose(found, wanted, rtol=bounds.relative, atol=bounds.absolute):
            raise CheckFailure(
                f"{name} is {np.asarray(found).tolist()}, expected {wanted} (of the raw logits, "
                f"before any adjustment), in {where}."
            )


CHECKS = (
    Check(
        "randomness",
        "philox",
        "the generator gives Random123's known answers, by the documented key and counter",
        "octavo.philox, which no plugin may replace",
        _check_philox,
    ),
    Check(
        "randomness",
        "sampling",
        "fixed logits, settings and uniforms give the published tokens",
        "ops.sample; the rules stand in the docstring of octavo.ops.sampling",
        _check_sampling,
        _sampling_cases,
    ),
    Check(
        "randomness",
        "token_logprobs",
        "log-probabilities and ranks of given tokens are right",
        "ops.token_logprobs",
        _check_token_logprobs,
        _token_logprob_cases,
    ),
    Check(
        "randomness",
        "draws",
        "an engine draws each token by seed, request, sample and position, and nothing else",
        "backend.compile (a step must read sampling.uniform anew each time), ops.sample, "
        "octavo.sampler",
        _check_draws,
    ),
)
