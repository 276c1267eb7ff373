"""Qwen3-8B's shape on nano-vLLM's workload, beside what nano-vLLM reported on an H800."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_end_to_end import TABLE, measure
from gpu_settings import QWEN3_8B, Row, Settings

NAME = "Qwen3-8B's shape"


def run(settings: Settings) -> Iterator[Row]:
    yield {
        "table": TABLE,
        "model": NAME,
        "requests": 256,
        "engine": "nano_vllm on an H800, as it reported",
        "output tok/s": 6731.0,
    }
    yield from measure(settings, NAME, QWEN3_8B, (256,), ("octavo", "nano_vllm"))
