"""A `tokenizers` pipeline for each kind of GGUF vocabulary."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
)

from octavo.errors import ModelLoadError
from octavo.tokenizer.gguf_split import WordSplit, find_word_split
from octavo.tokenizer.gguf_vocab import GGUFVocabulary, TokenKind

__all__ = ["BUILDERS", "added_tokens", "adds_bos", "merges_by_rank"]

_log = logging.getLogger(__name__)

Merge: TypeAlias = tuple[str, str]

_SPACE_MARKER = "▁"
_NFC_ARCHITECTURES = "qwen"  # the family's own tokenizers compose characters first
_POSITION_RANKED = "gemma"  # scores of these files do not follow the order of their merges
_NOT_RSTRIPPED = ("<unk>", "<s>", "<|endoftext|>")
_NO_PRE_TOKENIZER = (
    "The GGUF names no pre-tokenizer (tokenizer.ggml.pre), so words are cut by the 'default' rule, "
    "which may not be the model's own: answers can be worse. Convert the model again, or use its "
    "tokenizer.json: --tokenizer FOLDER."
)


def _build_byte_level(vocabulary: GGUFVocabulary) -> Tokenizer:
    """GPT-2's kind: words cut by regular expressions, then merged as bytes."""
    if vocabulary.text("pre") is None:
        _log.warning(_NO_PRE_TOKENIZER)
    split = _word_split(vocabulary)
    model = models.BPE(
        vocab=_ids(vocabulary),
        merges=_parse_merges(vocabulary.merges),
        ignore_merges=split.whole_words_first,
    )
    backend = Tokenizer(model)
    if vocabulary.architecture.startswith(_NFC_ARCHITECTURES):
        backend.normalizer = normalizers.NFC()
    steps = [pre_tokenizers.Split(Regex(rule), "isolated") for rule in split.expressions]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*steps, byte_level])
    backend.decoder = decoders.ByteLevel()
    return backend


def _build_sentencepiece(vocabulary: GGUFVocabulary) -> Tokenizer:
    """SentencePiece's kind: spaces as markers, no words, merges by score, bytes as last resort."""
    model = models.BPE(
        vocab=_ids(vocabulary),
        merges=merges_by_rank(_ranked_tokens(vocabulary), frozenset(vocabulary.tokens)),
        unk_token=vocabulary.token_at("unknown_token_id", default_id=0),
        fuse_unk=True,
        byte_fallback=True,
    )
    backend = Tokenizer(model)
    mark_spaces = normalizers.Replace(" ", _SPACE_MARKER)
    restore_spaces = decoders.Replace(_SPACE_MARKER, " ")
    join = [restore_spaces, decoders.ByteFallback(), decoders.Fuse()]
    if vocabulary.flag("add_space_prefix", default=True):
        backend.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE_MARKER), mark_spaces])
        backend.decoder = decoders.Sequence([*join, decoders.Strip(" ", 1, 0)])
    else:
        backend.normalizer = mark_spaces
        backend.decoder = decoders.Sequence(join)
    return backend


BUILDERS: dict[str, Callable[[GGUFVocabulary], Tokenizer]] = {
    "gpt2": _build_byte_level,
    "llama": _build_sentencepiece,
}
"""tokenizer.ggml.model → the builder."""


def added_tokens(vocabulary: GGUFVocabulary) -> list[AddedToken]:
    """The tokens that text is searched for before anything else."""
    special = vocabulary.of_kind(TokenKind.CONTROL, TokenKind.UNKNOWN)
    plain = vocabulary.of_kind(TokenKind.USER_DEFINED)
    # Phi-3's markers take the line break after them; the format has no field for that.
    is_phi3 = vocabulary.architecture == "phi3" and vocabulary.model == "llama"
    rstripped = set(special + plain) - set(_NOT_RSTRIPPED) if is_phi3 else set[str]()
    return [
        AddedToken(token, normalized=False, special=is_special, rstrip=token in rstripped)
        for tokens, is_special in ((special, True), (plain, False))
        for token in tokens
        if token
    ]


def adds_bos(vocabulary: GGUFVocabulary) -> bool:
    """Whether a text begins with BOS: as the file says, else as its kind of vocabulary does."""
    if vocabulary.model == "llama":
        return vocabulary.flag("add_bos_token", default=True)
    return vocabulary.flag("add_bos_token", default=_word_split(vocabulary).adds_bos)


def merges_by_rank(ranked_tokens: Iterable[str], known: frozenset[str]) -> list[Merge]:
    """Every way to join two known tokens into a ranked one, the best rank first."""
    return [
        (token[:cut], token[cut:])
        for token in ranked_tokens
        for cut in range(len(token) - 1, 0, -1)
        if token[:cut] in known and token[cut:] in known
    ]


def _word_split(vocabulary: GGUFVocabulary) -> WordSplit:
    return find_word_split(vocabulary.text("pre") or "default")


def _ranked_tokens(vocabulary: GGUFVocabulary) -> Sequence[str]:
    """Ordinary tokens, the one to be merged first first."""
    ordinary = [
        token_id for token_id, kind in enumerate(vocabulary.kinds) if kind == TokenKind.NORMAL
    ]
    if not vocabulary.architecture.startswith(_POSITION_RANKED):
        if not vocabulary.scores:
            raise ModelLoadError(
                "The GGUF's 'llama' vocabulary has no scores (tokenizer.ggml.scores), so its "
                "merges are unknown. The file is damaged or was converted wrongly."
            )
        ordinary.sort(key=lambda token_id: -vocabulary.scores[token_id])
    return [vocabulary.tokens[token_id] for token_id in ordinary]


def _ids(vocabulary: GGUFVocabulary) -> dict[str, int]:
    return {token: token_id for token_id, token in enumerate(vocabulary.tokens)}


def _parse_merges(merges: Sequence[str]) -> list[Merge]:
    pairs = [merge.split(" ") for merge in merges]
    for pair in pairs:
        if len(pair) != 2:
            raise ModelLoadError(
                f"tokenizer.ggml.merges holds {' '.join(pair)!r}, expected two tokens with a space "
                "between. The file is damaged."
            )
    return [(left, right) for left, right in pairs]
