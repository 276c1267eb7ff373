"""Vocabularies from GGUF metadata, against transformers, SentencePiece and tokenizer.json."""

from __future__ import annotations

import json
import logging
from contextlib import closing

import numpy as np
import pytest
from transformers import AutoTokenizer

from octavo.errors import ModelLoadError, UsageError
from octavo.loading.gguf_file import GGUFFile
from octavo.loading.tokenizer_source import TokenizerSource
from octavo.tokenizer import Tokenizer, load_tokenizer, render_chat
from octavo.tokenizer.gguf_split import WORD_SPLITS
from tiny_tokenizers import (
    CHAT_TEMPLATE,
    TEXTS,
    sentencepiece_metadata,
    train_byte_level,
    train_sentencepiece,
)

PROCESSOR = train_sentencepiece()


def load(metadata: dict) -> Tokenizer:
    return load_tokenizer(TokenizerSource(gguf=metadata))


def byte_level_metadata(**values) -> dict:
    """The tiny byte-level tokenizer as a GGUF file would have it."""
    backend = train_byte_level()
    vocabulary = backend.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.get)
    special = {token.content for token in backend.get_added_tokens_decoder().values()}
    merges = [" ".join(pair) for pair in json.loads(backend.to_str())["model"]["merges"]]
    return {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array([3 if token in special else 1 for token in tokens]),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": vocabulary["<|endoftext|>"],
        **{f"tokenizer.ggml.{key}": value for key, value in values.items()},
    }


def test_byte_level_vocabulary_encodes_as_the_tokenizer_it_came_from():
    backend, tokenizer = train_byte_level(), load(byte_level_metadata())
    for text in [*TEXTS, "<|im_start|>user\nhi<|im_end|>\n"]:
        ids = backend.encode(text).ids
        assert tokenizer.encode(text) == ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_sentencepiece_vocabulary_encodes_as_sentencepiece():
    tokenizer = load(sentencepiece_metadata(PROCESSOR))
    plain = [text for text in TEXTS if "<s>" not in text]  # SentencePiece knows no special text
    assert [tokenizer.encode(text, add_special_tokens=False) for text in plain] == [
        PROCESSOR.encode(text) for text in plain
    ]
    assert tokenizer.encode("a") == [PROCESSOR.bos_id(), *PROCESSOR.encode("a")]
    assert tokenizer.encode("") == [PROCESSOR.bos_id()]


def test_sentencepiece_vocabulary_without_the_space_before_a_text():
    processor = train_sentencepiece(add_dummy_prefix=False)
    tokenizer = load(sentencepiece_metadata(processor, add_space_prefix=False))
    for text in (text for text in TEXTS if "<s>" not in text):
        ids = processor.encode(text)
        assert tokenizer.encode(text, add_special_tokens=False) == ids
        assert tokenizer.decode(ids) == text


def test_sentencepiece_text_round_trips():
    tokenizer = load(sentencepiece_metadata(PROCESSOR))
    for text in (text for text in TEXTS if "<s>" not in text):
        assert tokenizer.decode(PROCESSOR.encode(text)) == text


def test_user_defined_tokens_are_whole_and_shown():
    tokenizer = load(sentencepiece_metadata(PROCESSOR))
    turn = PROCESSOR.piece_to_id("<turn>")
    ids = tokenizer.encode("a<turn>b", add_special_tokens=False)
    assert ids.count(turn) == 1
    assert turn not in tokenizer.special_ids
    assert tokenizer.decode([turn]) == "<turn>"


@pytest.mark.parametrize(
    ("flags", "before", "after"),
    [
        ({}, ["bos"], []),
        ({"add_bos_token": False}, [], []),
        ({"add_bos_token": True, "add_eos_token": True}, ["bos"], ["eos"]),
        ({"add_bos_token": False, "add_eos_token": True}, [], ["eos"]),
    ],
)
def test_flags_put_bos_and_eos_around_a_text(flags, before, after):
    tokenizer = load(sentencepiece_metadata(PROCESSOR, **flags))
    ids = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id}
    plain = tokenizer.encode("text", add_special_tokens=False)
    assert tokenizer.encode("text") == [*map(ids.get, before), *plain, *map(ids.get, after)]


def test_byte_level_vocabularies_add_bos_only_where_their_kind_does():
    ids = {"bos_token_id": 1}
    assert load(byte_level_metadata(**ids)).encode("a")[0] != 1
    assert load(byte_level_metadata(**ids, pre="llama-bpe")).encode("a")[0] == 1
    assert (
        load(byte_level_metadata(**ids, pre="llama-bpe", add_bos_token=False)).encode("a")[0] != 1
    )


def test_a_missing_bos_is_said_not_added(caplog):
    tokenizer = load(byte_level_metadata(add_bos_token=True))
    assert tokenizer.encode("a") == tokenizer.encode("a", add_special_tokens=False)
    assert "names none" in caplog.text


def test_end_of_turn_tokens_come_from_the_metadata_and_the_template():
    names = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
    metadata = byte_level_metadata()
    assert load(metadata).eos_token_ids == {names["<|endoftext|>"]}
    with_template = {**metadata, "tokenizer.chat_template": CHAT_TEMPLATE}
    assert load(with_template).eos_token_ids == {names["<|endoftext|>"], names["<|im_end|>"]}
    assert load(byte_level_metadata(eot_token_id=1)).eos_token_ids == {0, 1}


