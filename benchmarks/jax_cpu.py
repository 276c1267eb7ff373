"""The backend jax on the CPU beside NumPy: decode, the host's share, starts, shapes.

    python benchmarks/jax_cpu.py [--rounds 5] [--requests 1000] [--part decode ...]

SmolLM2-135M, in one process, taking turns. `start` runs processes of its own, with a compilation
cache that is empty the first time. `mixed` takes the model's first layers only: it is about shapes.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np

from make_hf_model import make_hf_folder
from octavo import LLM, SamplingParams
from octavo_tpu.programs import Program, compilation_is_an_error

WAYS = (("numpy", "float32"), ("jax", "float32"), ("jax", "bfloat16"))
TEXTS = (
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):",
    "Water boils at a lower temperature on a mountain, because",
)
NUM_STEPS = 48
START = """
import sys, time
started_s = time.perf_counter()
from octavo import LLM, SamplingParams
llm = LLM(sys.argv[1], device="cpu", backend="jax", dtype="float32", max_num_seqs=8, quiet=True,
          max_num_batched_tokens=512, options={"compilation_cache": sys.argv[2]})
ready_s = time.perf_counter()
llm.generate(["The capital of France is"], SamplingParams(max_tokens=1), use_tqdm=False)
print(ready_s - started_s, time.perf_counter() - started_s)
"""


def open_llm(backend: str, dtype: str, **options: object) -> LLM:
    limits = {"max_num_seqs": 8, "max_num_batched_tokens": 512, "max_model_len": 1024}
    return LLM(
        str(make_hf_folder()),
        device="cpu",
        backend=backend,
        dtype=dtype,
        kv_cache_memory_bytes=1 << 29,
        enable_prefix_caching=False,
        quiet=True,
        **{**limits, **options},
    )


def greedy_tokens(llm: LLM) -> list[list[int]]:
    params = SamplingParams(max_tokens=64, temperature=0, ignore_eos=True)
    outputs = llm.generate(list(TEXTS), params, use_tqdm=False)
    return [list(output.outputs[0].token_ids) for output in outputs]


def seconds_per_step(llm: LLM, num_seqs: int, name: str) -> float:
    """Of steps in which all of so many requests decode, at a context of about 100 tokens."""
    engine = llm.loaded.engine
    params = SamplingParams(
        max_tokens=NUM_STEPS + 8, temperature=0, ignore_eos=True, detokenize=False
    )
    rng = np.random.default_rng(0)
    for index in range(num_seqs):
        engine.add_request(f"{name}-{index}", rng.integers(9, 9000, 64).tolist(), params)
    for _ in range(4):  # the prompts, and steps until results come regularly
        engine.step()
    started_s = time.perf_counter()
    for _ in range(NUM_STEPS):
        engine.step()
    elapsed_s = time.perf_counter() - started_s
    while engine.has_unfinished_requests:
        engine.step()
    return elapsed_s / NUM_STEPS


def decode(rounds: int) -> Iterator[str]:
    llms = {way: open_llm(*way) for way in WAYS}
    yield from tokens(llms)
    yield "| batch | numpy float32 | jax float32 | jax bfloat16 | jax / numpy | bf16 / f32 |"
    yield "|---|---|---|---|---|---|"
    for num_seqs in (1, 8):
        for llm in llms.values():
            seconds_per_step(llm, num_seqs, "warm")
        taken = [
            {way: seconds_per_step(llm, num_seqs, str(index)) for way, llm in llms.items()}
            for index in range(rounds)
        ]
        rates = [num_seqs / median(each[way] for each in taken) for way in WAYS]
        gains = [[each[WAYS[low]] / each[WAYS[low + 1]] for each in taken] for low in (0, 1)]
        shown = [f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})" for ratios in gains]
        yield f"| {num_seqs} | " + " | ".join([*(f"{rate:.1f}" for rate in rates), *shown]) + " |"
    yield from host(llms["jax", "float32"])


def tokens(llms: dict[tuple[str, str], LLM]) -> Iterator[str]:
    expected, found = (greedy_tokens(llms[way]) for way in WAYS[:2])
    same = sum(a == b for a, b in zip(expected, found, strict=True))
    yield f"{same} of {len(TEXTS)} greedy answers of 64 tokens are those of NumPy, in float32."


def host(llm: LLM) -> Iterator[str]:
    """What a launch costs, the step before being computed by other threads meanwhile."""
    runner = llm.loaded.engine.runner
    launches, calls = Timer(runner.launch), Timer(Program.__call__)
    runner.launch = launches

    def call(*arguments: Any) -> Any:
        return calls(*arguments)

    with patch.object(Program, "__call__", call):
        for num_seqs in (1, 8):
            launches.clear()
            calls.clear()
            seconds_per_step(llm, num_seqs, "host")
            own = 1e3 * sum(calls.thread_s) / len(launches.thread_s)
            yield (
                f"A launch of {num_seqs} decodes takes {1e3 * median(launches.thread_s):.2f} ms "
                f"of its thread, {own:.2f} ms of that to call programs; from its beginning to its "
                f"end {1e3 * median(launches.elapsed_s):.2f} ms."
            )
    runner.launch = launches.function


class Timer:
    """A function, and how long each call of it has taken."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.elapsed_s: list[float] = []
        self.thread_s: list[float] = []

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        began_s, thread_s = time.perf_counter(), time.thread_time()
        result = self.function(*arguments, **named)
        self.elapsed_s.append(time.perf_counter() - began_s)
        self.thread_s.append(time.thread_time() - thread_s)
        return result

    def clear(self) -> None:
        self.elapsed_s.clear()
        self.thread_s.clear()


