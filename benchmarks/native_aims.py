"""What the native backend is meant to reach, and what it reached."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import report
from model_work import ModelWork
from report import Round

READ = "machine_read_gb_per_s"
TORCH_GEMM = "torch_machine_bf16_gemm_gflop_per_s"
KERNEL_READ = "kernel_machine_bf16_gemv_gb_per_s"
KERNEL_GEMM = "kernel_machine_bf16_gemm_gflop_per_s"


@dataclass(frozen=True)
class Aim:
    """One line of the table of aims: values of all rounds, and the least their median may be."""

    label: str
    values: Sequence[float]
    least: float

    def row(self) -> list[str]:
        reached = median(self.values) >= self.least
        return [
            self.label,
            report.spread(self.values),
            f"{self.least:g}",
            "yes" if reached else f"no: {median(self.values) / self.least - 1:+.0%}",
        ]


def aims_table(speed: dict[str, Any], work: ModelWork, gguf_bytes: int) -> str:
    """A row for every aim that the engines of this run can be held against."""
    single, batch = speed["single"], speed["batch"]
    aims = [
        *_decode_aims(single, work.bf16_weight_bytes, gguf_bytes),
        *_prefill_aims(single, work),
        *_vllm_aims(batch, "batch of 64, output tokens", "batch_output_tok_s", 4),
    ]
    rows = [["", "median (range)", "aim", "reached"]]
    return report.markdown(rows + [aim.row() for aim in aims if aim.values])


def shares_of(
    rounds: Sequence[Round], engine: str, limit: str, needed: float, metric: str
) -> list[float]:
    """Of a limit (10^9 a second) the part that a rate uses, if each token needs ``needed``."""
    records = [r[engine] for r in rounds if engine in r]
    return [x[metric] * needed / (x[limit] * 1e9) for x in records if limit in x]


def ratios_of(rounds: Sequence[Round], metric: str, first: str, other: str) -> list[float]:
    """Of two engines' rates, in the rounds where both took part."""
    return [r[first][metric] / r[other][metric] for r in rounds if {first, other} <= r.keys()]


def _decode_aims(single: Sequence[Round], bf16_bytes: int, gguf_bytes: int) -> Iterator[Aim]:
    rate = "decode_tok_s"
    for limit, what in ((READ, "the read rate"), (KERNEL_READ, "the kernels' one-row rate")):
        shares = shares_of(single, "octavo", limit, bf16_bytes, rate)
        yield Aim(f"decode, bfloat16: weight bytes over {what}", shares, 0.85)
    yield from _vllm_aims(single, "decode, bfloat16", rate, 3.5)
    for limit, what in ((READ, "the read rate"), (KERNEL_READ, "the kernels' one-row rate")):
        shares = shares_of(single, "octavo_4bit", limit, gguf_bytes, rate)
        yield Aim(f"decode, 4-bit: the file's weight bytes over {what}", shares, 0.65)
    ratios = ratios_of(single, rate, "octavo_4bit", "llama_cpp")
    yield Aim("decode, 4-bit: over llama.cpp", ratios, 2)


def _vllm_aims(rounds: Sequence[Round], what: str, metric: str, least: float) -> Iterator[Aim]:
    for name, how in (("vllm", "as many cores"), ("vllm_default", "as it comes")):
        yield Aim(f"{what}: over vLLM, {how}", ratios_of(rounds, metric, "octavo", name), least)


def _prefill_aims(single: Sequence[Round], work: ModelWork) -> Iterator[Aim]:
    rate = "prefill_1024_tok_s"
    all_flop, flop = work.all_weights_flop(1), work.prefill_flop(1024) / 1024
    for what, needed, limit in (
        ("every weight for every token", all_flop, TORCH_GEMM),
        ("what is computed", flop, TORCH_GEMM),
        ("what is computed", flop, KERNEL_GEMM),
    ):
        whose = "torch's" if limit == TORCH_GEMM else "the kernels'"
        yield Aim(
            f"prefill 1,024: {needed / 1e9:.3f} GFLOP a token ({what}) over {whose} GEMM rate",
            shares_of(single, "octavo", limit, needed, rate),
            0.6,
        )
    yield from _vllm_aims(single, "prefill 1,024", rate, 2)
    yield Aim("prefill 1,024: over llama.cpp", ratios_of(single, rate, "octavo", "llama_cpp"), 4)
