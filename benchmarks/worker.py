"""An engine in a process of its own, its weights loaded once, driven by JSON lines over pipes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engines import EngineOptions, load
from workload import Work

# Each library reads its own variable, once, when it is imported.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class WorkerError(RuntimeError):
    """An engine failed in its worker; the message carries what it said."""


@dataclass(frozen=True)
class Timing:
    """One call: seconds, and the token ids that came back."""

    seconds: float
    token_ids: list[list[int]]


class Worker:
    """The parent's side."""

    def __init__(self, name: str, options: EngineOptions) -> None:
        self.name = name
        environment = dict(os.environ) | dict.fromkeys(THREAD_VARIABLES, str(options.num_threads))
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), name, json.dumps(asdict(options))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        ready = self._read()
        self.description: str = ready["description"]
        self.load_s: float = ready["load_s"]

    def generate(self, work: Work) -> Timing:
        """Let the engine do ``work``; the clock runs in the worker, around the engine only."""
        reply = self._ask({"prompts": work.prompts, "output_lens": work.output_lens})
        lens = [len(ids) for ids in reply["token_ids"]]
        if lens != list(work.output_lens):
            raise WorkerError(f"{self.name} returned {lens} tokens; asked for {work.output_lens}")
        return Timing(reply["seconds"], reply["token_ids"])

    def measure(self) -> dict[str, float]:
        """The machine's rates (worker ``machine`` only)."""
        return self._ask({})

    def close(self) -> None:
        """End the process. The worker must not be used afterwards."""
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        stdin = self._process.stdin
        assert stdin is not None  # noqa: S101 - asked for when the process was started
        stdin.write(json.dumps(message) + "\n")
        stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        stdout = self._process.stdout
        line = stdout.readline() if stdout else ""
        if not line:
            status = self._process.wait()
            raise WorkerError(f"worker {self.name!r} ended with status {status}; see above")
        reply: dict[str, Any] = json.loads(line)
        return reply


def serve(name: str, options: EngineOptions) -> None:
    """The worker's side: load, say so, then answer one line per line until the pipe closes."""
    # The pipe keeps stdout's file; whatever a library prints goes to stderr.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def reply(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    start = time.perf_counter()
    if name == "machine":
        _serve_machine(options, reply)
        return
    engine = load(name, options)
    reply({"description": engine.description, "load_s": time.perf_counter() - start})
    for line in sys.stdin:
        work = json.loads(line)
        start = time.perf_counter()
        token_ids = engine.generate(work["prompts"], work["output_lens"])
        reply({"seconds": time.perf_counter() - start, "token_ids": token_ids})


def _serve_machine(options: EngineOptions, reply: Any) -> None:
    from engines.machine_engine import Machine

    machine = Machine(options.num_threads)
    reply({"description": "machine", "load_s": 0.0})
    for _ in sys.stdin:
        reply(
            {
                "read_gb_per_s": machine.read_gb_per_s(),
                "gemm_gflop_per_s": machine.gemm_gflop_per_s(),
            }
        )


if __name__ == "__main__":
    serve(sys.argv[1], EngineOptions(**json.loads(sys.argv[2])))
