"""The tables of native.py's result: rates, shares of what the machine gives, ratios, aims.

`python benchmarks/native_report.py native.json` writes them again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import report
from model_work import ModelWork
from native_aims import KERNEL_GEMM, KERNEL_READ, READ, TORCH_GEMM, aims_table, shares_of
from report import Round

MACHINE_LABELS = {
    READ: "reads, all threads, GB/s",
    "machine_read_one_thread_gb_per_s": "reads, one thread, GB/s",
    KERNEL_READ: "the kernels' product of one row with 1 GiB, GB/s",
    TORCH_GEMM: "bfloat16 GEMM of torch, GFLOP/s",
    KERNEL_GEMM: "bfloat16 GEMM of the kernels, GFLOP/s",
}
MIB = 1 << 20


def markdown(result: dict[str, Any]) -> str:
    """All tables of the parts that were run, each under a heading."""
    sections = []
    work = ModelWork(**result["work"])
    if speed := result.get("speed"):
        sections += speed_sections(speed, work, result["gguf_weight_bytes"])
    if context := result.get("context"):
        sections.append(("Decode as the context grows", context_table(context["context"], work)))
    if shape := result.get("shape"):
        shape_work = ModelWork(**result["shape_work"])
        sections.append(("Qwen3-0.6B's shape, random weights", shape_table(shape, shape_work)))
    return "\n\n".join(f"### {heading}\n\n{text}" for heading, text in sections)


def speed_sections(
    speed: dict[str, Any], work: ModelWork, gguf_bytes: int
) -> list[tuple[str, str]]:
    single, batch = speed["single"], speed["batch"]
    tables = [
        report.markdown(comparison([single, batch], first))
        for first in ("octavo", "octavo_4bit")
        if first in single[0]
    ]
    equal = speed["equal_greedy_tokens_of_64"]
    tables.append(
        "Greedy tokens as the first engine's, of 64: "
        + ", ".join(f"{name} {count}" for name, count in equal.items())
        + "."
    )
    return [
        ("Against other engines", "\n\n".join(tables)),
        ("Aims", aims_table(speed, work, gguf_bytes)),
        ("The machine in the same seconds", machine_table([*single, *batch])),
    ]


def comparison(groups: Sequence[list[Round]], first: str) -> list[list[str]]:
    """Rows of every group of rounds; who took no part in one has empty cells there."""
    rivals = {"octavo_4bit": ("octavo_4bit", "llama_cpp")}.get(first)
    engines = [e for e in groups[0][0] if e in rivals] if rivals else list(groups[0][0])
    engines = [first, *sorted(e for e in engines if e not in {first, "octavo_4bit"})]
    rows: list[list[str]] = []
    for rounds in groups:
        padded = [{engine: r.get(engine, {}) for engine in engines} for r in rounds]
        rows += report.compare(padded, engines)[1 if rows else 0 :]
    return rows


def machine_table(rounds: Sequence[Round]) -> str:
    """Medians over everyone's turns: the machine was measured before and after each."""
    records = [record for r in rounds for record in r.values()]
    rows = [["", "median (range)"]]
    for name, label in MACHINE_LABELS.items():
        if values := [record[name] for record in records if name in record]:
            rows.append([label, report.spread(values, digits=0)])
    return report.markdown(rows)


def context_table(rounds: list[Round], work: ModelWork) -> str:
    """Milliseconds a token, and its growth beside the time that the further KV takes to read."""
    engines = list(rounds[0])
    lens = sorted(int(key) for key in rounds[0][engines[0]] if key.isdigit())
    header = ["context, tokens"]
    for engine in engines:
        header += [f"{engine}, ms a token", "grown by, ms", "more MiB to read", "takes, ms"]
    rows = [header]
    for context_len in lens:
        row = [f"{context_len:,}"]
        for engine in engines:
            row += _context_cells([r[engine] for r in rounds], engine, context_len, lens[0], work)
        rows.append(row)
    return report.markdown(rows)


def _context_cells(
    records: list[dict[str, float]], engine: str, context_len: int, first_len: int, work: ModelWork
) -> list[str]:
    kv_cache_dtype = "int8" if engine.endswith("int8") else "auto"
    more_bytes = work.kv_bytes(context_len - first_len, kv_cache_dtype)
    return [
        f"{median(x[str(context_len)] for x in records):.2f}",
        f"{median(x[str(context_len)] - x[str(first_len)] for x in records):.2f}",
        f"{more_bytes / MIB:.0f}",
        f"{median(more_bytes / x[READ] for x in records) / 1e6:.2f}",
    ]


def shape_table(shape: dict[str, Any], work: ModelWork) -> str:
    rounds = shape["shape"]
    engines = list(rounds[0])
    text = report.markdown(report.compare(rounds, engines))
    weight_bytes = work.bf16_weight_bytes
    shares = [
        f"{engine} {report.spread(shares_of(rounds, engine, READ, weight_bytes, 'decode_tok_s'))}"
        for engine in engines
    ]
    return (
        f"{text}\n\nDecode of one request as a share of the read rate "
        f"({weight_bytes / 1e9:.2f} GB of weights a token): {'; '.join(shares)}."
    )


if __name__ == "__main__":
    print(markdown(json.loads(Path(sys.argv[1]).read_text())))
