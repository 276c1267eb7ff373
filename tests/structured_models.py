"""Tiny models of random weights with a tokenizer of their own, for structured output."""

from __future__ import annotations

import dataclasses
import json

from octavo import LLM
from octavo.testing.tiny_models import TINY_MODELS
from tiny_tokenizers import llama_like, save_folder, train_byte_level, train_sentencepiece

PADDING = 40  # ids of the model that the tokenizer does not have


def byte_level_folder(folder, **names):
    tokenizer = train_byte_level()
    return _model_folder(folder, tokenizer, eos_token="<|im_end|>", **names)  # noqa: S106


def sentencepiece_folder(folder):
    return _model_folder(folder, llama_like(train_sentencepiece()), eos_token="</s>")  # noqa: S106


def _model_folder(folder, tokenizer, **names):
    save_folder(folder, tokenizer, **names)
    vocab_size = tokenizer.get_vocab_size() + PADDING
    config = {
        **TINY_MODELS["llama"].config,
        "vocab_size": vocab_size,
        "max_position_embeddings": 1024,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def open_llm(folder, **options):
    return LLM(
        str(folder),
        device="cpu",
        backend="numpy",
        load_format="dummy",
        quiet=True,
        **{"max_model_len": 1024, "kv_cache_memory_bytes": 1 << 25, **options},
    )


def ask(llm, params, seeds, prompt="Say:", **changes):
    """Answers to the same prompt for many seeds, in one batch."""
    each = [dataclasses.replace(params, seed=seed, **changes) for seed in seeds]
    outputs = llm.generate([prompt] * len(each), each, use_tqdm=False)
    return [output.outputs[0] for output in outputs]
