"""A server at twice what it can do, among clients that misbehave, has to stay whole.

    python benchmarks/soak.py --minutes 30
    python benchmarks/soak.py --minutes 1 --json soak.json

First a closed loop of streams finds the capacity; then requests arrive at random, at twice that
rate, the excess being refused with 429. Some leave in the middle or before the first token, read
slowly, send malformed bodies, prompts that are too long, or half a request. It ends with status 1
if there was a 5xx, a block was not given back, the memory went on growing, or the slowest
accepted requests became slower from third to third. All on loopback; it stops by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, quantiles
from typing import Any

import http_client
import workload
from http_client import Answer, Left
from make_hf_model import GGUF_PATH
from server_process import ServerProcess

NAME = "soak"
MAX_OPEN = 512  # connections of this client at once; arrivals beyond are counted, and left out
CAPACITY_S = 20.0
WINDOW_S = 10.0
MAX_GROWTH = 1.10  # of the memory, from the second third to the last
MAX_SLOWDOWN = 1.5  # of the 99th percentile, the same

MIX = {  # what arrives, in percent
    "stream": 38,
    "chat": 20,
    "whole": 10,
    "constrained": 5,
    "leave_midway": 8,
    "leave_at_once": 5,
    "slow_reader": 4,
    "malformed": 5,
    "huge_prompt": 3,
    "half_request": 2,
}
MALFORMED = (
    b"{",
    b"",
    b"[]",
    b"null",
    b'{"model": "soak"}',
    b'{"model": "soak", "prompt": null}',
    b'{"model": "soak", "prompt": "x", "max_tokens": -1}',
    b'{"model": "soak", "prompt": "x", "temperature": NaN}',
    b'{"model": "soak", "prompt": [[[1]]]}',
    b'{"model": "soak", "prompt": [99999999]}',
    b'{"model": "nobody", "prompt": "x"}',
    b'{"model": "soak", "prompt": "x", "unheard_of": 1}',
    b'{"model": "soak", "prompt": "\xff\xfe"}',
    b'{"model": "soak", "prompt": "x", "structured_outputs": {"regex": "("}}',
    b"[" * 50_000,
)


@dataclass
class Window:
    """Ten seconds."""

    statuses: Counter[str] = field(default_factory=Counter)
    accepted_s: list[float] = field(default_factory=list)
    resident_bytes: int = 0


@dataclass
class Soak:
    """The run and what it has seen."""

    server: ServerProcess
    rng: random.Random
    output_len: int
    windows: list[Window] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    num_left_out: int = 0

    @property
    def window(self) -> Window:
        return self.windows[-1]

    def note(self, kind: str, answer: Answer) -> None:
        self.window.statuses[f"{kind} {answer.status}"] += 1
        if answer.status >= 500:
            self.faults.append(f"{kind}: {answer.status} {answer.body[:300]!r}")
        # Steady means: requests alike. Others read slowly, leave, or run under a grammar.
        if kind == "stream" and answer.status == 200:
            self.window.accepted_s.append(answer.total_s)
            if b"[DONE]" not in answer.body:
                self.faults.append(f"a stream without its end: {answer.body[-300:]!r}")

    async def send(self, kind: str) -> None:
        try:
            self.note(kind, await getattr(self, kind)())
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is what is looked for
            self.window.statuses[f"{kind} {type(error).__name__}"] += 1
            if kind != "half_request":
                self.faults.append(f"{kind}: {error!r}")

    def body(self, **changes: Any) -> dict[str, Any]:
        prompt = workload.single(self.rng.randint(8, 96), 1, self.rng.randrange(1 << 30)).prompts[0]
        return {
            "model": NAME,
            "prompt": list(prompt),
            "max_tokens": self.output_len,
            "ignore_eos": True,
            **changes,
        }

    async def stream(self) -> Answer:
        return await http_client.post(self.server.port, "/v1/completions", self.body(stream=True))

    async def whole(self) -> Answer:
        return await http_client.post(self.server.port, "/v1/completions", self.body(n=2))

    async def chat(self) -> Answer:
        messages = [
            {"role": "system", "content": "You are brief. " * self.rng.choice((1, 20))},
            {"role": "user", "content": f"Say something about {self.rng.randrange(1000)}."},
        ]
        body = {"model": NAME, "messages": messages, "max_tokens": self.output_len, "stream": True}
        return await http_client.post(self.server.port, "/v1/chat/completions", body)

    async def constrained(self) -> Answer:
        body = self.body(structured_outputs={"regex": "[a-z ]{1,40}"}, ignore_eos=False)
        return await http_client.post(self.server.port, "/v1/completions", body)

    async def leave_midway(self) -> Answer:
        def leave(answer: Answer) -> None:
            if answer.status == 200 and self.rng.random() < 0.3:
                raise Left

        body = self.body(stream=True, max_tokens=8 * self.output_len)
        return await http_client.post(self.server.port, "/v1/completions", body, on_bytes=leave)

    async def leave_at_once(self) -> Answer:
        asking = self.stream() if self.rng.random() < 0.5 else self.whole()
        try:
            return await asyncio.wait_for(asking, self.rng.uniform(0.0, 0.2))
        except TimeoutError:
            return Answer(status=0)

    async def slow_reader(self) -> Answer:
        async def nap(_answer: Answer) -> None:
            await asyncio.sleep(0.3)

        body = self.body(stream=True, logprobs=5)
        return await http_client.post(self.server.port, "/v1/completions", body, on_bytes=nap)

    async def malformed(self) -> Answer:
        path = self.rng.choice(("/v1/completions", "/v1/chat/completions", "/v1/messages"))
        return await http_client.post(self.server.port, path, self.rng.choice(MALFORMED))

    async def huge_prompt(self) -> Answer:
        if self.rng.random() < 0.5:
            body = self.body(prompt="word " * self.rng.randint(20_000, 200_000))
        else:
            body = self.body(prompt=[1] * self.rng.randint(2_000, 100_000))
        return await http_client.post(self.server.port, "/v1/completions", body)

    async def half_request(self) -> Answer:
        _, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        writer.write(b"POST /v1/completions HTTP/1.1\r\nContent-Length: 1000\r\n\r\n{")
        await asyncio.sleep(self.rng.uniform(0, 2))
        writer.close()
        return Answer(status=0)

    async def capacity_per_s(self) -> float:
        """Streams a second that 32 clients get, each beginning anew when it is answered."""
        self.windows = [Window()]
        end = time.perf_counter() + CAPACITY_S

        async def client() -> None:
            while time.perf_counter() < end:
                await self.send("stream")

        await asyncio.gather(*(client() for _ in range(32)))
        return len(self.window.accepted_s) / CAPACITY_S

    async def run(self, duration_s: float, rate_per_s: float) -> None:
        """Arrivals at random times, whether or not those before are answered."""
        self.windows = []
        kinds, weights = list(MIX), list(MIX.values())
        under_way: set[asyncio.Task[None]] = set()
        start = time.perf_counter()
        next_window_s = next_arrival_s = 0.0
        while (now_s := time.perf_counter() - start) < duration_s and self.server.is_running:
            if now_s >= next_window_s:
                self._open_window(now_s)
                next_window_s += WINDOW_S
            if now_s >= next_arrival_s:
                next_arrival_s += self.rng.expovariate(rate_per_s)
                if len(under_way) >= MAX_OPEN:
                    self.num_left_out += 1
                    continue
                task = asyncio.create_task(self.send(self.rng.choices(kinds, weights)[0]))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            await asyncio.sleep(max(0.0, min(next_arrival_s, next_window_s) - now_s))
        await asyncio.gather(*under_way)

    def _open_window(self, now_s: float) -> None:
        if self.windows and len(self.windows) % 6 == 0:
            print(f"{now_s / 60:.0f} min: {describe(self.windows[-6:])}", flush=True)
        self.windows.append(Window(resident_bytes=self.server.resident_bytes))


def describe(windows: list[Window]) -> str:
    statuses: Counter[str] = Counter()
    for window in windows:
        for name, number in window.statuses.items():
            statuses[name.rpartition(" ")[2]] += number
    memory = max(window.resident_bytes for window in windows) / 2**20
    return f"{dict(sorted(statuses.items()))}, p99 {p99_s(windows):.2f} s, {memory:.0f} MiB"


def p99_s(windows: list[Window]) -> float:
    times = [time_s for window in windows for time_s in window.accepted_s]
    return quantiles(times, n=100)[98] if len(times) > 1 else 0.0


async def rest_of(port: int) -> dict[str, Any]:
    """What the engine holds once nobody asks for anything."""
    for _ in range(100):
        state = (await http_client.get(port, "/engine/state")).json()
        used = sum(run[3] for group in state["groups"] for run in group["runs"] if run[0] == "r")
        waiting = [request["id"] for request in state["requests"]]
        if not used and not waiting:
            break
        await asyncio.sleep(0.1)
    return {"used_blocks": used, "requests": waiting}


def judge(soak: Soak, rest: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The figures, and what is wrong with them."""
    windows = soak.windows[1:]
    third = max(1, len(windows) // 3)
    parts = [windows[:third], windows[third : 2 * third], windows[2 * third :]]
    memory = [mean(window.resident_bytes for window in part) / 2**20 for part in parts if part]
    slowest = [p99_s(part) for part in parts if part]
    statuses: Counter[str] = sum((window.statuses for window in soak.windows), Counter())
    figures = {
        "statuses": dict(sorted(statuses.items())),
        "left_out_by_the_client": soak.num_left_out,
        "memory_mib_by_third": memory,
        "p99_s_by_third": slowest,
        **rest,
    }
    faults = list(soak.faults[:20])
    if not soak.server.is_running:
        faults.append("the server has ended")
    if rest["used_blocks"] or rest["requests"]:
        faults.append(f"not given back: {rest}")
    if memory[-1] > MAX_GROWTH * memory[len(memory) // 2]:
        faults.append(f"the memory grew: {memory} MiB")
    if slowest[-1] > MAX_SLOWDOWN * slowest[len(slowest) // 2]:
        faults.append(f"the slowest became slower: {slowest} s")
    if not any(name.endswith(" 429") for name in statuses):
        faults.append("nothing was refused: this was no overload")
    return figures, faults


async def run_soak(soak: Soak, minutes: float) -> tuple[dict[str, Any], list[str]]:
    capacity = await soak.capacity_per_s()
    if not capacity:
        raise SystemExit(f"no stream was answered: {soak.window.statuses} {soak.faults[:3]}")
    print(f"capacity: {capacity:.1f} streams/s; {2 * capacity:.1f} arrive from now on", flush=True)
    await soak.run(60 * minutes, 2 * capacity)
    figures, faults = judge(soak, await rest_of(soak.server.port))
    return {"capacity_per_s": capacity, **figures}, faults


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="default: %(default)s")
    parser.add_argument("--model", default=str(GGUF_PATH))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output-len", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--kv-cache-bytes", type=int, default=400_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, help="where the server's output goes")
    parser.add_argument("--json", type=Path, help="write the figures there")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    server = ServerProcess(
        [
            arguments.model,
            *("--served-model-name", NAME, "--device", arguments.device),
            *("--max-num-seqs", "32", "--max-num-waiting", "32", "--max-model-len", "1024"),
            # Small, so that it is soon full of old prefixes and the memory is all in use.
            *("--kv-cache-memory-bytes", str(arguments.kv_cache_bytes)),
        ],
        log=arguments.log,
    )
    try:
        soak = Soak(server, random.Random(arguments.seed), arguments.output_len)
        figures, faults = asyncio.run(run_soak(soak, arguments.minutes))
    finally:
        server.close()
    print(json.dumps(figures, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps({**figures, "faults": faults}, indent=2) + "\n")
    for fault in faults:
        print(f"FAULT: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
