"""Who takes part in which part of native.py, and with which options."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from contenders import Contender
from engines import EngineOptions
from native_machine import MACHINE_RATES

ENGINES = (
    "octavo",
    "octavo_4bit",
    "octavo_kv_int8",
    "vllm",
    "vllm_default",  # its own choice of threads: all cores but one
    "transformers",
    "llama_cpp",
)
INT8_CACHE = {"kv_cache_dtype": "int8"}
CACHE_BYTES = 2 << 30  # more than any part needs


def contenders(part: str, options: EngineOptions, arguments: argparse.Namespace) -> list[Contender]:
    """The engines that were asked for, and the machine's workers last."""
    pythons = dict(arguments.python)
    octavo = {"backend": arguments.backend, "kv_cache_memory_bytes": CACHE_BYTES}
    if arguments.threads != os.cpu_count():
        octavo["options"] = {"threads": arguments.threads}
    result = []
    for engine, name, extra in _listed(part, options):
        if name in arguments.engine:
            settings = octavo | extra if engine == "octavo" else extra
            chosen = replace(options, extra=settings)
            if name == "vllm_default":
                chosen = replace(chosen, num_threads=0)
            result.append(Contender(name, engine, chosen, pythons.get(engine, sys.executable)))
    without = {"kernel_machine"} if arguments.backend != "native" else set()
    return result + [
        Contender(name, name, options) for name in MACHINE_RATES if name not in without
    ]


def _listed(part: str, options: EngineOptions) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(engine, name, options of its own) of everyone who may take part."""
    dummy = {"load_format": "dummy"} if part == "shape" else {}
    yield "octavo", "octavo", dummy
    if part == "speed":
        yield "octavo", "octavo_4bit", {"model": options.gguf_path}
        yield "vllm", "vllm_default", {}
        for engine in ("vllm", "transformers", "llama_cpp"):
            yield engine, engine, {}
        return
    yield "octavo", "octavo_kv_int8", dummy | INT8_CACHE
    if part == "shape":
        yield "vllm", "vllm", {"skip_tokenizer_init": True, **dummy}
