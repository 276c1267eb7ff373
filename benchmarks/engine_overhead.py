"""What the engine itself costs: steps and memory on the NULL backend, which does no arithmetic.

python benchmarks/engine_overhead.py            256 running requests, then 10,000 in a small cache
python benchmarks/engine_overhead.py --quick    the same with fewer steps and 1,000 requests
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import random
import sys
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from octavo.cache_plan import CacheLimits, plan_cache
from octavo.completion import Vocabulary
from octavo.config import EngineConfig
from octavo.engine import Engine
from octavo.engine_loader import build_engine
from octavo.kv import group_layers
from octavo.sampling_params import RequestOutputKind, SamplingParams
from octavo.testing.null import NullBackend, NullModel

VOCAB_SIZE = 50_000
BLOCK_SIZE = 16


def null_engine(
    max_num_seqs: int, max_model_len: int, cache_tokens: int, max_num_batched_tokens: int = 2048
) -> Engine:
    """An engine over a cache of ``cache_tokens`` tokens, without a tokenizer."""
    model = NullModel(VOCAB_SIZE, max_position_embeddings=max_model_len)
    backend = NullBackend(model)
    config = EngineConfig(
        model="null",
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        swap_space=0.0,
        quiet=True,
    )
    groups = group_layers(model.kv_specs("float32"))
    limits = CacheLimits(BLOCK_SIZE, max_model_len, max_num_seqs, max_num_batched_tokens)
    num_blocks = -(-cache_tokens // BLOCK_SIZE) + 1
    budget_bytes = num_blocks * sum(group.bytes_per_block(BLOCK_SIZE) for group in groups)
    plan = plan_cache(groups, limits, budget_bytes)
    vocabulary = Vocabulary(VOCAB_SIZE, None, frozenset())
    return build_engine(config, backend, backend.ops, model, None, plan, vocabulary)


def add_request(engine: Engine, request_id: int, prompt_len: int, output_len: int) -> None:
    """Queue a request of distinct random tokens, streamed: it has an output in every step."""
    rng = random.Random(request_id)
    prompt = {"prompt_token_ids": rng.choices(range(VOCAB_SIZE), k=prompt_len)}
    params = SamplingParams(
        temperature=0.0,
        max_tokens=output_len,
        ignore_eos=True,
        output_kind=RequestOutputKind.DELTA,
    )
    engine.add_request(str(request_id), prompt, params)


class Stopwatch:
    """Replaces methods of objects by timed ones; seconds add up per label."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def watch(self, owner: Any, name: str, label: str) -> None:
        method: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return method(*args, **options)
            finally:
                self.seconds[label] += time.perf_counter() - start

        setattr(owner, name, timed)


def step_times(context_len: int, num_requests: int, num_steps: int) -> dict[str, float]:
    """Milliseconds of a decode step with every request running at ``context_len`` tokens or more.

    The total is taken first, with nothing replaced; the split comes from a second stretch of steps.
    """
    output_len = 2 * num_steps + 64
    longest = context_len + output_len
    engine = null_engine(
        num_requests,
        max_model_len=longest + BLOCK_SIZE,
        cache_tokens=num_requests * (longest + BLOCK_SIZE),
        # All prompts in the first step: otherwise the first answers end before the last begin.
        max_num_batched_tokens=num_requests * context_len,
    )
    for request_id in range(num_requests):
        add_request(engine, request_id, context_len, output_len)
    engine.step()
    gc.collect()
    totals_ms = []
    for _ in range(num_steps):
        start = time.perf_counter()
        outputs = engine.step()
        totals_ms.append((time.perf_counter() - start) * 1e3)
        if len(outputs) != num_requests:
            raise SystemExit(f"{len(outputs)} outputs in a step; expected {num_requests}")
    return {
        "step_ms": median(totals_ms),
        "step_p99_ms": quantiles(totals_ms, n=100)[98],
        **_split_ms(engine, num_steps),
    }


