r"""A GPU backend on its device: whether it is right, and how near it is to the device's limits.

    python benchmarks/gpu.py --device cuda --nano-vllm PATH --json gpu.json --markdown gpu.md
    python benchmarks/gpu.py --device cuda --part conform,attention --quick
    python benchmarks/gpu.py --rehearse

A plain checkout is enough: what is not installed is found in it (gpu_packages.py). Each part runs
in a process of its own, prints a row as soon as it is known, and both files are written anew with
it, so that a run that is cut off has lost nothing but its end. `--rehearse` runs all of it in tiny
shapes on the CPU: it shows that the script works, and its times mean nothing.
"""

from __future__ import annotations

import argparse
import json
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
        if self._arguments.markdown:
            text = gpu_report.markdown(self.rows, is_rehearsal=self._arguments.rehearse)
            self._arguments.markdown.write_text(text + "\n")

    @property
    def failed(self) -> bool:
        return any(row.get("is_wrong") for row in self.rows)


def run_part(part: str, settings: Settings, limit_s: float, results: Results) -> None:
    """The part in a process of its own, ended at its limit; what it had told by then counts."""
    command = [sys.executable, str(HERE / "gpu_part.py"), part, json.dumps(asdict(settings))]
    start = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        timer = Timer(limit_s, process.kill)
        timer.start()
        for text in process.stdout or ():
            results.add(json.loads(text))
        status = process.wait()
        timer.cancel()
    seconds = time.monotonic() - start
    if status:
        was_cut = seconds >= limit_s
        why = f"cut off after {limit_s:.0f} s" if was_cut else f"ended with status {status}"
        results.add(
            {"table": "parts that did not end well", "part": part, "why": why, "is_wrong": True}
        )
    print(f"part {part}: {seconds:.0f} s", file=sys.stderr, flush=True)


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
    parser.add_argument("--markdown", type=Path, help="write the tables there")
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


def main() -> int:
    arguments = parse_arguments()
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
        run_part(part, settings.until(left_s), left_s, results)
        settings = settings.with_rates(results.rows)
    return int(results.failed)


if __name__ == "__main__":
    sys.exit(main())
