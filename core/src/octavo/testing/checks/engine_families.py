"""Every family end to end: batched and in chunks, in every dtype, against published vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from octavo.testing.answers import generate, greedy
from octavo.testing.check import Case, Check, CheckFailure
from octavo.testing.family_answers import (
    Expected,
    Precision,
    expected_after,
    expected_answer,
    first_difference,
)
from octavo.testing.family_vectors import family_vectors
from octavo.testing.tiny_models import TINY_MODELS, TinyModel

if TYPE_CHECKING:
    from octavo.testing.subject import Subject

__all__ = ["FAMILIES"]

_QUICK = ("llama", "qwen2", "gemma2", "gemma3")
_DTYPES = ("float32", "float16", "bfloat16")
_KV_DTYPES = (*_DTYPES, "float8_e4m3fn", "float8_e5m2", "int8")
_CHUNK_TOKENS = 32
_WHOLE_TOKENS = 64  # more than a vector's prompt


@dataclass(frozen=True)
class _FamilyRun:
    """One model in one precision."""

    model: TinyModel
    precision: Precision


def _cases(subject: Subject) -> Iterator[Case]:
    best = Precision.best(subject.caps)
    for model in TINY_MODELS.values():
        yield Case(
            model.name,
            _FamilyRun(model, best),
            unclaimed=model.unclaimed(subject.caps),
            quick=model.name in _QUICK,
        )
    yield from _precisions(subject, best)


def _precisions(subject: Subject, best: Precision) -> Iterator[Case]:
    """The plainest model in every other dtype, and over every other cache."""
    caps, llama = subject.caps, TINY_MODELS["llama"]
    for dtype in _DTYPES:
        if dtype != best.dtype:
            unclaimed = None if dtype in caps.dtypes else f"caps.dtypes has no {dtype}"
            run = _FamilyRun(llama, Precision.best(caps, dtype))
            yield Case(f"llama {dtype}", run, unclaimed, quick=dtype == "bfloat16")
    for kv_dtype in _KV_DTYPES:
        if kv_dtype != best.kv_dtype:
            unclaimed = None if kv_dtype in caps.kv_dtypes else f"caps.kv_dtypes has no {kv_dtype}"
            run = _FamilyRun(llama, Precision(best.dtype, kv_dtype))
            yield Case(f"llama kv={kv_dtype}", run, unclaimed, quick=False)


def _run(subject: Subject, run: _FamilyRun) -> None:
    found = _difference(subject, run, _prompts(subject, run.model), _CHUNK_TOKENS)
    if found is None:
        return
    alone = _difference(subject, run, [expected_answer(run.model.name)], _WHOLE_TOKENS)
    if alone is None:
        cause = "Alone and in one piece it is right: look for what batching and chunks change."
    else:
        cause = f"It is wrong alone and in one piece, too: {alone}."
    raise CheckFailure(
        f"{run.model.name} {run.precision}, batched with its own prefixes and in chunks of "
        f"{_CHUNK_TOKENS} tokens: {found}. {cause} What this model has: {run.model.has}."
    )


def _prompts(subject: Subject, model: TinyModel) -> list[Expected]:
    """One token, so that chunks end within blocks; the whole; exactly a block where it is small.

    They fit two steps of prefill: a backend that compiles has three programs to make, not ten.
    """
    block_size = subject.caps.block_sizes[0]
    whole = expected_answer(model.name)
    most = 2 * _CHUNK_TOKENS - len(whole.prompt) - 1
    edge = min(block_size, most)
    return [expected_after(model.name, 1), whole, expected_after(model.name, edge)]


def _difference(
    subject: Subject, run: _FamilyRun, prompts: Sequence[Expected], num_batched_tokens: int
) -> str | None:
    params = [
        greedy(len(each.answer), prompt_logprobs=0 if each.prompt_logprobs else None)
        for each in prompts
    ]
    with subject.engine(
        run.model.config,
        seed=family_vectors()[run.model.name].seed,
        dtype=run.precision.dtype,
        kv_cache_dtype=run.precision.kv_dtype,
        max_num_batched_tokens=num_batched_tokens,
        enable_prefix_caching=False,
    ) as loaded:
        answers = generate(loaded, [each.prompt for each in prompts], params)
    differences = (
        first_difference(answer, each, run.precision.tolerance)
        for answer, each in zip(answers, prompts, strict=True)
    )
    return next((found for found in differences if found is not None), None)


FAMILIES = Check(
    section="engine",
    name="families",
    about="a tiny model of every family answers as transformers does, batched and in chunks",
    look="the ops that this model has and others do not; backend.plan, backend.put_linear, "
    "ops.attend",
    run=_run,
    cases=_cases,
)
