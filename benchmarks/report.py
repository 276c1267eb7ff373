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
    first, others = engines[0], engines[1:]
    header = ["", *engines, *(f"{first} / {other}" for other in others)]
    rows = [header, ["---"] * len(header)]
    for metric, label in UNITS.items():
        if metric not in rounds[0][first]:
            continue
        medians = [f"{median(r[engine][metric] for r in rounds):.1f}" for engine in engines]
        ratios = [_ratio([r[first][metric] / r[other][metric] for r in rounds]) for other in others]
        rows.append([label, *medians, *ratios])
    lines = ["", *("| " + " | ".join(row) + " |" for row in rows), ""]
    lines.append(_machine_line(rounds))
    lines += [
        f"{name}: {count} of 64 greedy tokens as {first}'s" for name, count in equal_tokens.items()
    ][1:]
    return "\n".join(lines)


def _ratio(ratios: list[float]) -> str:
    if len(ratios) == 1:
        return f"{ratios[0]:.2f}"
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _machine_line(rounds: Sequence[Round]) -> str:
    read = [r["machine"]["read_gb_per_s"] for r in rounds]
    gemm = [r["machine"]["gemm_gflop_per_s"] for r in rounds]
    return (
        f"machine: reads {median(read):.1f} GB/s ({min(read):.1f} to {max(read):.1f}), "
        f"float32 GEMM {median(gemm):.0f} GFLOP/s ({min(gemm):.0f} to {max(gemm):.0f})"
    )
