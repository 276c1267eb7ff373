"""Processes that follow: what the first one tells is enough to have the same caches."""

from __future__ import annotations

import json

import numpy as np
import pytest

from octavo import SamplingParams
from octavo.config import EngineConfig
from octavo.engine_loader import load_engine
from octavo.errors import UsageError
from octavo.follower import Follower, follow
from octavo.model_loader import load_model
from octavo.open_device import open_device
from octavo.relay import Relay
from octavo.testing.tiny_models import TINY_MODELS


@pytest.fixture
def config(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TINY_MODELS["gemma2"].config))
    return EngineConfig(
        model=str(tmp_path),
        device="cpu",
        backend="numpy",
        load_format="dummy",
        kv_cache_memory_bytes=1 << 18,
        swap_space=0,
        max_num_seqs=4,
        max_num_batched_tokens=16,
        quiet=True,
    )


def open_process(config, process_index):
    """A backend that takes itself for one of two processes, and its messages."""
    device, messages = open_device(config), []
    device.backend.num_processes, device.backend.process_index = 2, process_index
    device.backend.send, device.backend.receive = messages.append, lambda: messages.pop(0)
    return device, messages


def test_a_follower_computes_what_the_first_process_does(config):
    """Prompts in chunks, forks and what they copy, drawn tokens, log-probabilities of a prompt."""
    device, messages = open_process(config, 0)
    loaded = load_engine(config, device)
    for name, options in {"a": {"n": 3}, "b": {"prompt_logprobs": 2}, "c": {}}.items():
        params = SamplingParams(max_tokens=9, seed=1, ignore_eos=True, **options)
        loaded.engine.add_request(name, {"prompt_token_ids": list(range(3, 30))}, params)
    while loaded.engine.has_unfinished_requests:
        loaded.engine.step()
    caches = loaded.engine.runner.store.caches
    loaded.engine.close()
    second, _ = open_process(config, 1)
    second.backend.receive = lambda: messages.pop(0)
    model = load_model(config, second)
    (_, plan, max_logprobs), *others = Relay(second.backend).messages()
    follower = Follower(second.backend, model.ops, model.shard, model.weights, plan, max_logprobs)
    for message in others:
        follower.obey(*message)
    assert {kind for kind, *_ in others} == {"step", "copy"}
    for cache, followed in zip(caches, follower._store.caches, strict=True):
        np.testing.assert_array_equal(cache.k[1:], followed.k[1:])
        np.testing.assert_array_equal(cache.v[1:], followed.v[1:])


def test_who_leads_and_who_follows(config, monkeypatch):
    device, _ = open_process(config, 1)
    with pytest.raises(UsageError, match=r"process 1 of 2: .* Start `octavo follow`"):
        load_engine(config, device)
    with pytest.raises(UsageError, match="no process to follow"):
        follow(config)
    device, messages = open_process(config, 1)
    Relay(device.backend).end()
    assert len(messages) == 1
    monkeypatch.setattr("octavo.follower.open_device", lambda _config: device)
    with pytest.raises(UsageError, match="first process could not load"):
        follow(config)
