"""Run with eight host devices: the same requests to LLM on one of them, and on several."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from octavo import LLM, SamplingParams
from octavo.config import EngineConfig
from octavo.follower import follow
from octavo.testing.tiny_models import TINY_MODELS

CONFIG = {
    **TINY_MODELS["llama"].config,
    "num_attention_heads": 8,
    "head_dim": 8,
}


SHAPES = {"token_buckets": [32], "seq_buckets": [8], "compile_at_start": False}
OPTIONS = {
    "device": "cpu",
    "backend": "jax",
    "dtype": "float32",
    "block_size": 16,
    "load_format": "dummy",
    "max_num_seqs": 8,
    "max_num_batched_tokens": 32,
    "max_model_len": 96,
    "quiet": True,
}


def run(folder, num_shards, options):
    """Tokens of more requests than the cache holds, so that blocks are swapped; all fork."""
    llm = LLM(
        folder,
        tensor_parallel_size=num_shards,
        kv_cache_memory_bytes=18 * 4096 // min(num_shards, 2),
        preemption_mode="auto" if options else "swap",
        options={**SHAPES, **options},
        **OPTIONS,
    )
    prompts = [{"prompt_token_ids": [3 + n, 5, *range(n, 9 * n)]} for n in range(1, 7)]
    params = SamplingParams(temperature=0.7, seed=5, max_tokens=24, n=2, ignore_eos=True)
    outputs = llm.generate(prompts, params, use_tqdm=False)
    tokens = [[list(each.token_ids) for each in output.outputs] for output in outputs]
    num_swaps = llm._engine.stats.scheduler.num_swap_preemptions
    llm.close()
    return tokens, num_swaps


def main(sizes, address=None, process_id="0"):
    """Every size in turn; or, with an address, one size in two processes."""
    options = {}
    if address is not None:
        options = {
            "coordinator_address": address,
            "process_id": int(process_id),
            "num_processes": 2,
        }
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
        for size in map(int, sizes.split(",")):
            if process_id == "0":
                found[size] = run(folder, size, options)
            else:
                config = EngineConfig(
                    model=folder,
                    tensor_parallel_size=size,
                    options={**SHAPES, **options},
                    **OPTIONS,
                )
                follow(config)
    print(json.dumps(found))


main(*sys.argv[1:])
