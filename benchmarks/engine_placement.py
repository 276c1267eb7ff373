"""Where the engine's step loop runs best: in a thread of the server, or in a process of its own.

    python benchmarks/engine_placement.py                  all workloads
    python benchmarks/engine_placement.py --only fake      steps that cost only Octavo's Python
    python benchmarks/engine_placement.py --only busy      a front end that has other things to do

Two servers of the same model are up, one of each placement, and take turns at answering 64 streams
over HTTP; the ratio within a round is the figure to quote. Reported beside it: processor time of
all the server's processes per token, and when tokens arrive.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from make_hf_model import GGUF_PATH
from octavo import SamplingParams
from octavo.config import EngineConfig
from octavo.server.engines.client import EngineClient
from octavo.server.engines.load import load_engine_client
from server_process import ServerProcess
from serving import Load, alternate, octavo_server, run_streams, streams_work

PLACEMENTS = ("thread", "process")


@dataclass(frozen=True)
class Workload:
    """A device, and how long the answers of 64 streams are."""

    summary: str
    output_len: int
    latency_s: float | None = None
    """Of the fake device's steps; None: SmolLM2 on the numpy backend."""


WORKLOADS = {
    "fake": Workload("a device whose steps take no time", 256, 0.0),
    "fake-5ms": Workload("a device whose steps take 5 ms", 256, 0.005),
    "fake-20ms": Workload("a device whose steps take 20 ms", 128, 0.020),
    "numpy": Workload("SmolLM2-135M on the numpy backend", 32),
}


@dataclass(frozen=True)
class Turn:
    """One server's turn in one round."""

    load: Load
    cpu_s: float

    def figures(self) -> dict[str, float]:
        load = self.load
        return {
            "tokens_per_s": load.tokens_per_s,
            "cpu_us_per_token": self.cpu_s / load.num_tokens * 1e6,
            "first_token_p50_ms": median(load.first_token_s) * 1e3,
            "first_token_p99_ms": quantiles(load.first_token_s, n=100)[98] * 1e3,
            "inter_token_p50_ms": median(load.inter_token_s) * 1e3,
        }


def start_servers(
    stack: ExitStack, workload: Workload, arguments: argparse.Namespace
) -> list[ServerProcess]:
    if workload.latency_s is None:
        options = ["--device", "cpu", "--backend", "numpy"]
    else:
        plugins = Path(stack.enter_context(tempfile.TemporaryDirectory()), "plugins.toml")
        plugins.write_text(
            "schema = 1\n[options.fake]\ncompute = false\n"
            f"memory_bytes = {64 << 30}\nlatency_s = {workload.latency_s}\n",
            encoding="utf-8",
        )
        options = ["--device", "fake", "--load-format", "dummy", "--plugins-file", str(plugins)]
    return [
        octavo_server(
            stack, str(arguments.gguf), arguments, "--engine-placement", placement, *options
        )
        for placement in PLACEMENTS
    ]


def take_turn(server: ServerProcess, seed: int, output_len: int) -> Turn:
    cpu_s = server.front_end_cpu_s + server.engine_cpu_s
    load = run_streams(server.port, streams_work(seed, 64, output_len))
    return Turn(load, server.front_end_cpu_s + server.engine_cpu_s - cpu_s)


def measure(workload: Workload, arguments: argparse.Namespace) -> list[dict[str, dict[str, float]]]:
    """Rounds: the figures of both placements."""
    with ExitStack() as stack:
        servers = start_servers(stack, workload, arguments)
        turns: list[dict[str, Turn]] = [{} for _ in range(arguments.rounds)]

        def side(number: int, index: int) -> float:
            turn = take_turn(servers[number], 2 * index + number, workload.output_len)
            if index < arguments.rounds:
                turns[index][PLACEMENTS[number]] = turn
            return turn.load.tokens_per_s

        for number in range(len(servers)):
            side(number, 1000)  # to warm up
        alternate(arguments.rounds, lambda index: side(0, index), lambda index: side(1, index))
    return [{name: turn.figures() for name, turn in round_.items()} for round_ in turns]


async def steps_per_s(engine: EngineClient, body: str | None) -> float:
    """Of 8 streams, while the event loop rests or reads ``body`` again and again."""
    params = SamplingParams(temperature=0, max_tokens=900, ignore_eos=True)
    streams = [await engine.submit(str(index), [index + 1], params) for index in range(8)]
    before, start = (await engine.snapshot()).stats.num_steps, time.perf_counter()
    while time.perf_counter() < start + 1.5:
        if body is not None:
            json.loads(body)
        await asyncio.sleep(0 if body else 0.1)
    num_steps = (await engine.snapshot()).stats.num_steps - before
    rate = num_steps / (time.perf_counter() - start)
    for stream in streams:
        stream.close()
    return rate


async def measure_busy(arguments: argparse.Namespace) -> list[dict[str, dict[str, float]]]:
    config = EngineConfig(
        model=str(arguments.gguf),
        device="fake",
        load_format="dummy",
        max_model_len=1024,
        options={"compute": False, "latency_s": 0.005},
        quiet=True,
    )
    body = json.dumps({"prompt": list(range(600_000))})
    rounds: list[dict[str, dict[str, float]]] = [{} for _ in range(arguments.rounds)]
    for placement in PLACEMENTS:
        engine = await load_engine_client(config, placement)
        for round_ in rounds:
            at_rest, busy = await steps_per_s(engine, None), await steps_per_s(engine, body)
            round_[placement] = {"at_rest": at_rest, "busy": busy, "percent": 100 * busy / at_rest}
        await engine.close()
    return rounds


def report(rounds: list[dict[str, dict[str, float]]]) -> None:
    for placement in PLACEMENTS:
        parts = [
            f"{name} {median(round_[placement][name] for round_ in rounds):.1f}"
            for name in rounds[0][placement]
        ]
        print(f"  {placement:8}", ", ".join(parts), flush=True)
    ratios = {
        name: median(round_["process"][name] / round_["thread"][name] for round_ in rounds)
        for name in rounds[0]["process"]
    }
    print("  process / thread:", ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--only", choices=[*WORKLOADS, "busy"])
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    parser.add_argument("--gguf", type=Path, default=GGUF_PATH)
    parser.add_argument("--log", type=Path, help="where the servers' output goes")
    parser.add_argument("--json", type=Path, help="write every figure there")
    arguments = parser.parse_args()
    results = {}
    for name in [arguments.only] if arguments.only else [*WORKLOADS, "busy"]:
        if name == "busy":
            print("busy: steps a second of 8 streams, the event loop at rest or reading JSON")
            results[name] = asyncio.run(measure_busy(arguments))
        else:
            print(f"{name}: 64 streams, {WORKLOADS[name].summary}", flush=True)
            results[name] = measure(WORKLOADS[name], arguments)
        report(results[name])
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
