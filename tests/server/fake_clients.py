"""An engine that computes nothing and shows what a test sets."""

from __future__ import annotations

import types

from octavo.engine_snapshot import EngineSnapshot, EngineStats
from octavo.errors import BackendError
from octavo.sampling_params import SamplingParams
from octavo.scheduling.stats import GroupStats, SchedulerStats
from octavo.server.engines.client import EngineClient, EngineInfo


def scheduler_stats(**changes):
    return SchedulerStats(
        **{
            "num_waiting": 0,
            "num_running": 0,
            "num_swapped": 0,
            "num_recompute_preemptions": 0,
            "num_swap_preemptions": 0,
            "num_prefix_query_tokens": 0,
            "num_prefix_hit_tokens": 0,
            "groups": (GroupStats(0, 0, 8, 0, 0),),
            **changes,
        }
    )


def engine_info(**changes):
    return EngineInfo(
        **{
            "model": "org/fake",
            "architecture": "FakeForCausalLM",
            "num_parameters": 1,
            "device": "cpu:0",
            "backend": "numpy",
            "reason": "it is a fake",
            "dtype": "float32",
            "quantization": "none",
            "kv_cache_dtype": "float32",
            "max_model_len": 64,
            "block_size": 4,
            "num_blocks": (8,),
            "vocab_size": 100,
            "max_logprobs": 20,
            "max_num_seqs": 8,
            "default_sampling_params": SamplingParams(),
            **changes,
        }
    )


class FakeClient(EngineClient):
    def __init__(self, **info):
        self.info = engine_info(**info)
        self.tokenizer = None
        self.shown = types.SimpleNamespace(
            failure=None, is_sleeping=False, stats=EngineStats(scheduler_stats())
        )
        self.calls = []
        self.requests = ()
        self.groups = ()

    @property
    def failure(self):
        return self.shown.failure

    @property
    def is_sleeping(self):
        return self.shown.is_sleeping

    @property
    def stats(self):
        return self.shown.stats

    async def submit(self, request_id, prompt, params, *, priority=0, cache_salt=None):
        raise NotImplementedError("these tests ask it nothing")

    async def snapshot(self):
        self.calls.append("snapshot")
        if self.failure is not None:
            raise BackendError(self.failure)
        return EngineSnapshot(self.info.block_size, self.requests, self.groups, self.stats)

    async def reset_prefix_cache(self):
        self.calls.append("reset_prefix_cache")
        return 5

    async def sleep(self, level=1):
        self.calls.append(("sleep", level))
        self.shown.is_sleeping = True

    async def wake_up(self):
        self.calls.append("wake_up")
        self.shown.is_sleeping = False

    async def close(self):
        self.calls.append("close")
