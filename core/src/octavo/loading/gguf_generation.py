"""A GGUF file's special tokens and recommended sampling as a generation_config.json."""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from octavo.errors import ModelLoadError

__all__ = ["generation_config", "special_token_ids"]

_LOG = logging.getLogger(__name__)

_TOKEN_ID_KEYS = {
    "bos_token_id": "tokenizer.ggml.bos_token_id",
    "eos_token_id": "tokenizer.ggml.eos_token_id",
    "pad_token_id": "tokenizer.ggml.padding_token_id",
}

_END_KEYS = (
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
)

_SAMPLING_KEYS = {
    "temperature": "general.sampling.temp",
    "top_k": "general.sampling.top_k",
    "top_p": "general.sampling.top_p",
    "min_p": "general.sampling.min_p",
    "repetition_penalty": "general.sampling.penalty_repeat",
}


def special_token_ids(path: Path, metadata: Mapping[str, Any], vocab_size: int) -> dict[str, Any]:
    """The bos_token_id, eos_token_id and pad_token_id that the file has."""
    return {
        name: token_id
        for name, key in _TOKEN_ID_KEYS.items()
        for token_id in _token_ids(path, metadata, (key,), vocab_size)
    }


def generation_config(path: Path, metadata: Mapping[str, Any], vocab_size: int) -> dict[str, Any]:
    """generation_config.json: token ids, and sampling defaults where the file recommends some.

    Generation ends at the end of the text and, in files that tell them apart, of a turn or message.
    """
    config = special_token_ids(path, metadata, vocab_size)
    ends = list(dict.fromkeys(_token_ids(path, metadata, _END_KEYS, vocab_size)))
    if ends:
        config["eos_token_id"] = ends[0] if len(ends) == 1 else ends
    sampling = {name: metadata[key] for name, key in _SAMPLING_KEYS.items() if key in metadata}
    for name, value in sampling.items():
        if type(value) not in (int, float):
            raise ModelLoadError(
                f"{path}: {_SAMPLING_KEYS[name]} is {reprlib.repr(value)}; expected a number"
            )
    return config | sampling | ({"do_sample": True} if sampling else {})


def _token_ids(
    path: Path, metadata: Mapping[str, Any], keys: Iterable[str], vocab_size: int
) -> list[int]:
    """The tokens under these keys; one beyond the vocabulary stands for "none" in some files."""
    token_ids = []
    for key in keys:
        token_id = metadata.get(key)
        if token_id is None:
            continue
        if type(token_id) is not int:
            raise ModelLoadError(f"{path}: {key} is {reprlib.repr(token_id)}; expected a token id")
        if 0 <= token_id < vocab_size:
            token_ids.append(token_id)
        else:
            _LOG.warning(
                "%s: %s is %d, beyond the vocabulary of %d tokens; the model has no such token",
                *(path.name, key, token_id, vocab_size),
            )
    return token_ids
