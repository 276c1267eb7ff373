"""Tokenizers from folders, against transformers on the same folders."""

# ruff: noqa: S105, S106 - tokens of a vocabulary are no passwords

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers
from transformers import AutoTokenizer

from octavo.errors import ModelLoadError, UsageError
from octavo.loading.tokenizer_source import TokenizerSource
from octavo.tokenizer import Tokenizer, load_tokenizer
from tiny_tokenizers import (
    CHAT_TEMPLATE,
    TEXTS,
    llama_like,
    save_folder,
    train_byte_level,
    train_sentencepiece,
    train_unigram,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tokenizers")
    return {
        "byte-level": save_folder(
            root / "byte-level",
            train_byte_level(),
            eos_token="<|endoftext|>",
            chat_template=CHAT_TEMPLATE,
        ),
        "sentencepiece": save_folder(
            root / "sentencepiece",
            llama_like(train_sentencepiece()),
            bos_token="<s>",
            eos_token="</s>",
            unk_token="<unk>",
        ),
        "unigram": save_folder(
            root / "unigram", train_unigram(), bos_token="<s>", eos_token="</s>"
        ),
    }


KINDS = ["byte-level", "sentencepiece", "unigram"]


def load(folder: Path, **options) -> Tokenizer:
    return load_tokenizer(TokenizerSource(directory=folder), **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("add_special_tokens", [True, False])
def test_encodes_as_transformers(folders, kind, add_special_tokens):
    ours, theirs = load(folders[kind]), AutoTokenizer.from_pretrained(folders[kind])
    expected = [theirs.encode(text, add_special_tokens=add_special_tokens) for text in TEXTS]
    assert [ours.encode(text, add_special_tokens=add_special_tokens) for text in TEXTS] == expected
    assert ours.encode_batch(TEXTS, add_special_tokens=add_special_tokens) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("skip_special_tokens", [True, False])
def test_decodes_as_transformers(folders, kind, skip_special_tokens):
    ours, theirs = load(folders[kind]), AutoTokenizer.from_pretrained(folders[kind])
    for text in TEXTS:
        ids = theirs.encode(text)
        expected = theirs.decode(
            ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        assert ours.decode(ids, skip_special_tokens=skip_special_tokens) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_names_tokens_as_transformers(folders, kind):
    ours, theirs = load(folders[kind]), AutoTokenizer.from_pretrained(folders[kind])
    assert ours.vocab_size == len(theirs)
    assert (ours.bos_token_id, ours.eos_token_id) == (theirs.bos_token_id, theirs.eos_token_id)
    assert ours.special_tokens == theirs.special_tokens_map
    assert ours.chat_template == theirs.chat_template
    ids = range(len(theirs))
    assert [ours.id_to_token(i) for i in ids] == theirs.convert_ids_to_tokens(list(ids))
    assert all(ours.token_to_id(ours.id_to_token(i)) == i for i in ids)


def test_round_trips_every_text_in_a_byte_level_vocabulary(folders):
    tokenizer = load(folders["byte-level"])
    assert [tokenizer.decode(tokenizer.encode(text)) for text in TEXTS] == TEXTS


def test_special_tokens_in_a_text_become_their_ids_and_are_skipped_in_output(folders):
    tokenizer = load(folders["byte-level"])
    ids = tokenizer.encode("<|im_start|>user<|im_end|>")
    assert {ids[0], ids[-1]} == {1, 2}
    assert tokenizer.decode(ids) == "user"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "<|im_start|>user<|im_end|>"


def test_ids_without_a_token_decode_to_nothing(folders):
    tokenizer = load(folders["byte-level"])
    ids = tokenizer.encode("abc")
    assert tokenizer.decode([*ids, tokenizer.vocab_size + 5, 2**31, -1, 2**40]) == "abc"
    assert tokenizer.id_to_token(tokenizer.vocab_size) == ""
    assert tokenizer.token_to_id("no such token") is None


def test_generation_config_adds_end_tokens(folders, tmp_path):
    folder = save_folder(tmp_path, train_byte_level(), eos_token="<|endoftext|>")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 2]}))
    tokenizer = load(folder)
    assert tokenizer.eos_token_id == 0
    assert tokenizer.eos_token_ids == {0, 2}
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}))
    assert load(folder).eos_token_ids == {0, 2}


@pytest.mark.parametrize("where", ["tokenizer_config", "special_tokens_map"])
def test_tokens_stated_beside_tokenizer_json_are_added_as_transformers_does(tmp_path, where):
    added = {"content": "<tool>", "lstrip": False, "rstrip": True, "normalized": False}
    folder = save_folder(tmp_path, train_byte_level(), eos_token="<|im_end|>")
    if where == "tokenizer_config":
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": {"__type": "AddedToken", "content": "<|im_end|>"},
            "pad_token": "<|pad|>",
            "additional_special_tokens": ["<extra>"],
            "added_tokens_decoder": {
                "600": {**added, "special": False, "single_word": False},
                "601": {**added, "content": "<|pad|>", "special": True, "single_word": False},
            },
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    else:
        companion = {
            "pad_token": {"content": "<|pad|>", "lstrip": True, "rstrip": False},
            "additional_special_tokens": ["<tool>", "<extra>"],
        }
        (folder / "special_tokens_map.json").write_text(json.dumps(companion))
    ours, theirs = load(folder), AutoTokenizer.from_pretrained(folder)
    text = "a <tool>  b<extra> <|pad|> c"
    assert ours.encode(text) == theirs.encode(text)
    assert ours.vocab_size == len(theirs)
    assert ours.special_tokens["pad_token"] == "<|pad|>"
    assert ours.decode(ours.encode(text)) == theirs.decode(
        theirs.encode(text), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )


