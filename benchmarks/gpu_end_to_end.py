"""Whole engines on nano-vLLM's workload, in turns, on random weights of a published shape."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from threading import Timer
from typing import Any

from gpu_engines import ALL, MAX_NUM_SEQS, OWN, contenders, nano_vllm_work, start_in_turn
from gpu_floor import Device, floor_s
from gpu_settings import TINY_QWEN3, Row, Settings
from model_work import ModelWork
from shape_folder import QWEN3_0_6B
from worker import Worker, WorkerError
from workload import Work

TABLE = "end to end"
COMPARISON = "end to end, compared"
SPARE_S = 5.0
SHARE_OF_OTHERS = 0.4  # of the time that is left: one slow engine leaves some for the rest
WARMING_FRACTION = 0.04
"""Of the lengths: all requests at once, so that kernels are compiled and graphs are captured."""
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
    rates: dict[str, list[float]] = {}
    for count in counts:
        work = nano_vllm_work(count, fraction)
        short = nano_vllm_work(min(count, MAX_NUM_SEQS), fraction * WARMING_FRACTION)
        found: dict[str, list[float]] = {}
        for turn in ["warm up", *range(1 if settings.quick or count > 256 else 2)]:
            for worker in list(workers):
                last = rates.get(worker.name, [1e9])[-1]
                is_short = turn == "warm up"
                row = _turn(settings, name, model, worker, short if is_short else work, last, end)
                if "ended" in row:
                    workers.remove(worker)
                if not is_short or "why" in row:
                    yield row
                if not is_short and "output tok/s" in row:
                    found.setdefault(worker.name, []).append(row["output tok/s"])
        rates |= found
        yield from comparison(name, count, found)
        if count == counts[0]:
            yield from (_profile(name, worker) for worker in workers if worker.name == OWN)


def comparison(name: str, num_requests: int, rates: Mapping[str, list[float]]) -> Iterator[Row]:
    """Octavo's median over the best of the others': nothing, if one side has none."""
    others = {engine: median(found) for engine, found in rates.items() if engine != OWN}
    if OWN in rates and others:
        best = max(others, key=lambda engine: others[engine])
        ratio = median(rates[OWN]) / others[best]
        row: Row = {"table": COMPARISON, "model": name, "requests": num_requests}
        row |= {"best other": best, "octavo, times it": ratio}
        yield row | {"aim": f"1.0: {'met' if ratio >= 1 else 'missed'}"}


def _turn(
    settings: Settings,
    name: str,
    model: ModelWork,
    worker: Worker,
    work: Work,
    rate: float,
    end: float,
) -> Row:
    """One call, ended when time is up; left out, if it would not be done by then at ``rate``."""
    row: Row = {"table": TABLE, "model": name, "requests": len(work.prompts)}
    row["engine"] = worker.name
    left_s, expected_s = end - time.monotonic(), work.num_output_tokens / rate
    if expected_s > left_s or left_s <= 0:
        why = f"left out: {expected_s:.0f} s were expected, and {left_s:.0f} s were left"
        return row | {"why": why}
    limit_s = left_s if worker.name == OWN else left_s * SHARE_OF_OTHERS
    timer = Timer(limit_s, worker.kill)
    timer.start()
    try:
        seconds = worker.generate(work).seconds
    except WorkerError as error:
        said = str(error)[:200]
        why = said if timer.is_alive() else f"ended: not done after {limit_s:.0f} s"
        return row | {"why": why, "ended": True, "is_wrong": worker.name == OWN}
    finally:
        timer.cancel()
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
