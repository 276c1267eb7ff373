r"""A GPU backend on its device: whether it is right, and how near it is to the device's limits.

    python benchmarks/gpu.py --quick --minutes 6 --json gpu-quick.json
    python benchmarks/gpu.py --nano-vllm PATH --minutes 30 --json gpu.json

The first is a sample of everything, for a look at what fails; the second is the whole. Where a
command may take ten minutes only, parts go into commands of their own, and files are joined:

    python benchmarks/gpu.py --part commands,kernels,conform --json gpu-1.json
    python benchmarks/gpu.py --part attention,end-to-end --nano-vllm PATH --json gpu-2.json
    python benchmarks/gpu.py --part large --nano-vllm PATH --json gpu-3.json
    python benchmarks/gpu.py --from gpu-1.json gpu-2.json gpu-3.json --into docs/benchmarks.md

PATH is a checkout of nano-vLLM, for comparison; without it there is one engine less. A plain
checkout of Octavo is enough: what is not installed is found in it, and packages that are missing
are taken from wheels (gpu_packages.py). Each part runs in a process of its own, prints a row as
soon as it is known, and the files are written anew with it: a run that is cut off has lost nothing
but its end. `--rehearse` runs all of it in tiny shapes on the CPU: it shows that the script works,
and its times mean nothing. The status is 1 if anything was wrong, missed aims aside.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from threading import Timer
from typing import Any

import gpu_packages
import gpu_report
from gpu_settings import PARTS, Row, Settings

HERE = Path(__file__).resolve().parent
REHEARSED = {"device": "cpu", "backend": "torch", "minutes": 5.0, "quick": True}
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


class Results:
    """Rows as they come, in two files."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self.rows: list[Row] = []

    def add(self, row: Row) -> None:
        self.rows.append(row)
        print(gpu_report.line(row), flush=True)
        if self._arguments.json:
            self._arguments.json.write_text(json.dumps(self.rows, indent=1) + "\n")
        if self._arguments.into:
            gpu_report.write_into(self._arguments.into, self.rows)

    @property
    def failed(self) -> bool:
        return any(row.get("is_wrong") for row in self.rows)


def run_part(part: str, settings: Settings, limit_s: float, results: Results) -> None:
    """The part in a process of its own, ended at its limit; what it had told by then counts."""
    command = [sys.executable, str(HERE / "gpu_part.py"), part, json.dumps(asdict(settings))]
    start = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        timer = Timer(limit_s, _end_all, [process])
        timer.start()
        try:
            for text in process.stdout or ():
                results.add(json.loads(text))
            status = process.wait()
        finally:
            timer.cancel()
            _end_all(process)
    seconds = time.monotonic() - start
    if status:
        was_cut = seconds >= limit_s
        why = f"cut off after {limit_s:.0f} s" if was_cut else f"ended with status {status}"
        results.add(
            {"table": "parts that did not end well", "part": part, "why": why, "is_wrong": True}
        )
    print(f"part {part}: {seconds:.0f} s", file=sys.stderr, flush=True)


def _end_all(process: subprocess.Popen[str]) -> None:
    """The part and the engines it started: none may hold the device any longer."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--part",
        action="extend",
        type=lambda text: text.split(","),
        help=f"{', '.join(PARTS)} (default: all, in this order)",
    )
    parser.add_argument(
        "--device", default="cuda", help="cuda or rocm, or KIND:INDEX (%(default)s)"
    )
    parser.add_argument("--backend", help="default: the one with the device's name")
    parser.add_argument("--quick", action="store_true", help="a sample of the checks, one round")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all parts (%(default)s)")
    parser.add_argument("--nano-vllm", type=Path, help="a checkout of nano-vLLM, to compare with")
    parser.add_argument("--wheels", type=Path, default=HERE.parent / "build" / "wheels")
    parser.add_argument("--rehearse", action="store_true", help="tiny, on the CPU")
    parser.add_argument("--json", type=Path, help="write every row there")
    parser.add_argument(
        "--into", type=Path, help="a page: its tables between two marks are written anew"
    )
    parser.add_argument(
        "--from", type=Path, nargs="+", dest="sources", help="measure nothing: join these files"
    )
    arguments = parser.parse_args()
    arguments.part = list(dict.fromkeys(arguments.part or PARTS))
    if unknown := [part for part in arguments.part if part not in PARTS]:
        parser.error(f"--part {', '.join(unknown)}: unknown; choose from {', '.join(PARTS)}")
    if arguments.nano_vllm and not (arguments.nano_vllm / "nanovllm").is_dir():
        parser.error(f"--nano-vllm {arguments.nano_vllm}: no folder `nanovllm` in it")
    if arguments.rehearse:
        vars(arguments).update(REHEARSED)
    return arguments


def settings_of(arguments: argparse.Namespace) -> Settings:
    return Settings(
        device=arguments.device,
        backend=arguments.backend or arguments.device.partition(":")[0],
        quick=arguments.quick,
        rehearse=arguments.rehearse,
        nano_vllm=None if arguments.nano_vllm is None else str(arguments.nano_vllm.resolve()),
    )


def _join(arguments: argparse.Namespace) -> int:
    """Rows of runs before, as one run's."""
    results = Results(arguments)
    files = [json.loads(path.read_text()) for path in arguments.sources]
    for row in gpu_report.joined(files):
        results.add(row)
    return int(results.failed)


def main() -> int:
    arguments = parse_arguments()
    if arguments.sources:
        return _join(arguments)
    os.environ |= OFFLINE
    if lines := gpu_packages.provide(arguments.wheels):
        print("\n".join(lines), file=sys.stderr)
        return 2
    results = Results(arguments)
    end = time.monotonic() + 60 * arguments.minutes
    settings: Any = settings_of(arguments)
    for part in ("machine", *arguments.part):
        left_s = end - time.monotonic()
        if left_s < 1:
            why = f"no time was left of --minutes {arguments.minutes:g}"
            row = {
                "table": "parts that did not end well",
                "part": part,
                "why": why,
                "is_wrong": True,
            }
            results.add(row)
            continue
        # One that takes long leaves half of the time to those behind it.
        limit_s = left_s if part == arguments.part[-1] else left_s / 2
        run_part(part, settings.until(limit_s), limit_s, results)
        settings = settings.with_rates(results.rows)
    return int(results.failed)


if __name__ == "__main__":
    sys.exit(main())
