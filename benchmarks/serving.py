"""What HTTP costs: streams against the offline engine, the first token, the front end alone.

    python benchmarks/serving.py                       all of Octavo's own figures
    python benchmarks/serving.py --part throughput,first_token,front_end
    python benchmarks/serving.py --part peer --peer-python ~/vllm/bin/python

Everything that is compared takes turns in one run, round by round, since a shared machine moves by
2x from one run to the next; the ratio within a round is the figure to quote. All servers and
clients are on this machine's loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import http_client
import workload
from engines import EngineOptions
from make_hf_model import GGUF_PATH, make_hf_folder
from server_process import ServerProcess
from worker import THREAD_VARIABLES, Worker

PARTS = ("throughput", "first_token", "front_end", "peer")
NUM_STREAMS = 64
FAKE_DEVICE = "schema = 1\n[options.fake]\ncompute = false\n"
NAME = "bench"


@dataclass(frozen=True)
class Load:
    """What a round of streams took; times of single requests in seconds."""

    seconds: float
    num_tokens: int
    first_token_s: list[float]
    inter_token_s: list[float]

    @property
    def tokens_per_s(self) -> float:
        return self.num_tokens / self.seconds


def body(prompt: tuple[int, ...], output_len: int, **changes: object) -> dict[str, object]:
    return {
        "model": NAME,
        "prompt": list(prompt),
        "max_tokens": output_len,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        **changes,
    }


async def stream(port: int, prompt: tuple[int, ...], output_len: int) -> http_client.Answer:
    """One completion; raises unless every token has come."""
    answer = await http_client.post(port, "/v1/completions", body(prompt, output_len))
    text = answer.body.decode("utf-8", "replace")
    found = f'"completion_tokens":{output_len}' in text.replace('": ', '":')
    if answer.status != 200 or not found:
        raise SystemExit(f"status {answer.status}, not {output_len} tokens: {text[-500:]}")
    return answer


def run_streams(port: int, work: workload.Work) -> Load:
    """All requests of ``work`` at once."""

    async def all_at_once() -> tuple[float, list[http_client.Answer]]:
        start = time.perf_counter()
        answers = await asyncio.gather(
            *(
                stream(port, prompt, output_len)
                for prompt, output_len in zip(work.prompts, work.output_lens, strict=True)
            )
        )
        return time.perf_counter() - start, answers

    seconds, answers = asyncio.run(all_at_once())
    first = [answer.first_event_s or answer.total_s for answer in answers]
    inter = [
        (answer.total_s - begun) / max(1, output_len - 1)
        for answer, begun, output_len in zip(answers, first, work.output_lens, strict=True)
    ]
    return Load(seconds, work.num_output_tokens, first, inter)


def streams_work(seed: int, prompt_len: int, output_len: int) -> workload.Work:
    """64 equal requests of fresh prompts."""
    works = [
        workload.single(prompt_len, output_len, 1000 * seed + index) for index in range(NUM_STREAMS)
    ]
    return workload.Work(tuple(w.prompts[0] for w in works), (output_len,) * NUM_STREAMS)


def threads_environment(num_threads: int) -> dict[str, str]:
    return dict.fromkeys(THREAD_VARIABLES, str(num_threads))


def octavo_server(
    stack: ExitStack, model: str, arguments: argparse.Namespace, *more: str
) -> ServerProcess:
    server = ServerProcess(
        [model, "--served-model-name", NAME, "--no-log-requests", "--quiet", *more],
        environment=threads_environment(arguments.threads),
        log=arguments.log,
    )
    stack.callback(server.close)
    return server


def offline_worker(stack: ExitStack, arguments: argparse.Namespace) -> Worker:
    worker = Worker(
        "octavo",
        EngineOptions(
            hf_folder=str(arguments.gguf),
            gguf_path=str(arguments.gguf),
            dtype="float32",
            num_threads=arguments.threads,
        ),
    )
    stack.callback(worker.close)
    worker.wait_ready()
    return worker


def alternate(rounds: int, *sides: Callable[[int], float]) -> list[tuple[float, ...]]:
    """Run every side once a round, the first one to go changing."""
    results = []
    for index in range(rounds):
        order = list(range(len(sides)))
        order = order[index % len(sides) :] + order[: index % len(sides)]
        found = {side: sides[side](index) for side in order}
        results.append(tuple(found[side] for side in range(len(sides))))
    return results


def measure_throughput(arguments: argparse.Namespace) -> dict[str, object]:
    """64 streams over HTTP against the same 64 requests offline, on the CPU model."""
    with ExitStack() as stack:
        worker = offline_worker(stack, arguments)
        server = octavo_server(
            stack, str(arguments.gguf), arguments, "--device", "cpu", "--dtype", "float32"
        )

        def offline(index: int) -> float:
            work = streams_work(2 * index, 64, arguments.output_len)
            return work.num_output_tokens / worker.generate(work).seconds

        def over_http(index: int) -> float:
            work = streams_work(2 * index + 1, 64, arguments.output_len)
            return run_streams(server.port, work).tokens_per_s

        offline(1000), over_http(1000)
        pairs = alternate(arguments.rounds, offline, over_http)
    return {
        "offline_tok_s": median(pair[0] for pair in pairs),
        "http_tok_s": median(pair[1] for pair in pairs),
        "http_share": median(pair[1] / pair[0] for pair in pairs),
        "pairs": pairs,
    }


def measure_first_token(arguments: argparse.Namespace) -> dict[str, object]:
    """The time of a one-token answer, offline and over HTTP, one request at a time."""
    with ExitStack() as stack:
        worker = offline_worker(stack, arguments)
        server = octavo_server(
            stack, str(arguments.gguf), arguments, "--device", "cpu", "--dtype", "float32"
        )

        def offline(index: int) -> float:
            return worker.generate(workload.single(16, 1, 50_000 + index)).seconds

        def over_http(index: int) -> float:
            prompt = workload.single(16, 1, 90_000 + index).prompts[0]
            answer = asyncio.run(stream(server.port, prompt, 1))
            return answer.first_event_s or answer.total_s

        for index in range(5):
            offline(1000 + index), over_http(1000 + index)
        pairs = alternate(20 * arguments.rounds, offline, over_http)
    return {
        "offline_ms": 1e3 * median(pair[0] for pair in pairs),
        "http_ms": 1e3 * median(pair[1] for pair in pairs),
        "http_adds_ms": 1e3 * median(pair[1] - pair[0] for pair in pairs),
        "num_pairs": len(pairs),
    }


def measure_front_end(arguments: argparse.Namespace) -> dict[str, object]:
    """On a device that computes nothing: tokens a second, and what each process spent on them."""
    hf_folder = make_hf_folder(arguments.gguf, arguments.hf_folder)
    rounds = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        plugins = Path(folder) / "plugins.toml"
        plugins.write_text(FAKE_DEVICE, encoding="utf-8")
        server = octavo_server(
            stack, str(hf_folder), arguments, "--device", "fake", "--plugins-file", str(plugins)
        )
        run_streams(server.port, streams_work(0, 64, 64))
        for index in range(arguments.rounds):
            before = server.front_end_cpu_s, server.engine_cpu_s
            load = run_streams(server.port, streams_work(index + 1, 64, 512))
            front_end_s = server.front_end_cpu_s - before[0]
            engine_s = server.engine_cpu_s - before[1]
            rounds.append(
                {
                    "tok_s": load.tokens_per_s,
                    "front_end_us_per_token": 1e6 * front_end_s / load.num_tokens,
                    "engine_us_per_token": 1e6 * engine_s / load.num_tokens,
                    "tok_per_front_end_core_s": load.num_tokens / front_end_s,
                }
            )
    return {name: median(each[name] for each in rounds) for name in rounds[0]} | {"rounds": rounds}


def measure_peer(arguments: argparse.Namespace) -> dict[str, object]:
    """The same streams against vLLM's server: both are loaded, one works at a time."""
    if arguments.peer_python is None:
        raise SystemExit("--part peer needs --peer-python, the Python of an environment with vLLM")
    hf_folder = str(make_hf_folder(arguments.gguf, arguments.hf_folder))
    results: dict[str, list[Load]] = {"octavo": [], "vllm": []}
    with ExitStack() as stack:
        octavo = octavo_server(stack, hf_folder, arguments, "--device", "cpu")
        vllm = ServerProcess(
            [
                *("--model", hf_folder, "--served-model-name", NAME, "--host", "127.0.0.1"),
                *("--dtype", arguments.peer_dtype, "--max-model-len", "2048"),
            ],
            command=[arguments.peer_python, "-m", "vllm.entrypoints.openai.api_server"],
            environment={
                "VLLM_CPU_KVCACHE_SPACE": "4",
                "HF_HUB_OFFLINE": "1",
                **threads_environment(arguments.threads),
            },
            log=arguments.log,
        )
        stack.callback(vllm.close)
        servers = {"octavo": octavo, "vllm": vllm}
        for name, server in servers.items():
            run_streams(server.port, streams_work(500, 64, 8))
            print(f"{name}: ready after {server.start_s:.1f} s", flush=True)
        for index in range(arguments.rounds):
            order = list(servers) if index % 2 == 0 else list(servers)[::-1]
            for name in order:
                work = streams_work(600 + index, 64, arguments.output_len)
                results[name].append(run_streams(servers[name].port, work))
            print(f"round {index + 1} of {arguments.rounds} done", flush=True)
    figures: dict[str, object] = {
        name: {
            "start_s": servers[name].start_s,
            "tok_s": median(load.tokens_per_s for load in loads),
            "first_token_p50_s": median(t for load in loads for t in load.first_token_s),
            "inter_token_p50_s": median(t for load in loads for t in load.inter_token_s),
            "inter_token_p99_s": quantiles((t for x in loads for t in x.inter_token_s), n=100)[98],
        }
        for name, loads in results.items()
    }
    pairs = zip(results["octavo"], results["vllm"], strict=True)
    return figures | {"ratio": [a.tokens_per_s / b.tokens_per_s for a, b in pairs]}


