"""Where the engine's step loop runs best: in a thread of the server, or in a process of its own.

python benchmarks/engine_placement.py                 all workloads, the placements taking turns
python benchmarks/engine_placement.py --runs 1 --only fake

Each run is a new process that answers 64 prompts at once and, as a server does, makes a JSON event
of every output and writes it to a socket that another process reads. ``offline`` is the same engine
stepped in a plain loop with nobody listening. Needs Linux for the CPU times.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from octavo import SamplingParams
from octavo.config import EngineConfig
from octavo.sampling_params import RequestOutputKind

MODEL = "models/SmolLM2-135M-Instruct.Q4_1.gguf"
PLACEMENTS = ("offline", "thread", "process")
SINK = "import sys\nwhile sys.stdin.buffer.raw.read(1 << 16): pass"


@dataclass(frozen=True)
class Workload:
    """64 streams at once on a device."""

    summary: str
    num_tokens: int
    options: dict[str, Any] = field(default_factory=dict)
    prompt_len: int = 32
    num_streams: int = 64

    def config(self, model: str) -> EngineConfig:
        fields = {"device": "cpu", "backend": "numpy", **self.options}
        return EngineConfig(
            model=model, max_model_len=1024, kv_cache_memory_bytes=3 << 30, quiet=True, **fields
        )

    def params(self) -> SamplingParams:
        return SamplingParams(
            temperature=0,
            max_tokens=self.num_tokens,
            ignore_eos=True,
            output_kind=RequestOutputKind.DELTA,
        )

    def prompts(self) -> list[list[int]]:
        return [
            [1000 + 37 * stream + place for place in range(self.prompt_len)]
            for stream in range(self.num_streams)
        ]


def fake(latency_s: float) -> dict[str, Any]:
    options = {"compute": False, "latency_s": latency_s}
    return {"device": "fake", "backend": "fake", "load_format": "dummy", "options": options}


WORKLOADS = {
    "fake": Workload("no device: steps cost what Octavo's Python costs", 400, fake(0)),
    "fake-5ms": Workload("a device that takes 5 ms a step", 400, fake(0.005)),
    "fake-20ms": Workload("a device that takes 20 ms a step", 150, fake(0.020)),
    "numpy": Workload("SmolLM2-135M on the numpy backend", 32),
}


def cpu_seconds(process_id: int) -> float:
    """User and system time of a process and its threads so far."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_offline(workload: Workload, model: str) -> dict[str, float]:
    from octavo.engine_loader import load_engine
    from octavo.open_device import open_device

    config = workload.config(model)
    engine = load_engine(config, open_device(config)).engine
    for index, prompt in enumerate(workload.prompts()):
        engine.add_request(str(index), prompt, workload.params())
    cpu_s, started_s, num_outputs = cpu_seconds(os.getpid()), time.perf_counter(), 0
    while engine.has_unfinished_requests:
        num_outputs += len(engine.step())
    wall_s = time.perf_counter() - started_s
    return _record(workload, wall_s, cpu_seconds(os.getpid()) - cpu_s, 0.0)


def _record(
    workload: Workload, wall_s: float, engine_cpu_s: float, front_cpu_s: float, **more: float
) -> dict[str, float]:
    num_tokens = workload.num_streams * workload.num_tokens
    return {
        "tokens_per_s": num_tokens / wall_s,
        "cpu_us_per_token": (engine_cpu_s + front_cpu_s) / num_tokens * 1e6,
        "front_cpu_us_per_token": front_cpu_s / num_tokens * 1e6,
        **more,
    }


async def run_served(workload: Workload, model: str, placement: Any) -> dict[str, float]:
    from octavo.server.load import load_engine_client

    engine = await load_engine_client(workload.config(model), placement)
    sink = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SINK, stdin=asyncio.subprocess.PIPE
    )
    assert sink.stdin is not None
    process = getattr(engine, "process", None)
    pids = [os.getpid()] + ([process.process_id] if process else [])
    first_s: list[float] = []
    gaps_s: list[float] = []
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

    async def answer(index: int, prompt: list[int]) -> None:
        asked_s = last_s = time.perf_counter()
        is_first = True
        stream = await engine.submit(f"cmpl-{index:032}", prompt, workload.params())
        async for output in stream:
            [delta] = output.outputs
            chunk = {
                "id": output.request_id,
                "object": "text_completion",
                "created": 1_700_000_000,
                "model": "SmolLM2-135M-Instruct",
                "choices": [
                    {
                        "index": delta.index,
                        "text": delta.text,
                        "logprobs": None,
                        "finish_reason": delta.finish_reason,
                    }
                ],
            }
            sink.stdin.write(f"data: {encode(chunk)}\n\n".encode())
            await sink.stdin.drain()
            now_s = time.perf_counter()
            if is_first:
                first_s.append(now_s - asked_s)
            else:
                gaps_s.append(now_s - last_s)
            last_s, is_first = now_s, False

    cpu_before = [cpu_seconds(pid) for pid in pids]
    started_s = time.perf_counter()
    await asyncio.gather(*(answer(*pair) for pair in enumerate(workload.prompts())))
    wall_s = time.perf_counter() - started_s
    cpu_s = [cpu_seconds(pid) - before for pid, before in zip(pids, cpu_before, strict=True)]
    sink.stdin.close()
    await sink.wait()
    await engine.close()
    return _record(
        workload,
        wall_s,
        cpu_s[1] if process else 0.0,
        cpu_s[0],
        first_token_ms=median(first_s) * 1e3,
        gap_p50_ms=median(gaps_s) * 1e3,
        gap_p99_ms=quantiles(gaps_s, n=100)[98] * 1e3,
    )


def run_once(name: str, placement: str, model: str) -> dict[str, float]:
    """In a process of its own."""
    command = [sys.executable, __file__, "--one", name, placement, "--model", model]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout))


def summarise(runs: dict[str, list[dict[str, float]]]) -> None:
    offline = [run["tokens_per_s"] for run in runs["offline"]]
    for placement, records in runs.items():
        speeds = [record["tokens_per_s"] for record in records]
        shares = [speed / alone for speed, alone in zip(speeds, offline, strict=True)]
        parts = [f"{median(speeds):8.0f} tokens/s, {median(shares):6.1%} of offline"]
        for key in records[0]:
            if key != "tokens_per_s":
                value = median(record[key] for record in records)
                parts.append(f"{key} {value:.1f}")
        print(f"  {placement:8} {', '.join(parts)}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5, help="of each placement, taking turns")
    parser.add_argument("--only", choices=WORKLOADS)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        name, placement = arguments.one
        if placement == "offline":
            record = run_offline(WORKLOADS[name], arguments.model)
        else:
            record = asyncio.run(run_served(WORKLOADS[name], arguments.model, placement))
        print(json.dumps(record))
        return 0
    results = {}
    for name in [arguments.only] if arguments.only else WORKLOADS:
        print(f"{name}: {WORKLOADS[name].summary}", flush=True)
        runs: dict[str, list[dict[str, float]]] = {placement: [] for placement in PLACEMENTS}
        for _ in range(arguments.runs):
            for placement in PLACEMENTS:
                runs[placement].append(run_once(name, placement, arguments.model))
        summarise(runs)
        results[name] = runs
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
