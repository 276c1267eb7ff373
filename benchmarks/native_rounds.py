"""What every engine does in its turns: single requests, batches, growing contexts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import workload
from native_machine import Machine
from offline import run_batch, run_single
from report import Round
from worker import Worker

BATCH_ENGINES = (
    "octavo",
    "octavo_4bit",
    "vllm",
    "vllm_default",
)  # the others would take minutes a round
CONTEXT_LENS = (1_000, 2_000, 4_000, 8_000)
CONTEXT_STEPS = 48


def rotated(workers: Sequence[Worker], round_index: int) -> list[Worker]:
    first = round_index % len(workers)
    return [*workers[first:], *workers[:first]]


def speed_rounds(
    workers: Sequence[Worker], machine: Machine, arguments: argparse.Namespace
) -> dict[str, list[Round]]:
    """Single requests of all engines, and the batch of those that can batch."""

    def single(worker: Worker, index: int) -> dict[str, float]:
        return machine.beside(worker, lambda: run_single(worker, index))

    def batch(worker: Worker, index: int) -> dict[str, float]:
        return machine.beside(worker, lambda: run_batch(worker, index, arguments.scale))

    batching = [worker for worker in workers if worker.name in BATCH_ENGINES]
    return {
        "single": alternate(workers, arguments.rounds, single),
        "batch": alternate(batching, arguments.batch_rounds, batch),
    }


def alternate(
    workers: Sequence[Worker], rounds: int, turn: Callable[[Worker, int], dict[str, float]]
) -> list[Round]:
    """One turn of every engine a round; who begins changes from round to round."""
    results = []
    for index in range(rounds):
        results.append({worker.name: turn(worker, index) for worker in rotated(workers, index)})
        print(f"round {index + 1} of {rounds} done", file=sys.stderr, flush=True)
    return results


def context_rounds(
    workers: Sequence[Worker], machine: Machine, arguments: argparse.Namespace
) -> dict[str, list[Round]]:
    """Milliseconds a token at each context; the prompts are in the prefix cache by then.

    All contexts begin alike, so that one prefill serves them all. A request of one token takes what
    the last, uncached block of the prompt takes; a request of more takes that and the steps.
    """
    prompt = workload.single(max(CONTEXT_LENS), 1, seed=11).prompts[0]

    def step_ms(worker: Worker, context_len: int) -> float:
        start = (prompt[:context_len],)
        first_s = worker.generate(workload.Work(start, (1,))).seconds
        all_s = worker.generate(workload.Work(start, (1 + CONTEXT_STEPS,))).seconds
        return 1e3 * (all_s - first_s) / CONTEXT_STEPS

    def turn(worker: Worker, index: int) -> dict[str, float]:
        del index
        return machine.beside(worker, lambda: {str(n): step_ms(worker, n) for n in CONTEXT_LENS})

    for worker in workers:
        worker.generate(workload.Work((prompt,), (1,)))
    return {"context": alternate(workers, arguments.rounds, turn)}


def shape_rounds(
    workers: Sequence[Worker], machine: Machine, arguments: argparse.Namespace
) -> dict[str, list[Round]]:
    """Single requests, and 16 requests of 128 tokens in and 64 out."""

    def turn(worker: Worker, index: int) -> dict[str, float]:
        requests = [workload.single(128, 64, 5_000 + 16 * index + i) for i in range(16)]
        batch = workload.Work(tuple(r.prompts[0] for r in requests), (64,) * 16)
        return machine.beside(
            worker,
            lambda: (
                run_single(worker, index)
                | {"batch_output_tok_s": batch.num_output_tokens / worker.generate(batch).seconds}
            ),
        )

    return {"shape": alternate(workers, arguments.shape_rounds, turn)}


ROUNDS: dict[str, Callable[..., dict[str, list[Round]]]] = {
    "speed": speed_rounds,
    "context": context_rounds,
    "shape": shape_rounds,
}
