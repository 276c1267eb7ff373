"""A process with Triton's interpreter, that answers for one case of a kernel at a time.

Run as a script it reads ``{"kernel": …, "case": …}`` lines and answers each with
``{"error": …}``. Every case is computed in a fork of its own, so that one that kills its process
is that case's failure, and torch and Triton are imported once.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

__all__ = ["InterpreterProcess"]

CASE_LIMIT_S = 60


class InterpreterProcess:
    """The caller's side."""

    def __init__(self) -> None:
        environment = dict(os.environ, TRITON_INTERPRET="1", OMP_NUM_THREADS="1")
        environment["OPENBLAS_NUM_THREADS"] = "1"  # no threads: they would not survive the forks
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def error(self, kernel: str, case: str) -> str | None:
        """What is wrong with a kernel in a case, or None."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"kernel": kernel, "case": case}), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"The interpreter ended with status {self._process.wait()}.")
        return json.loads(answer)["error"]

    def close(self) -> None:
        self._process.communicate(timeout=10)


def _main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a kernel prints is no answer
    import example_kernels
    import interpreter_shim
    import numpy as np
    import torch

    from octavo_torch.kernels.catalog import all_kernels

    interpreter_shim.install()
    np.seterr(all="ignore")  # as a GPU does: an overflow is infinity
    torch.use_deterministic_algorithms(True)  # so that torch.empty is full of NaN
    kernels = all_kernels() | {kernel.name: kernel for kernel in example_kernels.KERNELS}
    for line in sys.stdin:
        request = json.loads(line)
        kernel = kernels[request["kernel"]]
        case = next(each for each in kernel.cases if each.label == request["case"])
        print(json.dumps({"error": _in_a_fork(kernel, case)}), file=answers, flush=True)


def _in_a_fork(kernel: Any, case: Any) -> str | None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(CASE_LIMIT_S)
        os.write(writing, json.dumps(_difference(kernel, case)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        return f"is not done after {CASE_LIMIT_S} s"
    if status or not answer:
        died = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else status
        return f"its process died of {died}"
    return json.loads(answer)


def _difference(kernel: Any, case: Any) -> str | None:
    from kernel_comparison import difference

    started = time.perf_counter()
    try:
        error = difference(kernel, case)
    except Exception:
        return traceback.format_exc(limit=-6)[-4000:]
    finally:
        took = time.perf_counter() - started
        if os.environ.get("OCTAVO_TRITON_TIMES"):
            print(f"{took:6.2f} s  {kernel.name}[{case.label}]", file=sys.stderr, flush=True)
    return error


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    _main()
