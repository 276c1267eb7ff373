"""Who runs the workload on the GPU: Octavo, nano-vLLM and transformers' continuous batching."""

from __future__ import annotations

import sys
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from threading import Timer
from typing import Any

import workload
from contenders import Contender
from engines import EngineOptions
from gpu_settings import Row, Settings
from worker import Worker, WorkerError

TEMPERATURE = 0.6  # nano-vLLM's benchmark draws, and refuses greedy
MAX_NUM_SEQS = 512  # as many as nano-vLLM captures graphs for
MAX_BATCHED_TOKENS = 16_384
LOAD_LIMIT_S = 150.0
OWN = "octavo"
ALL = (OWN, "nano_vllm", "transformers_batching")
CACHE_BYTES, CACHE_SHARE = 40 << 30, 0.28
"""For each engine, or a share of a smaller device: all are loaded at the same time."""


def contenders(settings: Settings, folder: Path, taking_part: Collection[str]) -> list[Contender]:
    """Octavo first; nano-vLLM only where its checkout was named, and never on the CPU."""
    common = {"device": settings.device, "temperature": TEMPERATURE}
    limits = {"max_num_seqs": MAX_NUM_SEQS, "max_num_batched_tokens": MAX_BATCHED_TOKENS}
    cache_bytes = 64 << 20 if settings.rehearse else _cache_bytes(settings)
    octavo = (
        common
        | limits
        | {
            "backend": settings.backend,
            "load_format": "dummy",
            "max_model_len": 4096,
            "kv_cache_memory_bytes": cache_bytes,
            "enable_prefix_caching": False,
            "quiet": True,
        }
    )
    extras: dict[str, dict[str, Any]] = {"octavo": octavo}
    is_first = settings.device.partition(":")[2] in ("", "0")  # the one that nano-vLLM takes
    if settings.nano_vllm and is_first and not settings.rehearse:
        extras["nano_vllm"] = limits | {"path": settings.nano_vllm, "cache_bytes": cache_bytes}
    extras["transformers_batching"] = common | {"torch_device": settings.torch_device} | limits
    return [
        Contender(name, name, EngineOptions(str(folder), "", "bfloat16", 1, extra=extra))
        for name, extra in extras.items()
        if name in taking_part
    ]


def _cache_bytes(settings: Settings) -> int:
    memory = settings.memory_bytes or CACHE_BYTES / CACHE_SHARE
    return int(min(CACHE_BYTES, CACHE_SHARE * memory))


def start_in_turn(stack: ExitStack, each: list[Contender]) -> tuple[list[Worker], list[Row]]:
    """One after the other, for each measures the memory that those before it have left."""
    workers, failed = [], []
    for contender in each:
        worker = Worker(contender.name, contender.options, engine=contender.engine)
        stack.callback(worker.close)
        timer = Timer(LOAD_LIMIT_S, worker.kill)
        timer.start()
        try:
            worker.wait_ready()
        except WorkerError as error:
            said = str(error) if timer.is_alive() else f"not loaded after {LOAD_LIMIT_S:.0f} s"
            row = {"table": "engines", "engine": contender.name, "what": said}
            failed.append(row | {"is_wrong": contender.name == OWN})
            continue
        finally:
            timer.cancel()
        print(f"{worker.name}: loaded in {worker.load_s:.0f} s", file=sys.stderr, flush=True)
        workers.append(worker)
    return workers, failed


def shortened(work: workload.Work, prompts: float, outputs: float) -> workload.Work:
    """So much of each prompt, and of each answer; two tokens of an answer at least."""
    kept = tuple(each[: max(1, int(len(each) * prompts))] for each in work.prompts)
    return workload.Work(kept, tuple(max(2, int(count * outputs)) for count in work.output_lens))
