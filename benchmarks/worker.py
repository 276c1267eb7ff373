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


# vLLM's processes loop for a second after their last work, and take a core from whoever is next.
SETTLE_S = {"vllm": 1.2}


class WorkerError(RuntimeError):
    """An engine failed in its worker; the message carries what it said."""


@dataclass(frozen=True)
class Timing:
    """One call: seconds, and the token ids that came back."""

    seconds: float
    token_ids: list[list[int]]


class Worker:
    """The parent's side. Several may load at the same time: ``wait_ready`` comes before work."""

    description = ""
    load_s = 0.0

    def __init__(
        self,
        name: str,
        options: EngineOptions,
        *,
        engine: str | None = None,
        python: str = sys.executable,
    ) -> None:
        """Start ``engine`` (the one called ``name``) in a process of the interpreter ``python``."""
        self.name = name
        engine = engine or name
        self._settle_s = SETTLE_S.get(engine, 0.0)
        self._process = subprocess.Popen(
            [python, str(Path(__file__).resolve()), engine, json.dumps(asdict(options))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(engine, options.num_threads, python),
            text=True,
        )

    def wait_ready(self) -> None:
        """Until the weights are loaded."""
        ready = self._read()
        self.description = ready["description"]
        self.load_s = ready["load_s"]

    def generate(self, work: Work) -> Timing:
        """Let the engine do ``work``; the clock runs in the worker, around the engine only."""
        reply = self._ask({"prompts": work.prompts, "output_lens": work.output_lens})
        lens = [len(ids) for ids in reply["token_ids"]]
        if lens != list(work.output_lens):
            raise WorkerError(f"{self.name} returned {lens} tokens; asked for {work.output_lens}")
        return Timing(reply["seconds"], reply["token_ids"])

    def measure(self, *rates: str) -> dict[str, float]:
        """Rates of the machine, by the names of its methods (the engines that measure it only)."""
        return self._ask({"measure": rates})

    def kill(self) -> None:
        """End the process at once; whoever waits for its answer gets a WorkerError."""
        self._process.kill()

    def settle(self) -> None:
        """Until the engine leaves the processor to others; called when its turn is over."""
        time.sleep(self._settle_s)

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


def _environment(engine: str, num_threads: int, python: str) -> dict[str, str]:
    """The thread count, as the engine takes it; vLLM with 0 threads is left to itself.

    It then computes on all cores but one. Told of a count, it binds a thread to each of so many
    cores, with Intel's OpenMP, which its manual asks for and its environment has.
    """
    if engine != "vllm":
        return dict(os.environ) | dict.fromkeys(THREAD_VARIABLES, str(num_threads))
    environment = {key: value for key, value in os.environ.items() if key not in THREAD_VARIABLES}
    if num_threads == 0:
        return environment
    environment["VLLM_CPU_OMP_THREADS_BIND"] = f"0-{num_threads - 1}"
    openmp = Path(python).parent.parent / "lib" / "libiomp5.so"
    if openmp.is_file():
        environment.setdefault("LD_PRELOAD", str(openmp))
    return environment


def serve(name: str, options: EngineOptions) -> None:
    """The worker's side: load, say so, then answer one line per line until the pipe closes."""
    # The pipe keeps stdout's file; whatever a library prints goes to stderr.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def reply(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    start = time.perf_counter()
    engine = load(name, options)
    reply({"description": engine.description, "load_s": time.perf_counter() - start})
    for line in sys.stdin:
        message = json.loads(line)
        if "measure" in message:
            reply({name: getattr(engine, name)() for name in message["measure"]})
            continue
        start = time.perf_counter()
        token_ids = engine.generate(message["prompts"], message["output_lens"])
        reply({"seconds": time.perf_counter() - start, "token_ids": token_ids})


if __name__ == "__main__":
    serve(sys.argv[1], EngineOptions(**json.loads(sys.argv[2])))
