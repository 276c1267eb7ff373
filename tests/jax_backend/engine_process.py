"""Run with eight host devices: the same requests to LLM on one of them, and on several."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import jax

from octavo import LLM, SamplingParams
from octavo.api import BackendSpec, Capabilities, DeviceInfo, PortableOps, Probe, host_memory
from octavo.config import EngineConfig
from octavo.devices import Resolution
from octavo.open_device import OpenDevice
from octavo.plugins import load_plugins
from octavo.policy import load_policy
from octavo.testing.tiny_models import TINY_MODELS
from octavo_tpu.group_backend import GroupBackend
from octavo_tpu.processes import join_processes

CONFIG = {
    **TINY_MODELS["llama"].config,
    "num_attention_heads": 8,
    "head_dim": 8,
}


class HostDevices(GroupBackend):
    """As many of the host's devices as share a model."""

    caps = Capabilities(
        dtypes=("float32",),
        kv_dtypes=("float32",),
        block_sizes=(8,),
        token_buckets=(32,),
        seq_buckets=(8,),
        decode_buckets=(8,),
        asynchronous=True,
        host_swap=True,
    )

    def __init__(self, index, options):
        size = options.get("tensor_parallel_size", 1)
        processes = None
        if "process_id" in options:
            address, process_id = options["coordinator_address"], options["process_id"]
            processes = join_processes(address, 2, process_id)
        super().__init__(PortableOps, jax.devices()[index : index + size], processes)

    def memory(self):
        return host_memory()


def open_here(config):
    """Without a plugin of its own."""
    spec = BackendSpec("hosts", ("hosts",), "", Probe, HostDevices, 1, tensor_parallel=True)
    policy = load_policy()
    resolution = Resolution(spec, DeviceInfo("hosts", 0, "host"), "here")
    backend = HostDevices(0, config.backend_options)
    return OpenDevice(policy, load_plugins(policy), resolution, backend)


OPTIONS = {
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
        kv_cache_memory_bytes=28 * 2048 // min(num_shards, 2),
        preemption_mode="auto" if options else "swap",
        options=options,
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
    import octavo.follower
    import octavo.llm

    octavo.llm.open_device = octavo.follower.open_device = open_here
    options = {}
    if address is not None:
        options = {"coordinator_address": address, "process_id": int(process_id)}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
        for size in map(int, sizes.split(",")):
            if process_id == "0":
                found[size] = run(folder, size, options)
            else:
                config = EngineConfig(
                    model=folder, tensor_parallel_size=size, options=options, **OPTIONS
                )
                octavo.follower.follow(config)
    print(json.dumps(found))


main(*sys.argv[1:])