MEASURES = {
    "throughput": measure_throughput,
    "first_token": measure_first_token,
    "front_end": measure_front_end,
    "peer": measure_peer,
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--part",
        action="extend",
        type=lambda text: text.split(","),
        help=f"{', '.join(PARTS)} (default: all but peer)",
    )
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--output-len", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    parser.add_argument("--gguf", type=Path, default=GGUF_PATH)
    parser.add_argument("--hf-folder", type=Path, default=None, help="default: made from the GGUF")
    parser.add_argument("--peer-python", help="the Python of an environment with vLLM")
    parser.add_argument("--peer-dtype", default="bfloat16", help="default: %(default)s")
    parser.add_argument("--log", type=Path, help="where the servers' output goes")
    parser.add_argument("--json", type=Path, help="write every figure there")
    arguments = parser.parse_args()
    arguments.part = arguments.part or [part for part in PARTS if part != "peer"]
    if unknown := [part for part in arguments.part if part not in MEASURES]:
        parser.error(f"--part {', '.join(unknown)}: unknown; choose from {', '.join(PARTS)}")
    if arguments.hf_folder is None:
        from make_hf_model import HF_FOLDER

        arguments.hf_folder = HF_FOLDER
    return arguments


def main() -> int:
    arguments = parse_arguments()
    results = {}
    for part in arguments.part:
        results[part] = MEASURES[part](arguments)
        print(f"{part}: {json.dumps(results[part], indent=2)}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
