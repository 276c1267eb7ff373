"""Tokenizers that the `tokenizers` library runs: tokenizer.json, or one built from a GGUF."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tokenizers

from octavo.errors import UsageError
from octavo.tokenizer.base import ChatTemplates, Tokenizer
from octavo.tokenizer.pieces import PieceTable, read_decoder

__all__ = ["FastTokenizer"]

_MAX_TOKEN_ID = 2**32 - 1  # the library's own; more is an OverflowError there


class FastTokenizer(Tokenizer):
    """A ``tokenizers.Tokenizer`` with its named special tokens, end tokens and chat templates.

    `eos_token_ids` are those beside ``special_tokens["eos_token"]``.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        special_tokens: Mapping[str, str],
        eos_token_ids: Iterable[int] = (),
        chat_template: ChatTemplates = None,
    ) -> None:
        backend.no_truncation()  # a limit baked into tokenizer.json would cut prompts in silence
        backend.no_padding()
        added_tokens = backend.get_added_tokens_decoder()
        self._backend = backend
        # By count alone a vocabulary with holes would lose its last ids.
        self.vocab_size = max(
            backend.get_vocab_size(with_added_tokens=True), max(added_tokens, default=-1) + 1
        )
        self.special_tokens = dict(special_tokens)
        self.special_ids = frozenset(
            token_id for token_id, token in added_tokens.items() if token.special
        )
        end_ids = {*eos_token_ids, self.eos_token_id}
        self.eos_token_ids = frozenset(end_id for end_id in end_ids if end_id is not None)
        self.chat_template = chat_template
        rule = read_decoder(_decoder_settings(backend))
        if rule is not None:
            self.pieces = PieceTable(self.id_to_token, rule, frozenset(added_tokens))

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of `text`."""
        _check_text(text)
        # The library's `encode` works out offsets as well, and lets no other thread run meanwhile.
        encodings = self._backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        ids: list[int] = encodings[0].ids
        return ids

    def encode_batch(
        self, texts: Sequence[str], *, add_special_tokens: bool = True
    ) -> list[list[int]]:
        """Token ids of each text, on several threads where there are many."""
        for text in texts:
            _check_text(text)
        encodings = self._backend.encode_batch_fast(
            list(texts), add_special_tokens=add_special_tokens
        )
        return [encoding.ids for encoding in encodings]

    def decode(
        self,
        ids: Sequence[int],
        *,
        skip_special_tokens: bool = True,
        spaces_between_special_tokens: bool = True,
    ) -> str:
        """Text of `ids`."""
        skipped = self.special_ids if skip_special_tokens else frozenset[int]()
        kept = [token_id for token_id in ids if token_id not in skipped]
        if self.pieces is not None:
            return self.pieces.join(kept).decode("utf-8", "replace")
        if spaces_between_special_tokens:
            return self._backend.decode(kept, skip_special_tokens=False)
        return self._decode_without_spaces(kept)

    def _decode_without_spaces(self, ids: Sequence[int]) -> str:
        """Special tokens as they are spelled, with no space to a special token before them."""
        text = ""
        run: list[int] = []
        for index, token_id in enumerate(ids):
            after_special = index > 0 and ids[index - 1] in self.special_ids
            if token_id in self.special_ids and after_special:
                text += self._backend.decode(run, skip_special_tokens=False)
                run = []
            run.append(token_id)
        return text + self._backend.decode(run, skip_special_tokens=False)

    def id_to_token(self, token_id: int) -> str:
        """The token of an id, or ""."""
        if not 0 <= token_id <= _MAX_TOKEN_ID:
            return ""
        return self._backend.id_to_token(token_id) or ""

    def token_to_id(self, token: str) -> int | None:
        """The id of a token, or None."""
        return self._backend.token_to_id(token)


def _decoder_settings(backend: tokenizers.Tokenizer) -> dict[str, Any] | None:
    """The decoder as tokenizer.json spells it."""
    decoder = backend.decoder
    return None if decoder is None else json.loads(decoder.__getstate__())


def _check_text(text: object) -> None:
    if not isinstance(text, str):
        raise UsageError(f"A tokenizer takes text, got {type(text).__name__}.")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UsageError(
                f"The text holds a lone surrogate (U+{ord(text[error.start]):04X} at character "
                f"{error.start}), which no tokenizer can encode. Replace it, for example with "
                'text.encode("utf-8", "replace").decode().'
            ) from error
