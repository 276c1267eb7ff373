"""Medians over rounds, and ratios within rounds, as a Markdown table."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

Round = dict[str, dict[str, float]]  # engine (or "machine") -> metric -> value

UNITS = {
    "prefill_128_tok_s": "prefill 128, tok/s",
    "prefill_1024_tok_s": "prefill 1,024, tok/s",
    "decode_tok_s": "decode, 1 request, tok/s",
    "batch_output_tok_s": "batch, output tok/s",
    "batch_total_tok_s": "batch, in + out tok/s",
}


def table(rounds: Sequence[Round], engines: Sequence[str], equal_tokens: dict[str, int]) -> str:
    """One row per metric: each engine's median, and the first engine's ratio to each other one.

    A ratio is the median of the rounds' ratios, its range behind it: both sides of a ratio ran
    within the same minutes, so a busy machine hits them alike.
    """
    lines = ["", markdown(compare(rounds, engines)), "", _machine_line(rounds)]
    lines += [
        f"{name}: {count} of 64 greedy tokens as {engines[0]}'s"
        for name, count in equal_tokens.items()
    ][1:]
    return "\n".join(lines)


def compare(rounds: Sequence[Round], engines: Sequence[str]) -> list[list[str]]:
    """The header and a row per metric that the first engine has."""
    first, others = engines[0], engines[1:]
    rows = [["", *engines, *(f"{first} / {other}" for other in others)]]
    for metric, label in UNITS.items():
        if metric not in rounds[0][first]:
            continue
        medians = [_median(rounds, engine, metric) for engine in engines]
        rows.append([label, *medians, *(ratio(rounds, metric, first, other) for other in others)])
    return rows


def ratio(rounds: Sequence[Round], metric: str, first: str, other: str) -> str:
    """Of two engines' rates, within the rounds; empty if one of them has none."""
    return spread(
        [
            r[first][metric] / r[other][metric]
            for r in rounds
            if metric in r[first] and metric in r[other]
        ]
    )


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median, and behind it the range."""
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table; its first row is the header."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _median(rounds: Sequence[Round], engine: str, metric: str) -> str:
    values = [r[engine][metric] for r in rounds if metric in r[engine]]
    return f"{median(values):.1f}" if values else ""


def _machine_line(rounds: Sequence[Round]) -> str:
    read = [r["machine"]["read_gb_per_s"] for r in rounds]
    gemm = [r["machine"]["gemm_gflop_per_s"] for r in rounds]
    return (
        f"machine: reads {median(read):.1f} GB/s ({min(read):.1f} to {max(read):.1f}), "
        f"float32 GEMM {median(gemm):.0f} GFLOP/s ({min(gemm):.0f} to {max(gemm):.0f})"
    )
