"""A long run in a small cache: blocks change hands, requests wait and start over, nothing leaks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from octavo.kv import group_layers
from octavo.models.registry import build_model
from octavo.testing.answers import Answer, generate, greedy
from octavo.testing.check import Check, CheckFailure
from octavo.testing.family_answers import Expected, Precision, first_difference
from octavo.testing.family_vectors import NextToken, family_vectors
from octavo.testing.tiny_models import TINY_MODELS

if TYPE_CHECKING:
    from octavo.engine_loader import LoadedEngine
    from octavo.testing.subject import Subject

__all__ = ["LONG_RUN"]

_MODELS = ("gemma2", "mistral", "llama")  # the first that the backend claims
_PROMPT_LENS = (7, 40, 29, 18, 33)
_NUM_ROUNDS = 2
_NUM_NEW_TOKENS = 12
_MAX_LEN = 52
_NUM_LIKELIEST = 2


def _run(subject: Subject, _value: None) -> None:
    name = next(each for each in _MODELS if TINY_MODELS[each].unclaimed(subject.caps) is None)
    vector, precision = family_vectors()[name], Precision.best(subject.caps)
    prompts = [vector.prompt[-length:] for length in _PROMPT_LENS]
    with subject.engine(
        TINY_MODELS[name].config,
        seed=vector.seed,
        dtype=precision.dtype,
        kv_cache_dtype=precision.kv_dtype,
        max_model_len=_MAX_LEN,
        max_num_batched_tokens=32,
        enable_prefix_caching=False,
        kv_cache_memory_bytes=_bytes_for_two(subject, name, precision),
    ) as loaded:
        alone = [_generate(loaded, [prompt])[0] for prompt in prompts]
        together = _generate(loaded, prompts * _NUM_ROUNDS)
        _check_blocks(loaded)
        num_blocks = loaded.plan.num_blocks
    for index, answer in enumerate(together):
        prompt, reference = prompts[index % len(prompts)], alone[index % len(prompts)]
        expected = Expected(prompt, _as_expected(reference))
        found = first_difference(answer, expected, precision.tolerance)
        if found is not None:
            raise CheckFailure(
                f"{name} {precision}, {len(together)} requests through caches of {num_blocks} "
                f"blocks, in which two fit: request {index} differs from the same one alone: "
                f"{found}."
            )


def _generate(loaded: LoadedEngine, prompts: Sequence[Sequence[int]]) -> list[Answer]:
    return generate(loaded, prompts, greedy(_NUM_NEW_TOKENS, logprobs=_NUM_LIKELIEST))


def _bytes_for_two(subject: Subject, name: str, precision: Precision) -> int:
    """Caches that hold two of the longest requests."""
    block_size = subject.caps.block_sizes[0]
    groups = group_layers(build_model(TINY_MODELS[name].config).kv_specs(precision.kv_dtype))
    num_blocks = 1 + 2 * -(-_MAX_LEN // block_size)
    return num_blocks * sum(group.bytes_per_block(block_size) for group in groups)


def _check_blocks(loaded: LoadedEngine) -> None:
    scheduler = loaded.engine.scheduler
    scheduler.check_integrity()
    held = [group.num_used for group in scheduler.stats.groups]
    if any(held):
        raise CheckFailure(f"All requests have ended, but {held} blocks are still held.")


def _as_expected(answer: Answer) -> tuple[NextToken, ...]:
    if answer.error is not None:
        raise CheckFailure(f"A request ended although it was alone: {answer.error}")
    return tuple(
        NextToken(token_id, logprob, max(entry.values()) - min(entry.values()))
        for token_id, logprob, entry in zip(
            answer.token_ids, answer.logprobs, answer.likeliest, strict=True
        )
    )


LONG_RUN = Check(
    section="engine",
    name="long_run",
    about="many requests through a small cache answer as they do alone, and hold no block",
    look="ops.write_kv, ops.paged_attention, backend.plan, backend.compile: what they keep from "
    "step to step",
    run=_run,
)
