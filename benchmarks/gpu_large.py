"""Qwen3-8B's shape on nano-vLLM's workload, beside what nano-vLLM reported on an H800."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_end_to_end import TABLE, comparison, measure
from gpu_engines import OWN
from gpu_settings import QWEN3_8B, Row, Settings

NAME = "Qwen3-8B's shape"
REPORTED = "nano_vllm on an H800, as it reported"
REPORTED_TOKENS_PER_S = 6731.0


def run(settings: Settings) -> Iterator[Row]:
    row: Row = {"table": TABLE, "model": NAME, "requests": 256, "engine": REPORTED}
    yield row | {"output tok/s": REPORTED_TOKENS_PER_S}
    rates = [0.0]
    for row in measure(settings, NAME, QWEN3_8B, (256,), (OWN, "nano_vllm")):
        yield row
        if row["table"] == TABLE and row["engine"] == OWN and "output tok/s" in row:
            rates.append(row["output tok/s"])
    if max(rates):
        found = {OWN: max(rates), REPORTED: REPORTED_TOKENS_PER_S}
        yield from comparison(NAME, 256, found)
