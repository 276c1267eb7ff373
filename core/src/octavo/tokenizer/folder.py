"""The tokenizer files of a Hugging Face folder, read into a `FastTokenizer`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tokenizers

from octavo.errors import ModelLoadError
from octavo.tokenizer.base import ChatTemplates, one_or_named
from octavo.tokenizer.fast import FastTokenizer

__all__ = ["load_fast_tokenizer", "read_chat_template", "read_eos_token_ids", "read_json"]

NAMED_TOKENS = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)


def load_fast_tokenizer(folder: Path) -> FastTokenizer:
    """tokenizer.json, with what tokenizer_config.json and its companions add to it.

    As in Transformers 5, tokenizer.json alone decides whether BOS and EOS are added to a text:
    ``add_bos_token`` and ``add_eos_token`` beside it only say how it was made.
    """
    path = folder / "tokenizer.json"
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:
        raise ModelLoadError(
            f"{path} cannot be read by tokenizers {tokenizers.__version__}: {error}. "
            "Fetch the file again, or upgrade: pip install -U tokenizers"
        ) from error
    config = read_json(folder / "tokenizer_config.json")
    if "added_tokens_decoder" not in config:  # files from before it state their tokens apart
        config = {**config, **read_json(folder / "special_tokens_map.json")}
    special_tokens = _read_special_tokens(config)
    backend.add_tokens(list(_read_added_tokens(backend, config)))
    backend.add_special_tokens(list(special_tokens.values()) + list(_extra_tokens(config)))
    return FastTokenizer(
        backend,
        special_tokens={name: token.content for name, token in special_tokens.items()},
        eos_token_ids=read_eos_token_ids(folder),
        chat_template=read_chat_template(folder, config),
    )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no such file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path} is not valid JSON: {error}. Fetch the file again.") from error
    if not isinstance(content, dict):
        raise ModelLoadError(f"{path} holds a {type(content).__name__}, expected an object.")
    return content


def read_eos_token_ids(folder: Path) -> tuple[int, ...]:
    """The end tokens that generation_config.json names: one or several."""
    stated = read_json(folder / "generation_config.json").get("eos_token_id")
    ids = stated if isinstance(stated, list) else [stated]
    return tuple(token_id for token_id in ids if isinstance(token_id, int))


def read_chat_template(folder: Path, config: Mapping[str, Any]) -> ChatTemplates:
    """The chat template or templates; files of their own come before tokenizer_config.json."""
    templates = {
        path.stem: _read_text(path)
        for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))
    }
    if (folder / "chat_template.jinja").is_file():
        templates["default"] = _read_text(folder / "chat_template.jinja")
    if not templates:
        beside = read_json(folder / "chat_template.json")
        templates = _named_templates((beside or config).get("chat_template"), folder)
    return one_or_named(templates)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except ValueError as error:
        raise ModelLoadError(f"{path} is not UTF-8 text: {error}.") from error


def _named_templates(stated: Any, folder: Path) -> dict[str, str]:
    """A template by itself is the default one; a list gives names."""
    if stated is None:
        return {}
    if isinstance(stated, str):
        return {"default": stated}
    if isinstance(stated, list):
        stated = {
            entry.get("name"): entry.get("template")
            for entry in stated
            if isinstance(entry, Mapping)
        }
    if isinstance(stated, Mapping) and all(
        isinstance(text, str) for entry in stated.items() for text in entry
    ):
        return dict(stated)
    raise ModelLoadError(
        f"The chat_template in {folder} is neither text nor a list of "
        '{"name": …, "template": …} entries.'
    )


def _read_special_tokens(config: Mapping[str, Any]) -> dict[str, tokenizers.AddedToken]:
    """The named special tokens that are set."""
    named = {name: _special_token(config.get(name), config) for name in NAMED_TOKENS}
    return {name: token for name, token in named.items() if token is not None}


def _extra_tokens(config: Mapping[str, Any]) -> Iterator[tokenizers.AddedToken]:
    """Special tokens beside the named ones, under their old key or their new one."""
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    for stated in extra.values() if isinstance(extra, Mapping) else extra:
        token = _special_token(stated, config)
        if token is not None:
            yield token


def _special_token(stated: Any, config: Mapping[str, Any]) -> tokenizers.AddedToken | None:
    """A special token from its text, or from the object that spells out its flags."""
    text = stated.get("content") if isinstance(stated, Mapping) else stated
    if not isinstance(text, str) or not text:
        return None
    for described in (config.get("added_tokens_decoder") or {}).values():
        if described.get("content") == text:
            return _added_token({**described, "special": True})
    flags = stated if isinstance(stated, Mapping) else {"content": text, "normalized": False}
    return _added_token({**flags, "special": True})


def _read_added_tokens(
    backend: tokenizers.Tokenizer, config: Mapping[str, Any]
) -> Iterator[tokenizers.AddedToken]:
    """What added_tokens_decoder lists and tokenizer.json lacks, in the order of the ids."""
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    stated = config.get("added_tokens_decoder") or {}
    for _, described in sorted(stated.items(), key=lambda entry: int(entry[0])):
        if described.get("content") not in known:
            yield _added_token(described)


def _added_token(described: Mapping[str, Any]) -> tokenizers.AddedToken:
    return tokenizers.AddedToken(
        described["content"],
        single_word=bool(described.get("single_word", False)),
        lstrip=bool(described.get("lstrip", False)),
        rstrip=bool(described.get("rstrip", False)),
        normalized=bool(described.get("normalized", not described.get("special", False))),
        special=bool(described.get("special", False)),
    )
