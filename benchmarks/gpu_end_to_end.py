"""Whole engines on nano-vLLM's workload, in turns, on random weights of a published shape."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from threading import Timer
from typing import Any

import workload
from gpu_engines import ALL, MAX_NUM_SEQS, OWN, contenders, shortened, start_in_turn
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
WARMING_FRACTION, WARMING_ROUND = 0.04, 9
"""So much of each answer to other prompts, all at once: kernels are compiled, graphs captured."""
MOST_TWICE = 256  # requests: more are measured once
REHEARSED_REQUESTS = 4
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
        match = Match(settings, name, ModelWork.of_config(config), workers, end)
        for count in (REHEARSED_REQUESTS,) if settings.rehearse else counts:
            yield from match.measured(count)
            if count == counts[0] or settings.rehearse:
                yield from (_profile(name, each) for each in workers if each.name == OWN)


class Match:
    """Engines in turns on one model's shape; who fails, or takes too long, is out."""

    def __init__(
        self, settings: Settings, name: str, model: ModelWork, workers: list[Worker], end: float
    ) -> None:
        """All is to be done at ``end``, on the monotonic clock. ``workers`` gets shorter."""
        self._settings = settings
        self._name = name
        self._model = model
        self._workers = workers
        self._end = end
        self._rates: dict[str, float] = {}
        """Output tokens a second in the last turn."""

    def measured(self, count: int) -> Iterator[Row]:
        """Warm up, then one turn or two for each engine, then how they compare."""
        fraction = REHEARSED_FRACTION if self._settings.rehearse else 1.0
        warming = workload.nano_vllm(min(count, MAX_NUM_SEQS), WARMING_ROUND)
        warming = shortened(warming, fraction, fraction * WARMING_FRACTION)
        for worker in list(self._workers):
            row = self._turn(worker, warming)
            if "why" in row:
                yield row | {"what": "warming up"}
        best: dict[str, float] = {}
        for round_index in range(1 if self._settings.quick or count > MOST_TWICE else 2):
            work = workload.nano_vllm(count, round_index)
            if self._settings.rehearse:
                work = shortened(work, fraction, fraction)
            for worker in list(self._workers):
                yield (row := self._turn(worker, work))
                if "why" not in row:
                    rate = self._rates[worker.name] = row["output tok/s"]
                    best[worker.name] = max(rate, best.get(worker.name, 0.0))
        yield from comparison(self._name, count, best)

    def _turn(self, worker: Worker, work: Work) -> Row:
        """One call, ended when time is up; left out if at its last rate it would not be done."""
        row: Row = {"table": TABLE, "model": self._name, "requests": len(work.prompts)}
        row["engine"] = worker.name
        left_s = self._end - time.monotonic()
        expected_s = work.num_output_tokens / self._rates.get(worker.name, math.inf)
        if expected_s >= left_s:
            why = f"left out: {expected_s:.0f} s were expected, and {left_s:.0f} s were left"
            return row | {"why": why}
        limit_s = left_s if worker.name == OWN else left_s * SHARE_OF_OTHERS
        timer = Timer(limit_s, worker.kill)
        timer.start()
        try:
            seconds = worker.generate(work).seconds
        except WorkerError as error:
            self._workers.remove(worker)
            said = str(error)[:200]
            why = said if timer.is_alive() else f"ended: not done after {limit_s:.0f} s"
            return row | {"why": why, "is_wrong": worker.name == OWN}
        finally:
            timer.cancel()
        row |= {"seconds": seconds, "output tok/s": work.num_output_tokens / seconds}
        if self._settings.copy_bytes_per_s and self._settings.matmul_flop_per_s:
            device = Device(self._settings.copy_bytes_per_s, self._settings.matmul_flop_per_s)
            share = floor_s(work, self._model, device) / seconds
            row["of the roofline"] = f"{100 * share:.0f} %"
        return row


def comparison(name: str, num_requests: int, rates: Mapping[str, float]) -> Iterator[Row]:
    """Octavo's best turn over the best of the others': nothing, if one side has none."""
    others = {engine: rate for engine, rate in rates.items() if engine != OWN}
    if OWN in rates and others:
        best = max(others, key=lambda engine: others[engine])
        ratio = rates[OWN] / others[best]
        row: Row = {"table": COMPARISON, "model": name, "requests": num_requests}
        row |= {"best other": best, "octavo, times it": ratio}
        yield row | {"aim": f"1.0: {'met' if ratio >= 1 else 'missed'}"}


def _profile(name: str, worker: Worker) -> Row:
    """Decode steps of Octavo alone, with the device's own record of when it computed."""
    row: Row = {"table": "decode steps", "model": name, "engine": worker.name}
    try:
        return row | worker.measure("decode_profile")["decode_profile"]
    except WorkerError as error:
        return row | {"why": str(error)[:200], "is_wrong": True}