def start(rounds: int) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", START, str(make_hf_folder()), folder]
        for name in ("empty", *["warm"] * rounds):
            started_s = time.perf_counter()
            ended = subprocess.run(command, capture_output=True, text=True, check=True)
            ready_s, first_s = map(float, ended.stdout.split())
            whole_s = time.perf_counter() - started_s
            yield (
                f"Compilation cache {name}: ready after {ready_s:.1f} s, the first token after "
                f"{first_s:.1f} s, the process ended after {whole_s:.1f} s."
            )


def mixed(num_requests: int) -> Iterator[str]:
    """Requests of all kinds, at random; a program that is compiled meanwhile is an error."""
    llm = open_llm("jax", "float32", load_format="dummy", hf_overrides={"num_hidden_layers": 2})
    rng = random.Random(0)
    kinds: list[Callable[[], dict[str, object]]] = [
        lambda: {"temperature": 0},
        lambda: {"temperature": rng.uniform(0.3, 1.5)},
        lambda: {"top_p": rng.uniform(0.2, 1), "top_k": rng.choice([0, 5, 60])},
        lambda: {"min_p": rng.uniform(0, 0.3), "seed": rng.randrange(99)},
        lambda: {"logprobs": rng.choice([0, 1, 5, 20])},
        lambda: {"prompt_logprobs": rng.choice([0, 3])},
        lambda: {"n": rng.choice([2, 5]), "seed": rng.randrange(99)},
        lambda: {"repetition_penalty": 1.2, "presence_penalty": 0.3},
        lambda: {"frequency_penalty": 0.5, "logprobs": 2},
        lambda: {"logit_bias": {rng.randrange(9000): 5.0}},
        lambda: {"allowed_token_ids": rng.sample(range(9000), 50)},
        lambda: {"structured_outputs": {"choice": ["yes", "no", "perhaps"]}},
    ]
    params, prompts = [], []
    for _ in range(num_requests):
        params.append(SamplingParams(max_tokens=rng.randint(1, 40), **rng.choice(kinds)()))
        length = rng.choice([1, 3, 20, 90, 300, 700])
        prompts.append({"prompt_token_ids": [rng.randrange(9, 9000) for _ in range(length)]})
    compiled = count_programs()
    with compilation_is_an_error():
        outputs = llm.generate(prompts, params, use_tqdm=False)
    answers = [answer for output in outputs for answer in output.outputs]
    num_tokens = sum(len(answer.token_ids) for answer in answers)
    failed = sum(answer.finish_reason == "error" for answer in answers)
    yield (
        f"{num_requests} requests of all kinds, {num_tokens} tokens: {failed} failed, "
        f"{count_programs() - compiled} programs were compiled after the {compiled} before."
    )


def count_programs() -> int:
    import gc

    gc.collect()  # those of the part before
    return sum(each.num_compiled for each in gc.get_objects() if type(each) is Program)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--part", nargs="*", choices=("decode", "start", "mixed"))
    arguments = parser.parse_args()
    parts = {
        "decode": lambda: decode(arguments.rounds),
        "start": lambda: start(arguments.rounds),
        "mixed": lambda: mixed(arguments.requests),
    }
    with contextlib.suppress(KeyboardInterrupt):
        for name in arguments.part or parts:
            for line in parts[name]():
                print(line, flush=True)


if __name__ == "__main__":
    main()
