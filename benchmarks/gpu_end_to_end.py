"""Whole engines on nano-vLLM's workload, in turns, on random weights of a published shape."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from gpu_engines import ALL, contenders, nano_vllm_work, start_in_turn
from gpu_floor import Device, floor_s
from gpu_settings import TINY_QWEN3, Row, Settings
from model_work import ModelWork
from shape_folder import QWEN3_0_6B
from worker import Worker, WorkerError
from workload import Work

TABLE = "end to end"
SPARE_S = 5.0
REHEARSED_FRACTION = 0.01


def run(settings: Settings) -> Iterator[Row]:
    """256 requests in turns, the busy share of decode, then 1,024 requests."""
    yield from measure(settings, "Qwen3-0.6B's shape", {}, (256, 1024), ALL)


def measure(
    settings: Settings,
    name: str,
    shape: Mapping[str, Any],
    counts: tuple[int, ...],
    who: Collection[str],
) -> Iterator[Row]:
    """The parts that ``end-to-end`` and ``large`` share."""
    end = time.monotonic() + settings.left_s - SPARE_S
    config = QWEN3_0_6B | (TINY_QWEN3 if settings.rehearse else dict(shape))
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        folder = Path(place)
        (folder / "config.json").write_text(json.dumps(config))
        workers, failed = start_in_turn(stack, contenders(settings, folder, who))
        yield from failed
        for worker in workers:
            text = f"{worker.description}; random weights"
            yield {"table": "engines", "engine": worker.name, "what": text}
        yield from _measure_all(settings, name, ModelWork.of_config(config), workers, counts, end)


def _measure_all(
    settings: Settings,
    name: str,
    model: ModelWork,
    workers: list[Worker],
    counts: tuple[int, ...],
    end: float,
) -> Iterator[Row]:
    fraction = REHEARSED_FRACTION if settings.rehearse else 1.0
    counts = (4,) if settings.rehearse else counts
    rates: dict[str, float] = {}  # tokens a second, for whether another turn fits
    for worker in workers:
        worker.generate(nano_vllm_work(2, fraction / 4))
    for count in counts:
        work = nano_vllm_work(count, fraction)
        for _ in range(1 if settings.quick or count > 256 else 2):
            for worker in workers:
                expected_s = work.num_output_tokens / rates.get(worker.name, 1e9)
                if time.monotonic() + expected_s > end:
                    why = f"left out: {expected_s:.0f} s were expected"
                    yield {"table": TABLE, "model": name, "requests": count} | {
                        "engine": worker.name,
                        "why": why,
                    }
                    continue
                yield (row := _turn(settings, name, model, worker, work))
                rates[worker.name] = row.get("output tok/s", 1.0)
        if count == counts[0] and workers and workers[0].name == "octavo":
            yield _profile(name, workers[0])


def _turn(settings: Settings, name: str, model: ModelWork, worker: Worker, work: Work) -> Row:
    row: Row = {"table": TABLE, "model": name, "requests": len(work.prompts)}
    row["engine"] = worker.name
    try:
        seconds = worker.generate(work).seconds
    except WorkerError as error:
        return row | {"why": str(error)[:200], "is_wrong": worker.name == "octavo"}
    row |= {"seconds": seconds, "output tok/s": work.num_output_tokens / seconds}
    if settings.copy_bytes_per_s and settings.matmul_flop_per_s:
        device = Device(settings.copy_bytes_per_s, settings.matmul_flop_per_s)
        row["of the roofline"] = f"{100 * floor_s(work, model, device) / seconds:.0f} %"
    return row


def _profile(name: str, worker: Worker) -> Row:
    """Decode steps of Octavo alone, with the device's own record of when it computed."""
    row: Row = {"table": "decode steps", "model": name, "engine": worker.name}
    try:
        return row | worker.measure("decode_profile")["decode_profile"]
    except WorkerError as error:
        return row | {"why": str(error)[:200], "is_wrong": True}