def _split_ms(engine: Engine, num_steps: int) -> dict[str, float]:
    """Mean milliseconds of each part of a step; outputs are what is left of the whole."""
    watch, runner = Stopwatch(), engine.runner
    parts = vars(runner)
    watch.watch(engine.scheduler, "schedule", "schedule")
    watch.watch(parts["_rows"], "build", "batch")
    watch.watch(parts["_sampler"], "build", "sample")
    watch.watch(parts["_sampler"], "record", "sample")
    watch.watch(runner, "_step", "null step")
    watch.watch(runner, "execute", "execute")
    start = time.perf_counter()
    for _ in range(num_steps):
        engine.step()
    total = time.perf_counter() - start
    seconds = watch.seconds
    inner = sum(seconds[label] for label in ("batch", "sample", "null step"))
    split = {
        "schedule_ms": seconds["schedule"],
        "batch_ms": seconds["batch"],
        "sample_ms": seconds["sample"],
        "null_step_ms": seconds["null step"],
        "other_runner_ms": seconds["execute"] - inner,
        "outputs_ms": total - seconds["schedule"] - seconds["execute"],
    }
    return {label: value / num_steps * 1e3 for label, value in split.items()}


def mixed_lengths(seed: int) -> Iterator[tuple[int, int]]:
    """(prompt, output) lengths, log-normal with the means of ShareGPT: 161 in, 338 out."""
    rng = random.Random(seed)
    sigma = 0.8
    shift = sigma**2 / 2
    while True:
        prompt_len = rng.lognormvariate(5.08 - shift, sigma)
        output_len = rng.lognormvariate(5.82 - shift, sigma)
        yield min(1500, max(1, round(prompt_len))), min(1500, max(1, round(output_len)))


def memory_over_requests(num_requests: int, cache_tokens: int) -> list[dict[str, float]]:
    """Push mixed requests through a small cache in ten waves; memory in use after each."""
    engine = null_engine(max_num_seqs=64, max_model_len=4096, cache_tokens=cache_tokens)
    requests = enumerate(itertools.islice(mixed_lengths(seed=3), num_requests))
    samples = []
    tracemalloc.start()
    start = time.perf_counter()
    for wave in range(10):
        run_all(engine, itertools.islice(requests, num_requests // 10))
        gc.collect()
        samples.append(
            {
                "requests": (wave + 1) * (num_requests // 10),
                "python_bytes": tracemalloc.get_traced_memory()[0],
                "rss_bytes": rss_bytes(),
                "seconds": time.perf_counter() - start,
            }
        )
    tracemalloc.stop()
    engine.scheduler.check_integrity()
    return samples


def run_all(engine: Engine, requests: Iterator[tuple[int, tuple[int, int]]]) -> None:
    """Run requests, (id, lengths), to their end; at most 128 are in the engine at once."""
    while True:
        room = 128 - engine.num_unfinished_requests
        for request_id, (prompt_len, output_len) in itertools.islice(requests, room):
            add_request(engine, request_id, prompt_len, output_len)
        if not engine.has_unfinished_requests:
            return
        engine.step()


def rss_bytes() -> int:
    """Resident memory of this process; 0 where there is no /proc."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--running", type=int, default=256, help="requests in each step")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    num_steps, num_requests = (100, 1_000) if arguments.quick else (500, 10_000)
    steps = {}
    for context_len in (100, 8000):
        times = steps[context_len] = step_times(context_len, arguments.running, num_steps)
        parts = ", ".join(f"{label[:-3]} {ms:.3f}" for label, ms in list(times.items())[2:])
        print(
            f"context {context_len}: {times['step_ms']:.3f} ms a step of {arguments.running} "
            f"requests (99th percentile {times['step_p99_ms']:.3f}; {parts})",
            flush=True,
        )
    samples = memory_over_requests(num_requests, cache_tokens=8192)
    for sample in samples:
        print(
            f"after {sample['requests']:>6} requests: {sample['python_bytes'] / 1e6:.2f} MB of "
            f"Python objects, {sample['rss_bytes'] / 1e6:.1f} MB resident, "
            f"{sample['seconds']:.0f} s"
        )
    growth_bytes = samples[-1]["python_bytes"] - samples[1]["python_bytes"]
    print(f"growth from the second wave to the last: {growth_bytes / 1e6:+.3f} MB")
    if arguments.json:
        record = {"steps": steps, "memory": samples}
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
