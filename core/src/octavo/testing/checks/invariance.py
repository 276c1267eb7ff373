"""Checks that an answer does not depend on how the engine came to it: batches, chunks, caches.

To the last bit where caps.batch_invariant claims so, within the tolerance of the dtypes elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from octavo.backend import Capabilities
from octavo.engine_loader import LoadedEngine
from octavo.sampling_params import SamplingParams
from octavo.scheduler import SchedulerStats
from octavo.testing.agreement import Agreement
from octavo.testing.answers import Answer, generate, greedy
from octavo.testing.check import Case, Check, CheckFailure
from octavo.testing.subject import Subject
from octavo.testing.tiny_models import MAX_LEN, TINY_MODELS, VOCAB_SIZE

__all__ = ["CHECKS"]

Prompt = list[int]
_MODELS = ("llama", "gemma3")  # the second has two KV groups, and gives back blocks behind windows
_QUICK_MODEL = "llama"
_SMALLEST_BLOCK = 4  # where there is a choice: small blocks have many edges
_GIB = 1 << 30


@dataclass(frozen=True)
class _Setup:
    """A model, how it is computed, and what is special about the engine in this case."""

    model: str
    block_size: int
    dtype: str = "auto"
    kv_dtype: str = "auto"
    preemption_mode: str = "recompute"
    chunk_tokens: int = 0

    @property
    def config(self) -> Mapping[str, Any]:
        """With room for some blocks even if they are large."""
        max_len = max(MAX_LEN, 12 * self.block_size)
        return {**TINY_MODELS[self.model].config, "max_position_embeddings": max_len}

    def options(self, **changes: Any) -> dict[str, Any]:
        """Of an engine that cuts no prompt and finds nothing cached, unless ``changes`` say so."""
        return {
            "dtype": self.dtype,
            "kv_cache_dtype": self.kv_dtype,
            "block_size": self.block_size,
            "max_num_batched_tokens": 20 * self.block_size,
            "enable_prefix_caching": False,
            **changes,
        }

    def prompts(self, *lengths: int) -> list[Prompt]:
        """Random prompts, the same in every run."""
        rng = np.random.default_rng([len(self.model), *lengths])
        return [rng.integers(0, VOCAB_SIZE, length).tolist() for length in lengths]


def _cases(subject: Subject) -> Iterator[Case]:
    """Each model; at the full level in every other dtype, and with every other kind of cache."""
    caps = subject.caps
    for name in _MODELS:
        setup = _Setup(name, _block_size(caps))
        yield Case(name, setup, TINY_MODELS[name].unclaimed(caps), quick=name == _QUICK_MODEL)
    setup = _Setup("llama", _block_size(caps))
    for dtype in caps.dtypes[1:]:
        yield Case(f"llama {dtype}", replace(setup, dtype=dtype), quick=False)
    for kv_dtype in caps.kv_dtypes[1:]:
        yield Case(f"llama kv={kv_dtype}", replace(setup, kv_dtype=kv_dtype), quick=False)


def _block_size(caps: Capabilities) -> int:
    enough = [size for size in caps.block_sizes if size >= _SMALLEST_BLOCK]
    return min(enough) if enough else max(caps.block_sizes)


def _with_numbers(max_tokens: int) -> SamplingParams:
    return greedy(max_tokens, logprobs=5, prompt_logprobs=0)


def _check_batch(subject: Subject, setup: _Setup) -> None:
    """Each request has the same answer alone, beside others, and whoever came first.

    The longest fills so many blocks that the table of the step is much wider than any other's.
    """
    size = setup.block_size
    prompts = setup.prompts(2 * size + 1, 1, size, 10 * size - 1, size + 1)
    params = _with_numbers(4)
    with subject.engine(setup.config, **setup.options()) as loaded:
        agreement = Agreement.of(loaded)
        alone = [generate(loaded, [prompt], params)[0] for prompt in prompts]
        together = generate(loaded, prompts, params)
        backwards = generate(loaded, prompts[::-1], params)
        one_by_one = generate(loaded, prompts, params, steps_apart=1)
    agreement.require(f"in a batch of {len(prompts)} than alone", alone, together)
    agreement.require("when the last comes first than alone", alone, backwards[::-1])
    agreement.require("when each comes a step later than alone", alone, one_by_one)


def _chunk_cases(subject: Subject) -> Iterator[Case]:
    """Cuts at every edge of a block, and one token before and after it; one cut for each dtype."""
    for case in _cases(subject):
        size = case.value.block_size
        usual = max(1, size - 1)
        cuts = {1, 2, usual, size, size + 1, 2 * size - 1, 2 * size + 1}
        for tokens in sorted(cuts) if case.label in _MODELS else (usual,):
            setup = replace(case.value, chunk_tokens=tokens)
            is_quick = case.quick and tokens == usual
            yield Case(f"{case.label} cut={tokens}", setup, case.unclaimed, quick=is_quick)


def _check_chunks(subject: Subject, setup: _Setup) -> None:
    """A prompt has the same answer whole and cut into chunks."""
    prompts = setup.prompts(3 * setup.block_size + 2)
    params = _with_numbers(2)
    cut = setup.options(max_num_batched_tokens=setup.chunk_tokens, max_num_seqs=1)
    with subject.engine(setup.config, **setup.options()) as loaded:
        agreement = Agreement.of(loaded)
        whole = generate(loaded, prompts, params)
    with subject.engine(setup.config, **cut) as loaded:
        chunked = generate(loaded, prompts, params)
    situation = f"computed in chunks of {setup.chunk_tokens} tokens than at once"
    agreement.require(situation, whole, chunked)


def _check_prefix(subject: Subject, setup: _Setup) -> None:
    """A request that finds its first blocks cached has the answer of one that does not."""
    size = setup.block_size
    (shared, *tails) = setup.prompts(2 * size + 1, 1, size, 2)
    prompts = [shared + tail for tail in tails]
    params = greedy(4, logprobs=5)
    with subject.engine(setup.config, **setup.options()) as loaded:
        agreement = Agreement.of(loaded)
        missed = generate(loaded, prompts, params)
    caching = setup.options(enable_prefix_caching=True)
    with subject.engine(setup.config, **caching) as loaded:
        shared_while_used = generate(loaded, prompts, params, steps_apart=1)
        hits = _require_hits(loaded, 0)
        found_again = generate(loaded, prompts, params)
        _require_hits(loaded, hits)
    situation = "when it shares its first blocks with a request that runs"
    agreement.require(f"{situation} than on its own", missed, shared_while_used)
    situation = "when its first blocks are left over from an earlier request"
    agreement.require(f"{situation} than on its own", missed, found_again)


def _require_hits(loaded: LoadedEngine, before: int) -> int:
    hits = _stats(loaded).num_prefix_hit_tokens
    if hits <= before:
        raise CheckFailure(
            "The prefix cache was not hit, so that nothing was compared: the engine's fault, not "
            "the backend's.",
            look="octavo.prefix_cache",
        )
    return hits


def _preemption_cases(subject: Subject) -> Iterator[Case]:
    unclaimed = None if subject.caps.host_swap else "caps.host_swap is False"
    for mode, refusal in (("recompute", None), ("swap", unclaimed)):
        for case in _cases(subject):
            setup = replace(case.value, preemption_mode=mode)
            yield Case(f"{mode} {case.label}", setup, refusal or case.unclaimed, quick=case.quick)


def _check_preemption(subject: Subject, setup: _Setup) -> None:
    """A request that had to make room has the answer of one that was never interrupted."""
    size = setup.block_size
    prompts = setup.prompts(4 * size, 4 * size - 1)
    params = _with_numbers(2 * size)
    with subject.engine(setup.config, **setup.options()) as loaded:
        agreement = Agreement.of(loaded)
        num_blocks = 4 * len(prompts) + 3  # each will want six blocks or more; one is for padding
        block_bytes = _bytes_per_block(loaded, size)
        uninterrupted = generate(loaded, prompts, params)
    short = setup.options(
        kv_cache_memory_bytes=num_blocks * block_bytes,
        preemption_mode=setup.preemption_mode,
        swap_space=num_blocks * block_bytes / _GIB if setup.preemption_mode == "swap" else 0.0,
    )
    with subject.engine(setup.config, **short) as loaded:
        preempted = generate(loaded, prompts, params)
        _require_preemptions(_stats(loaded), setup.preemption_mode)
    way = "swapped to the host and back" if setup.preemption_mode == "swap" else "recomputed"
    agreement.require(f"when preempted and {way} than uninterrupted", uninterrupted, preempted)


def _bytes_per_block(loaded: LoadedEngine, block_size: int) -> int:
    return sum(group.bytes_per_block(block_size) for group in loaded.plan.groups)


def _require_preemptions(stats: SchedulerStats, mode: str) -> None:
    count = {
        "recompute": stats.num_recompute_preemptions,
        "swap": stats.num_swap_preemptions,
    }[mode]
    if not count:
        raise CheckFailure(
            f"No request was preempted by {mode}, so that nothing was compared ({stats}): the "
            "engine's fault, not the backend's.",
            look="octavo.scheduling.preemption",
        )


def _stats(loaded: LoadedEngine) -> SchedulerStats:
    return loaded.engine.scheduler.stats


def _check_forks(subject: Subject, setup: _Setup) -> None:
    """Answers that share a prompt's blocks have the numbers of requests of their own."""
    size = setup.block_size
    prompts = setup.prompts(size + 2)  # the second block is shared in part, and so copied
    params = greedy(size, temperature=1.0, seed=5, logprobs=5)
    with subject.engine(setup.config, **setup.options()) as loaded:
        agreement = Agreement.of(loaded)
        forks = generate(loaded, prompts, replace(params, n=3))
        single = generate(loaded, prompts, params)
        continued = [prompts[0] + list(fork.token_ids) for fork in forks]
        own = generate(loaded, continued, _with_numbers(1))
    if len({fork.token_ids for fork in forks}) == 1:
        raise CheckFailure(
            f"Three answers drawn with temperature 1 are all {forks[0].token_ids}: nothing tells "
            "their draws apart.",
            look="ops.sample: SamplingBatch.uniform",
        )
    agreement.require("as the first of three than as the only one", single, forks[:1])
    agreement.require(
        "sharing a prompt's blocks than in blocks of its own",
        [Answer(token_ids=(), prompt_logprobs=a.prompt_logprobs[-size:]) for a in own],
        [Answer(token_ids=(), prompt_logprobs=fork.logprobs) for fork in forks],
    )


CHECKS = (
    Check(
        "invariance",
        "batch",
        "a request has the same answer alone and in any batch",
        "ops.linear, ops.paged_attention and backend.plan: what a token gets from its neighbours",
        _check_batch,
        _cases,
    ),
    Check(
        "invariance",
        "chunks",
        "a prompt has the same answer whole and cut at any token",
        "ops.paged_attention: queries that start in the middle of a sequence or block",
        _check_chunks,
        _chunk_cases,
    ),
    Check(
        "invariance",
        "prefix",
        "a prefix found in the cache gives the answer of one that is computed",
        "ops.paged_attention: blocks in the tables of several sequences",
        _check_prefix,
        _cases,
    ),
    Check(
        "invariance",
        "preemption",
        "a preempted request goes on as if nothing had been",
        "backend.copy_blocks to the host and back, backend.make_kv(on_host=True), "
        "ops.write_kv into used blocks",
        _check_preemption,
        _preemption_cases,
    ),
    Check(
        "invariance",
        "forks",
        "answers that share a prompt go their own ways",
        "backend.copy_blocks within one cache, for every layer",
        _check_forks,
        _cases,
    ),
)