def test_named_chat_templates():
    metadata = byte_level_metadata()
    metadata["tokenizer.chat_template"] = "plain"
    assert load(metadata).chat_template == "plain"
    metadata["tokenizer.chat_template.tool_use"] = "tools"
    metadata["tokenizer.chat_templates"] = ["tool_use"]
    assert load(metadata).chat_template == {"default": "plain", "tool_use": "tools"}


def test_phi3_markers_take_the_line_break_after_them():
    metadata = sentencepiece_metadata(PROCESSOR)
    metadata["tokenizer.ggml.tokens"] = [*metadata["tokenizer.ggml.tokens"], "<|user|>"]
    metadata["tokenizer.ggml.scores"] = np.append(metadata["tokenizer.ggml.scores"], 0.0)
    metadata["tokenizer.ggml.token_type"] = np.append(metadata["tokenizer.ggml.token_type"], 3)
    kept = load(metadata).encode("<|user|>\nhi")
    taken = load({**metadata, "general.architecture": "phi3"}).encode("<|user|>\nhi")
    assert kept != taken
    assert taken == load(metadata).encode("<|user|>hi")


def test_an_unknown_pre_tokenizer_is_refused_with_the_known_ones():
    with pytest.raises(ModelLoadError, match=r"'smollm3'.*Did you mean 'smollm'.*llama-bpe.*qwen2"):
        load(byte_level_metadata(pre="smollm3"))


def test_a_missing_pre_tokenizer_is_said(caplog):
    metadata = byte_level_metadata()
    del metadata["tokenizer.ggml.pre"]
    with caplog.at_level(logging.WARNING):
        load(metadata)
    assert "names no pre-tokenizer" in caplog.text


@pytest.mark.parametrize("name", sorted(WORD_SPLITS))
def test_every_word_split_keeps_all_text(name):
    tokenizer = load(byte_level_metadata(pre=name, add_bos_token=False))
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"model": "t5"}, "of the kind 't5'.*gpt2, llama"),
        ({"tokens": []}, "holds no tokens"),
        ({"tokens": ["a", "b", "a"], "token_type": []}, "lists 'a' twice, as 0 and 2"),
        ({"tokens": [1, 2]}, "not an array of strings"),
        ({"token_type": np.array([1, 1])}, "2 entries for 600 tokens"),
        ({"merges": ["a b c"]}, "expected two tokens"),
        ({"merges": ["ab"]}, "expected two tokens"),
        ({"merges": ["zzz yyy"]}, "unusable"),
        ({"eos_token_id": 600}, "expected the id of one of the file's 600 tokens"),
        ({"eos_token_id": -1}, "eos_token_id is -1"),
        ({"bos_token_id": "x"}, "bos_token_id is 'x'"),
    ],
)
def test_damaged_metadata_is_refused(values, match):
    with pytest.raises(ModelLoadError, match=match):
        load(byte_level_metadata(**values))


def test_a_sentencepiece_vocabulary_without_scores_is_refused():
    metadata = sentencepiece_metadata(PROCESSOR)
    del metadata["tokenizer.ggml.scores"]
    with pytest.raises(ModelLoadError, match="no scores"):
        load(metadata)


def test_a_gguf_has_no_slow_tokenizer():
    with pytest.raises(UsageError, match="needs a folder"):
        load_tokenizer(TokenizerSource(gguf=byte_level_metadata()), mode="slow")


@pytest.fixture(scope="module")
def smollm2(smollm2_path) -> tuple[Tokenizer, object]:
    with closing(GGUFFile(smollm2_path)) as file:
        ours = load(file.metadata)
    theirs = AutoTokenizer.from_pretrained(smollm2_path.parent, gguf_file=smollm2_path.name)
    return ours, theirs


def test_smollm2_equals_transformers(smollm2):
    ours, theirs = smollm2
    for text in TEXTS:
        ids = theirs.encode(text)
        assert ours.encode(text) == ids
        for skip in (True, False):
            assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(
                ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False
            )
    assert ours.vocab_size == len(theirs)
    assert (ours.bos_token_id, ours.eos_token_id) == (theirs.bos_token_id, theirs.eos_token_id)


def test_smollm2_ends_a_turn_with_its_own_token(smollm2):
    ours, _ = smollm2
    assert ours.eos_token_ids == {ours.token_to_id("<|im_end|>")}


@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_smollm2_chat_prompts_equal_transformers(smollm2, add_generation_prompt):
    ours, theirs = smollm2
    messages = [
        {"role": "user", "content": "What is the capital of France? <|im_end|> 漢"},
        {"role": "assistant", "content": "Paris."},
        {"role": "user", "content": ""},
    ]
    for chat in (messages, [{"role": "system", "content": "Be brief."}, *messages]):
        assert render_chat(
            ours, chat, add_generation_prompt=add_generation_prompt
        ) == theirs.apply_chat_template(
            chat, add_generation_prompt=add_generation_prompt, tokenize=False
        )