def test_limits_baked_into_tokenizer_json_do_not_cut_prompts(tmp_path):
    backend = train_byte_level()
    backend.enable_truncation(4)
    backend.enable_padding(length=64)
    tokenizer = load(save_folder(tmp_path, backend))
    text = "a text of many more than four tokens"
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("source", ["string", "list", "jinja", "json", "named-files"])
def test_chat_templates_are_found_where_transformers_finds_them(tmp_path, source):
    stated = {"string": "one", "list": [{"name": "default", "template": "one"},
              {"name": "tool_use", "template": "two"}]}.get(source)  # fmt: skip
    config = {} if stated is None else {"chat_template": stated}
    folder = save_folder(tmp_path, train_byte_level(), **config)
    if source == "jinja":
        (folder / "chat_template.jinja").write_text("één\n", encoding="utf-8")
    if source == "json":
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": "one"}))
        assert load(folder).chat_template == "one"  # written for processors, not for tokenizers
        return
    if source == "named-files":
        (folder / "chat_template.jinja").write_text("one")
        (folder / "additional_chat_templates").mkdir()
        (folder / "additional_chat_templates" / "tool_use.jinja").write_text("two")
    theirs = AutoTokenizer.from_pretrained(folder).chat_template
    assert theirs
    assert load(folder).chat_template == theirs


def test_a_template_file_comes_before_the_config(tmp_path):
    folder = save_folder(tmp_path, train_byte_level(), chat_template="old")
    (folder / "chat_template.jinja").write_text("new")
    assert load(folder).chat_template == "new"


def test_a_decoder_that_joins_by_spaces(tmp_path):
    backend = Backend(models.WordLevel({"<a>": 0, "<b>": 1, "x": 2, "y": 3}, unk_token="x"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(["<a>", "<b>"])
    tokenizer = load(save_folder(tmp_path, backend))
    ids = [2, 0, 1, 3]
    assert tokenizer.decode(ids) == "x y"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "x <a> <b> y"
    joined = tokenizer.decode(ids, skip_special_tokens=False, spaces_between_special_tokens=False)
    assert joined == "x <a><b> y"


@pytest.mark.parametrize("content", ["{", '{"model": {"type": "BPE"}}', "[]", ""])
def test_a_damaged_tokenizer_json_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelLoadError, match=r"tokenizer\.json"):
        load(tmp_path)


def test_a_damaged_config_is_refused(tmp_path):
    folder = save_folder(tmp_path, train_byte_level())
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(ModelLoadError, match=r"tokenizer_config\.json is not valid JSON"):
        load(folder)
    (folder / "tokenizer_config.json").write_text('{"chat_template": 5}')
    with pytest.raises(ModelLoadError, match="chat_template"):
        load(folder)


def test_text_that_cannot_be_encoded_is_refused(folders):
    tokenizer = load(folders["byte-level"])
    with pytest.raises(UsageError, match=r"lone surrogate \(U\+D83D at character 2\)"):
        tokenizer.encode("ab\ud83d")
    with pytest.raises(UsageError, match="takes text, got int"):
        tokenizer.encode(5)
    with pytest.raises(UsageError, match="takes text, got bytes"):
        tokenizer.encode_batch(["a", b"b"])


def test_an_unknown_mode_lists_the_good_ones(folders):
    with pytest.raises(UsageError, match=r"Did you mean 'fast'.*auto, fast, slow"):
        load(folders["byte-level"], mode="fats")


def test_no_tokenizer_at_all(tmp_path):
    with pytest.raises(ModelLoadError, match="brings no tokenizer"):
        load_tokenizer(TokenizerSource())
    with pytest.raises(ModelLoadError, match="holds no tokenizer"):
        load(tmp_path)


def test_transformers_converts_what_has_no_tokenizer_json(tmp_path):
    pytest.importorskip(
        "google.protobuf", reason="transformers reads tokenizer.model with protobuf"
    )
    processor = train_sentencepiece()
    (tmp_path / "tokenizer.model").write_bytes(processor.serialized_model_proto())
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours, theirs = load(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text)
        ids = processor.encode(text)
        assert ours.decode(ids) == processor.decode(ids)
    with pytest.raises(ModelLoadError, match="mode 'fast' needs"):
        load(tmp_path, mode="fast")


def test_a_tokenizer_in_python_runs_as_it_is(tmp_path):
    vocabulary = {token: i for i, token in enumerate(["<unk>", "</s>", "a", "b", " "])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CanineTokenizer"})
    )
    ours, theirs = load(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert not theirs.is_fast
    assert ours.encode("ab é") == theirs.encode("ab é")
    assert ours.decode(ours.encode("ab é")) == "ab é"
    assert ours.special_ids == set(theirs.all_special_ids)


def test_a_missing_transformers_is_named_with_the_pip_line(tmp_path, monkeypatch):
    (tmp_path / "tokenizer.model").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelLoadError, match="pip install transformers"):
        load(tmp_path)


def test_code_in_a_checkpoint_is_never_run(tmp_path):
    marker = tmp_path / "ran"
    (tmp_path / "vocab.json").write_text("{}")
    config = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass\n")
    with pytest.raises(ModelLoadError, match="transformers cannot load"):
        load(tmp_path)
    assert not marker.exists()
