"""Peak memory of one CLI run against what must be held: the weights and the KV cache.

The cache is made just large enough for one request, which then fills it, so that all of it counts.
Resident pages of the mapped model file are part of the figure. Linux and macOS.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from cold_start import octavo_command
from make_hf_model import GGUF_PATH

CONTEXT_TOKENS = 1024
MAX_WEIGHT_FACTOR = 1.3


def engine_options(arguments: argparse.Namespace) -> list[str]:
    # fmt: off
    return [
        "--device", "cpu", "--backend", arguments.backend, "--dtype", arguments.dtype,
        "--max-num-seqs", "1", "--max-model-len", str(CONTEXT_TOKENS),
        "--kv-cache-memory-bytes", str(arguments.kv_cache_bytes),
    ]
    # fmt: on


def planned_bytes(program: str, arguments: argparse.Namespace) -> tuple[int, int]:
    """(weights, cache), by `octavo plan`."""
    result = subprocess.run(
        [program, "plan", str(arguments.model), "--json", *engine_options(arguments)],
        capture_output=True,
        check=True,
        text=True,
    )
    (report,) = json.loads(result.stdout)
    return report["weight_bytes"], report["cache_bytes"]


def peak_rss_bytes(command: list[str]) -> int:
    """Run ``command`` and return the most memory it had resident."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\nended with status {process.returncode}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=GGUF_PATH)
    parser.add_argument("--backend", default="numpy", help="default: %(default)s")
    parser.add_argument("--dtype", default="float32", help="default: %(default)s")
    parser.add_argument("--kv-cache-bytes", type=int, default=64 << 20)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not hasattr(os, "wait4"):
        print("peak_memory.py needs os.wait4 (Linux or macOS)", file=sys.stderr)
        return 2
    program = octavo_command(arguments.model)[0]
    weight_bytes, cache_bytes = planned_bytes(program, arguments)
    # "word " is one token in most vocabularies: a prompt of two thirds of the context.
    prompt = "word " * (CONTEXT_TOKENS * 2 // 3)
    # fmt: off
    command = [
        program, "generate", str(arguments.model), prompt, "--temperature", "0", "--ignore-eos",
        "--max-tokens", str(CONTEXT_TOKENS // 4), "--quiet",
        *engine_options(arguments),
    ]
    # fmt: on
    peak_bytes = peak_rss_bytes(command)
    idle_bytes = peak_rss_bytes([program, "devices"])
    limit_bytes = MAX_WEIGHT_FACTOR * weight_bytes + cache_bytes
    figures = {
        f"weights ({arguments.dtype})": weight_bytes,
        "KV cache": cache_bytes,
        "octavo devices, peak": idle_bytes,
        "octavo generate, peak": peak_bytes,
        f"limit, {MAX_WEIGHT_FACTOR} x weights + cache": limit_bytes,
    }
    for label, size_bytes in figures.items():
        print(f"{label:<34}{size_bytes / 1e6:>8.1f} MB")
    print(f"peak / (weights + cache) = {peak_bytes / (weight_bytes + cache_bytes):.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if peak_bytes <= limit_bytes else 1


if __name__ == "__main__":
    sys.exit(main())
