"""Names and offsets of tokens in completions, held to whole texts and their bytes."""

from __future__ import annotations

import codecs
import re

import hypothesis
import hypothesis.strategies as st
import pytest

from octavo.loading.tokenizer_source import TokenizerSource
from octavo.outputs import Logprob
from octavo.server.completions.logprobs import legacy_logprobs
from octavo.server.completions.text_offsets import TextOffsets
from octavo.server.token_names import TokenNames
from octavo.tokenizer import IncrementalDetokenizer, load_tokenizer
from tiny_tokenizers import TEXTS, llama_like, save_folder, train_byte_level, train_sentencepiece


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    folder = save_folder(tmp_path_factory.mktemp("bytes"), train_byte_level())
    return load_tokenizer(TokenizerSource(directory=folder))


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pieces")
    tokenizer = llama_like(train_sentencepiece())
    save_folder(folder, tokenizer, bos_token="<s>")  # noqa: S106
    return load_tokenizer(TokenizerSource(directory=folder))


def bytes_named(name):
    """The bytes that a token's name stands for."""
    if not name.startswith("bytes:"):
        return name.encode()
    return bytes(int(digits, 16) for digits in re.findall(r"\\x([0-9a-f]{2})", name))


def character_starts(data):
    """Where the characters of ``data`` begin, each run of bytes that is none counted as one."""
    broken = []

    def note(error):
        broken.append(range(error.start, error.end))
        return "\ufffd", error.end

    codecs.register_error("octavo-test-note", note)
    data.decode("utf-8", "octavo-test-note")
    inside = {i for span in broken for i in span}
    whole = [i for i, byte in enumerate(data) if i not in inside and byte & 0xC0 != 0x80]
    return sorted([*whole, *(span.start for span in broken)])


def wanted_offsets(pieces):
    starts = character_starts(b"".join(pieces))
    begins = [sum(map(len, pieces[:i])) for i in range(len(pieces))]
    return [sum(start <= begin for start in starts) - 1 for begin in begins]


@pytest.mark.parametrize("text", [text for text in TEXTS if text])
def test_names_joined_are_the_text(byte_level, text):
    names = TokenNames(byte_level)
    assert b"".join(bytes_named(names[i]) for i in byte_level.encode(text)) == text.encode()


def test_a_token_is_named_by_its_text_its_bytes_or_its_id(byte_level, sentencepiece):
    assert TokenNames(byte_level)[byte_level.token_to_id("Ġ")] == " "
    assert TokenNames(sentencepiece)[sentencepiece.token_to_id("▁")] == " "
    assert TokenNames(sentencepiece)[sentencepiece.token_to_id("<0xE2>")] == r"bytes:\xe2"
    assert TokenNames(byte_level)[10**6] == "token_id:1000000"
    assert TokenNames(byte_level, as_ids=True)[5] == TokenNames(None)[5] == "token_id:5"


@hypothesis.given(data=st.data())
@hypothesis.settings(max_examples=150)
def test_any_tokens_begin_where_their_bytes_do(byte_level, data):
    token_ids = data.draw(st.lists(st.integers(3, byte_level.vocab_size - 1), max_size=12))
    cut = data.draw(st.integers(0, len(token_ids)))
    names = TokenNames(byte_level)
    wanted = wanted_offsets([bytes_named(names[i]) for i in token_ids])
    text = IncrementalDetokenizer(byte_level, skip_special_tokens=False).push(token_ids[:cut])
    shown = TextOffsets(byte_level, skip_special_tokens=True)
    assert shown.prompt(token_ids[:cut], text) + shown.answer(token_ids[cut:]) == wanted
    hidden = TextOffsets(byte_level, skip_special_tokens=True)
    hidden.pass_over(token_ids[:cut])
    assert hidden.answer(token_ids[cut:]) == [offset - len(text) for offset in wanted[cut:]]


@pytest.mark.parametrize("text", ["Hello world", "  two spaces", "日本 ∮ 🙂"])
def test_sentencepieces_first_space_takes_no_room(sentencepiece, text):
    token_ids = sentencepiece.encode(text)
    begin, *rest = token_ids
    assert sentencepiece.id_to_token(begin) == "<s>"
    names = TokenNames(sentencepiece)
    pieces = [bytes_named(names[i]) for i in rest]
    assert b"".join(pieces) == b" " + text.encode()
    offsets = TextOffsets(sentencepiece, skip_special_tokens=True).prompt(token_ids, text)
    assert offsets == [0, *(max(offset - 1, 0) for offset in wanted_offsets(pieces))]


def test_special_tokens_take_room_where_the_text_shows_them(byte_level):
    text = "a<|im_end|>b"
    token_ids = byte_level.encode(text)
    offsets = TextOffsets(byte_level, skip_special_tokens=True)
    assert offsets.prompt(token_ids, text) == [0, 1, 11]
    assert offsets.answer(token_ids) == [12, 13, 13]


def test_without_a_table_of_pieces_offsets_are_those_of_the_text(byte_level, monkeypatch):
    token_ids = byte_level.encode("Hello wörld, Voix ambiguë")
    wanted = TextOffsets(byte_level, skip_special_tokens=True).answer(token_ids)
    monkeypatch.setattr(byte_level, "pieces", None)
    assert TextOffsets(byte_level, skip_special_tokens=True).answer(token_ids) == wanted


def test_minus_infinity_is_a_number_and_the_likelier_of_two_namesakes_counts():
    entry = {7: Logprob(float("-inf"), 3), 8: Logprob(-0.5, 1), 9: Logprob(-2.0, 2)}
    names = {7: "same", 8: "same", 9: "other"}
    logprobs = legacy_logprobs([7], [entry], [0], names, 1)
    assert logprobs["token_logprobs"] == [-9999.0]
    assert logprobs["top_logprobs"] == [{"same": -0.5}]
