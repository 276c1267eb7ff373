"""From starting the process to the first word of the answer, as a user of the CLI waits for it.

    python benchmarks/cold_start.py --runs 5
    python benchmarks/cold_start.py --backend native --backend numpy

`octavo chat MODEL --message ...` and a transformers script of the same shape take turns. One run of
each comes first and does not count: it brings the files into the page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from engines import why_missing
from make_hf_model import GGUF_PATH, make_hf_folder
from worker import THREAD_VARIABLES

MESSAGE = "What is the capital of France?"
EXPECTED = "The capital of France is Paris."


@dataclass(frozen=True)
class Start:
    """Seconds from the start of the process."""

    first_text_s: float
    exit_s: float


def octavo_command(gguf_path: Path, backend: str | None = None) -> list[str]:
    """With the backend that is chosen for the CPU, unless one is named."""
    program = Path(sys.executable).with_name("octavo.exe" if os.name == "nt" else "octavo")
    # fmt: off
    return [
        str(program), "chat", str(gguf_path), "--device", "cpu", "--temperature", "0",
        "--message", MESSAGE, *(["--backend", backend] if backend else []),
    ]
    # fmt: on


def transformers_command(hf_folder: Path) -> list[str]:
    script = Path(__file__).with_name("transformers_chat.py")
    return [sys.executable, str(script), str(hf_folder), MESSAGE]


def time_start(command: list[str], num_threads: int) -> Start:
    """Run ``command``; its standard output must be the answer and nothing else."""
    environment = dict(os.environ) | dict.fromkeys(THREAD_VARIABLES, str(num_threads))
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment, bufsize=0
    ) as process:
        assert process.stdout is not None  # noqa: S101 - asked for above
        text = b""
        while not text.strip() and (piece := process.stdout.read(1)):
            text += piece
        first_text_s = time.perf_counter() - start
        text += process.stdout.read()
    exit_s = time.perf_counter() - start
    answer = text.decode().strip()
    if process.returncode != 0 or answer != EXPECTED:
        raise SystemExit(
            f"{' '.join(command)}\nended with status {process.returncode} and answered "
            f"{answer[:200]!r}; expected {EXPECTED!r}"
        )
    return Start(first_text_s, exit_s)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--backend", action="append", help="Octavo's; repeatable (default: the one it chooses)"
    )
    parser.add_argument("--gguf", type=Path, default=GGUF_PATH)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    commands = {
        f"octavo {backend or ''}".strip(): octavo_command(arguments.gguf, backend)
        for backend in arguments.backend or [None]
    }
    if (reason := why_missing("transformers")) is None:
        commands["transformers"] = transformers_command(make_hf_folder(arguments.gguf))
    else:
        print(reason, file=sys.stderr)
    starts: dict[str, list[Start]] = {name: [] for name in commands}
    for run_index in range(arguments.runs + 1):
        for name, command in commands.items():
            start = time_start(command, arguments.threads)
            if run_index > 0:
                starts[name].append(start)
    for name, measured in starts.items():
        first = [start.first_text_s for start in measured]
        print(
            f"{name}: first text after {median(first):.2f} s ({min(first):.2f} to "
            f"{max(first):.2f}), done after {median(s.exit_s for s in measured):.2f} s"
        )
    if arguments.json:
        record = {name: [vars(start) for start in measured] for name, measured in starts.items()}
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
