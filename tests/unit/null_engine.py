"""An engine over the NULL backend, and what it must answer, computed without any paging."""

from __future__ import annotations

from octavo.cache_sizing import plan_for
from octavo.completion import Vocabulary
from octavo.config import EngineConfig
from octavo.engine_loader import build_engine
from octavo.testing.null import NullBackend, NullModel, expected_token

VOCAB_SIZE = 997


def make_engine(windows=(None,), num_cache_tokens=4096, verify=True, backend=None, **options):
    options = {
        "max_num_seqs": 8,
        "max_num_batched_tokens": 32,
        "block_size": 4,
        "max_model_len": 256,
        "swap_space": 0.0,
        **options,
    }
    model = NullModel(VOCAB_SIZE, windows=windows)
    backend = backend or NullBackend(model, verify=verify)
    config = EngineConfig(
        model="null", kv_cache_memory_bytes=num_cache_tokens * 8 * len(windows), **options
    )
    plan = plan_for(config, model, backend)
    vocabulary = Vocabulary(VOCAB_SIZE, None, frozenset())
    return build_engine(config, backend, None, model, None, plan, vocabulary)


def answer(prompt, num_tokens, windows):
    tokens = list(prompt)
    for _ in range(num_tokens):
        tokens.append(expected_token(tokens, windows, VOCAB_SIZE))
    return tokens[len(prompt) :]
