"""Run with eight host devices: the same requests to LLM on one of them, and on several."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
from pathlib import Path

import octavo_tpu.attention
from octavo import LLM, SamplingParams
from octavo.config import EngineConfig
from octavo.follower import follow
from octavo.testing.tiny_models import TINY_MODELS
from octavo_tpu.kernels.paged_attention import paged_attention
from octavo_tpu.kernels.write import write_tokens

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


def load_interpreted(backend):
    """The TPU's kernels and their caches, computed here."""
    backend.keeps_rows = True

    def write_kv(cache, k, v, plan):
        return write_tokens(cache, k, v, plan, interpret=True)

    def attend(q, cache, plan, params, sinks=None):
        return paged_attention(q, cache, plan, params, sinks, interpret=True)

    return {"write_kv": write_kv, "paged_attention": attend}


PALLAS, *_ = octavo_tpu.attention.ATTENTION_SPECS
octavo_tpu.attention.ATTENTION_SPECS = (dataclasses.replace(PALLAS, load=load_interpreted),)


def run(folder, num_shards, attention, options):
    """Tokens of more requests than the cache holds, so that blocks are swapped; all fork."""
    block_bytes = 4096 // min(num_shards, 2)
    if attention == "pallas":
        block_bytes = 2 * 16 * 4 * 128  # of two layers: a token has a row of 128 lanes
    llm = LLM(
        folder,
        tensor_parallel_size=num_shards,
        attention_backend=attention,
        kv_cache_memory_bytes=10 * block_bytes,
        preemption_mode="auto" if "JAX_PROCESS_ID" in os.environ else "swap",
        options=options,
        **OPTIONS,
    )
    prompts = [{"prompt_token_ids": [3 + n, 5, *range(n, 9 * n)]} for n in range(1, 7)]
    params = SamplingParams(temperature=0.7, seed=5, max_tokens=8, n=2, ignore_eos=True)
    outputs = llm.generate(prompts, params, use_tqdm=False)
    tokens = [[list(each.token_ids) for each in output.outputs] for output in outputs]
    num_swaps = llm._engine.stats.scheduler.num_swap_preemptions
    llm.close()
    return tokens, num_swaps


def main(sizes, address=None):
    """Every size in turn, as "8" or "2 pallas".

    With JAX_PROCESS_ID, as the first of two processes; with the address of that, as the second.
    """
    options = dict(SHAPES)
    if address is not None:
        options.update(coordinator_address=address, num_processes=2, process_id=1)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
        for case in sizes.split(","):
            size, attention = int(case.split()[0]), (case.split()[1:] or ["jax"])[0]
            if address is None:
                found[case] = run(folder, size, attention, options)
            else:
                shape = {"tensor_parallel_size": size, "options": options}
                follow(EngineConfig(model=folder, **shape, **OPTIONS))
    print(json.dumps(found))


main(*sys.argv[1:])
