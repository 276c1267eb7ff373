"""Tokenizers that only `transformers` can run: folders without a tokenizer.json."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from octavo.errors import ModelLoadError
from octavo.tokenizer.base import ChatTemplates, Tokenizer
from octavo.tokenizer.fast import FastTokenizer
from octavo.tokenizer.folder import read_chat_template, read_eos_token_ids, read_json

__all__ = ["SlowTokenizer", "load_slow_tokenizer"]


class SlowTokenizer(Tokenizer):
    """A Python tokenizer of `transformers`, as it is."""

    def __init__(
        self, backend: Any, *, eos_token_ids: Iterable[int], chat_template: ChatTemplates
    ) -> None:
        self._backend = backend
        self.vocab_size = len(backend)
        self.special_tokens = _named_tokens(backend)
        self.special_ids = frozenset(backend.all_special_ids)
        end_ids = {*eos_token_ids, backend.eos_token_id}
        self.eos_token_ids = frozenset(end_id for end_id in end_ids if end_id is not None)
        self.chat_template = chat_template

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of `text`."""
        return list(self._backend.encode(text, add_special_tokens=add_special_tokens))

    def decode(
        self,
        ids: Sequence[int],
        *,
        skip_special_tokens: bool = True,
        spaces_between_special_tokens: bool = True,
    ) -> str:
        """Text of `ids`."""
        return str(
            self._backend.decode(
                [token_id for token_id in ids if 0 <= token_id < self.vocab_size],
                skip_special_tokens=skip_special_tokens,
                spaces_between_special_tokens=spaces_between_special_tokens,
                clean_up_tokenization_spaces=False,
            )
        )

    def id_to_token(self, token_id: int) -> str:
        """The token of an id, or ""."""
        if not 0 <= token_id < self.vocab_size:
            return ""
        return str(self._backend.convert_ids_to_tokens(token_id) or "")

    def token_to_id(self, token: str) -> int | None:
        """The id of a token, or None."""
        token_id = self._backend.convert_tokens_to_ids(token)
        known = token_id is not None and self.id_to_token(token_id) == token
        return int(token_id) if known else None


def load_slow_tokenizer(folder: Path) -> Tokenizer:
    """What ``AutoTokenizer`` makes of the folder; code that the checkpoint brings is never run."""
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise ModelLoadError(
            f"{folder} has no tokenizer.json, so its tokenizer needs transformers, which is not "
            "installed: pip install transformers sentencepiece protobuf"
        ) from error
    try:
        loaded = AutoTokenizer.from_pretrained(
            str(folder), trust_remote_code=False, local_files_only=True
        )
    except Exception as error:
        raise ModelLoadError(
            f"{folder} has no tokenizer.json, and transformers cannot load its tokenizer: {error} "
            "A tokenizer.model needs pip install sentencepiece protobuf; else add a tokenizer.json "
            "to the folder, or point --tokenizer to one that has it."
        ) from error
    eos_token_ids = read_eos_token_ids(folder)
    chat_template = read_chat_template(folder, read_json(folder / "tokenizer_config.json"))
    backend = getattr(loaded, "backend_tokenizer", None)
    if isinstance(backend, tokenizers.Tokenizer):  # it was converted: run it without Python
        return FastTokenizer(
            backend,
            special_tokens=_named_tokens(loaded),
            eos_token_ids=eos_token_ids,
            chat_template=chat_template,
        )
    return SlowTokenizer(loaded, eos_token_ids=eos_token_ids, chat_template=chat_template)


def _named_tokens(loaded: Any) -> dict[str, str]:
    return {
        name: str(token)
        for name, token in loaded.special_tokens_map.items()
        if isinstance(token, str)
    }
