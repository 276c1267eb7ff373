"""The tokenizer of a GGUF file, from its metadata alone."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers import Tokenizer, processors

from octavo.errors import ModelLoadError
from octavo.suggest import choices, did_you_mean
from octavo.tokenizer.base import one_or_named
from octavo.tokenizer.fast import FastTokenizer
from octavo.tokenizer.gguf_build import BUILDERS, added_tokens, adds_bos
from octavo.tokenizer.gguf_vocab import GGUFVocabulary, TokenKind, read_vocabulary

__all__ = ["load_gguf_tokenizer"]

_log = logging.getLogger(__name__)

_NAMED_TOKENS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "sep_token": "seperator_token_id",  # spelled so in the format
    "pad_token": "padding_token_id",
    "mask_token": "mask_token_id",
}
_SENTENCEPIECE_DEFAULT_IDS = {"unk_token": 0, "bos_token": 1, "eos_token": 2}
_END_TOKEN_KEYS = ("eot_token_id", "eom_token_id")
_END_OF_TURN_TOKENS = (
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|eot|>", "<end_of_turn>", "<|end_of_turn|>",
    "<|END_OF_TURN_TOKEN|>", "<|end|>", "<|return|>", "<|call|>", "<|endoftext|>",
    "<|end_of_text|>", "<turn|>", "[EOT]", "<｜end▁of▁sentence｜>",  # noqa: RUF001
)  # fmt: skip


def load_gguf_tokenizer(metadata: Mapping[str, Any]) -> FastTokenizer:
    """The tokenizer that tokenizer.ggml.* describes, with the file's chat templates."""
    vocabulary = read_vocabulary(metadata)
    special_tokens = _special_tokens(vocabulary)
    backend = _build(vocabulary)
    tokens = added_tokens(vocabulary)
    backend.add_special_tokens([token for token in tokens if token.special])
    backend.add_tokens([token for token in tokens if not token.special])
    _surround_texts(backend, vocabulary, special_tokens)
    chat_templates = _chat_templates(metadata)
    return FastTokenizer(
        backend,
        special_tokens=special_tokens,
        eos_token_ids=map(vocabulary.tokens.index, _end_tokens(vocabulary, chat_templates)),
        chat_template=one_or_named(chat_templates),
    )


def _build(vocabulary: GGUFVocabulary) -> Tokenizer:
    build = BUILDERS.get(vocabulary.model)
    if build is None:
        raise ModelLoadError(
            f"The GGUF's vocabulary is of the kind {vocabulary.model!r} (tokenizer.ggml.model)."
            f"{did_you_mean(vocabulary.model, BUILDERS)} Kinds that can be read: "
            f"{choices(BUILDERS)}. Use the model's tokenizer.json instead: --tokenizer FOLDER."
        )
    try:
        return build(vocabulary)
    except ModelLoadError:
        raise
    except Exception as error:
        raise ModelLoadError(
            f"The GGUF's {vocabulary.model!r} vocabulary is unusable: {error}. "
            "The file is damaged or was converted wrongly."
        ) from error


def _special_tokens(vocabulary: GGUFVocabulary) -> dict[str, str]:
    defaults = _SENTENCEPIECE_DEFAULT_IDS if vocabulary.model == "llama" else {}
    named = {
        name: vocabulary.token_at(key, defaults.get(name)) for name, key in _NAMED_TOKENS.items()
    }
    return {name: token for name, token in named.items() if token is not None}


def _surround_texts(
    backend: Tokenizer, vocabulary: GGUFVocabulary, special_tokens: Mapping[str, str]
) -> None:
    """Make the pipeline put BOS before a text and EOS after it, where the vocabulary asks."""
    wanted = {
        "bos_token": adds_bos(vocabulary),
        "eos_token": vocabulary.flag("add_eos_token", default=False),
    }
    for name in [name for name, add in wanted.items() if add and name not in special_tokens]:
        _log.warning("The GGUF asks for a %s around texts but names none: none is added.", name)
        wanted[name] = False
    surrounding = [special_tokens[name] for name, add in wanted.items() if add]
    if not surrounding:
        return
    before = [special_tokens["bos_token"]] if wanted["bos_token"] else []
    after = [special_tokens["eos_token"]] if wanted["eos_token"] else []
    backend.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *after],
        special_tokens=[(token, vocabulary.tokens.index(token)) for token in {*before, *after}],
    )


def _chat_templates(metadata: Mapping[str, Any]) -> dict[str, str]:
    """tokenizer.chat_template is the default one; others carry their name behind it."""
    key = "tokenizer.chat_template"
    templates = {
        name.removeprefix(key + "."): text
        for name, text in metadata.items()
        if name.startswith(key + ".") and isinstance(text, str)
    }
    if isinstance(metadata.get(key), str):
        templates["default"] = metadata[key]
    return templates


def _end_tokens(vocabulary: GGUFVocabulary, chat_templates: Mapping[str, str]) -> Iterable[str]:
    """Tokens that end a turn: those the metadata points to, and those the templates write.

    The format has no list of end tokens as generation_config.json does. A control token counts if
    its name is known to end turns and the model's own chat template uses it, so a base model's
    vocabulary does not make it stop early.
    """
    stated = [vocabulary.token_at(key) for key in _END_TOKEN_KEYS]
    yield from (token for token in stated if token is not None)
    control = set(vocabulary.of_kind(TokenKind.CONTROL))
    for token in control.intersection(_END_OF_TURN_TOKENS):
        if token == "<|end|>" and "<|return|>" in control:  # noqa: S105 - Harmony: ends a message
            continue
        if any(token in template for template in chat_templates.values()):
            yield token
