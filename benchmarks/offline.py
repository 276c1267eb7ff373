"""Offline speed of several engines on the same token ids, taking turns in one run.

    python benchmarks/offline.py --engine octavo,transformers
    python benchmarks/offline.py --engine octavo --engine llama_cpp --work single --threads 2

Each engine sits in a process of its own with its weights loaded, and they run one at a time,
A B A B, with the machine's own limits measured in between: on a shared machine figures move by 2x
from one run to the next, so the ratios within a round are what to quote.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import report
import workload
from contenders import Contender, add_python_option, missing, start
from engines import INSTALL, EngineOptions
from make_hf_model import GGUF_PATH, make_hf_folder
from worker import Worker, WorkerError

WORKS = ("single", "batch")


def run_single(worker: Worker, round_index: int) -> dict[str, float]:
    """Prefill of 128 and 1,024 tokens, and the decode rate of one request (128 in, 128 out)."""
    # Every call has its own prompt, so that no prefix cache can answer for the engine.
    seed = 10 * round_index
    prefill_128 = worker.generate(workload.single(128, 1, seed + 100)).seconds
    prefill_1024 = worker.generate(workload.single(1024, 1, seed + 101)).seconds
    whole = worker.generate(workload.single(128, 128, seed + 102)).seconds
    return {
        "prefill_128_tok_s": 128 / prefill_128,
        "prefill_1024_tok_s": 1024 / prefill_1024,
        "decode_tok_s": 127 / (whole - prefill_128),
    }


def run_batch(worker: Worker, round_index: int, scale: float) -> dict[str, float]:
    """The seeded batch; tokens that nobody asked for do not count."""
    work = workload.batch(round_index, scale)
    seconds = worker.generate(work).seconds
    return {
        "batch_output_tok_s": work.num_output_tokens / seconds,
        "batch_total_tok_s": (work.num_input_tokens + work.num_output_tokens) / seconds,
    }


def run_round(
    workers: list[Worker], machine: Worker, round_index: int, arguments: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """One turn of every engine; who begins changes from round to round."""
    first = round_index % len(workers)
    results: dict[str, dict[str, float]] = {worker.name: {} for worker in workers}
    results["machine"] = machine.measure("read_gb_per_s", "gemm_gflop_per_s")
    for work in arguments.work:
        for worker in workers[first:] + workers[:first]:
            if work == "single":
                results[worker.name] |= run_single(worker, round_index)
            else:
                results[worker.name] |= run_batch(worker, round_index, arguments.scale)
            worker.settle()
    return results


def compare_tokens(workers: list[Worker]) -> dict[str, int]:
    """How many of 64 greedy tokens each engine shares with the first; also warms all of them up."""
    work = workload.single(64, 64, seed=7)
    outputs = {}
    for worker in workers:
        outputs[worker.name] = worker.generate(work).token_ids[0]
        worker.settle()
    reference = outputs[workers[0].name]
    return {
        name: next(
            (i for i, pair in enumerate(zip(reference, ids, strict=True)) if pair[0] != pair[1]),
            len(reference),
        )
        for name, ids in outputs.items()
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    comma_list = {"action": "extend", "type": lambda text: text.split(",")}
    parser.add_argument(
        "--engine", **comma_list, help=f"repeatable or comma-separated: {', '.join(INSTALL)}"
    )
    parser.add_argument("--work", **comma_list, help="single, batch (default: both)")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="fraction of the batch's 64 requests (default: 1)"
    )
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="per engine (default: all cores)"
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--backend", help="Octavo's (default: the one it chooses)")
    add_python_option(parser)
    parser.add_argument(
        "--static-batch", type=int, default=32, help="transformers' batch size (default: 32)"
    )
    parser.add_argument("--gguf", type=Path, default=GGUF_PATH)
    parser.add_argument("--hf-folder", type=Path, help="default: the GGUF, dequantised once")
    parser.add_argument("--json", type=Path, help="write every figure there")
    arguments = parser.parse_args()
    arguments.engine = list(dict.fromkeys(arguments.engine or ["octavo", "transformers"]))
    arguments.work = list(dict.fromkeys(arguments.work or WORKS))
    for flag, values, known in (
        ("--engine", arguments.engine, INSTALL),
        ("--work", arguments.work, WORKS),
    ):
        if unknown := [value for value in values if value not in known]:
            parser.error(f"{flag} {', '.join(unknown)}: unknown; choose from {', '.join(known)}")
    if not 0 < arguments.scale <= 1:
        parser.error(f"--scale {arguments.scale}: expected a fraction, 0 < scale <= 1")
    if arguments.rounds < 1 or arguments.threads < 1:
        parser.error("--rounds and --threads must be at least 1")
    return arguments


def contenders(arguments: argparse.Namespace) -> list[Contender]:
    """The engines in the order asked for, and the machine behind them."""
    options = EngineOptions(
        hf_folder=str(arguments.hf_folder or make_hf_folder(arguments.gguf)),
        gguf_path=str(arguments.gguf),
        dtype=arguments.dtype,
        num_threads=arguments.threads,
        static_batch_size=arguments.static_batch,
    )
    pythons = dict(arguments.python)
    extra = {"octavo": {"backend": arguments.backend}}
    return [
        Contender(
            name,
            name,
            replace(options, extra=extra.get(name, {})),
            pythons.get(name, sys.executable),
        )
        for name in [*arguments.engine, "machine"]
    ]


def main() -> int:
    arguments = parse_arguments()
    all_contenders = contenders(arguments)
    if lines := missing(all_contenders):
        print("\n".join(lines), file=sys.stderr)
        return 2
    rounds = []
    with ExitStack() as stack:
        try:
            all_workers = start(stack, all_contenders)
            if len(all_workers) < len(all_contenders):
                return 1
            *workers, machine = all_workers
            equal_tokens = compare_tokens(workers)
            for round_index in range(arguments.rounds):
                rounds.append(run_round(workers, machine, round_index, arguments))
                print(f"round {round_index + 1} of {arguments.rounds} done", flush=True)
        except WorkerError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    print(report.table(rounds, arguments.engine, equal_tokens))
    if arguments.json:
        result = {
            "engines": {worker.name: worker.description for worker in workers},
            "arguments": {key: str(value) for key, value in vars(arguments).items()},
            "equal_greedy_tokens_of_64": equal_tokens,
            "rounds": rounds,
        }
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
