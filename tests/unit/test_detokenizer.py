"""Text from a stream of tokens equals the text of all of them, and never shows half a character."""

# ruff: noqa: S106 - tokens of a vocabulary are no passwords

from __future__ import annotations

import itertools
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from octavo.loading.tokenizer_source import TokenizerSource
from octavo.tokenizer import IncrementalDetokenizer, Tokenizer, load_tokenizer
from octavo.tokenizer.fast import FastTokenizer
from octavo.tokenizer.pieces import byte_level_alphabet
from tiny_tokenizers import (
    TEXTS,
    llama_like,
    sentencepiece_metadata,
    train_byte_level,
    train_sentencepiece,
    train_unigram,
)

PROCESSOR = train_sentencepiece()
BACKENDS = {
    "byte-level": train_byte_level(),
    "sentencepiece": llama_like(PROCESSOR),
    "unigram": train_unigram(),
}
TOKENIZERS: dict[str, Tokenizer] = {
    kind: FastTokenizer(backend, special_tokens={}) for kind, backend in BACKENDS.items()
}
TOKENIZERS["no-space-prefix"] = load_tokenizer(
    TokenizerSource(gguf=sentencepiece_metadata(PROCESSOR, add_space_prefix=False))
)
KINDS = sorted(TOKENIZERS)

texts = st.one_of(
    st.sampled_from(TEXTS),
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20),
    st.text(alphabet="a é\u0301漢🙂👩\u200d\u0000▁", max_size=20),
)
token_ids = st.lists(st.integers(0, 640), max_size=40)  # past the vocabularies' ends on purpose


def stream(tokenizer, ids, chunk_sizes=None, **options) -> list[str]:
    """The text of each push, and the flush at the end."""
    detokenizer = IncrementalDetokenizer(tokenizer, **options)
    pushed, position = [], 0
    for size in itertools.repeat(1) if chunk_sizes is None else chunk_sizes:
        if position >= len(ids):
            break
        pushed.append(detokenizer.push(ids[position : position + size]))
        position += size
    return [*pushed, detokenizer.push(ids[position:]), detokenizer.flush()]


@pytest.mark.parametrize("kind", KINDS)
@given(ids=token_ids, skip=st.booleans(), sizes=st.lists(st.integers(1, 4), max_size=40))
def test_pushes_add_up_to_the_decoded_text(kind, ids, skip, sizes):
    tokenizer = TOKENIZERS[kind]
    pushed = stream(tokenizer, ids, sizes, skip_special_tokens=skip)
    assert "".join(pushed) == tokenizer.decode(ids, skip_special_tokens=skip)


@pytest.mark.parametrize("kind", KINDS)
@given(text=texts)
def test_real_text_streams_whole_characters(kind, text):
    tokenizer = TOKENIZERS[kind]
    ids = tokenizer.encode(text, add_special_tokens=False)
    pushed = stream(tokenizer, ids)
    expected = tokenizer.decode(ids)
    assert "".join(pushed) == expected
    if "\ufffd" not in expected:
        assert not any("\ufffd" in part for part in pushed)


@pytest.mark.parametrize("kind", KINDS)
@given(prompt=texts, answer=texts)
def test_after_a_prompt_pushes_are_what_the_answer_adds(kind, prompt, answer):
    tokenizer = TOKENIZERS[kind]
    before = tokenizer.encode(prompt)
    after = tokenizer.encode(answer, add_special_tokens=False)
    pushed = stream(tokenizer, after, prompt_token_ids=before)
    assert tokenizer.decode(before) + "".join(pushed) == tokenizer.decode([*before, *after])


@given(ids=token_ids)
def test_byte_level_text_is_what_the_library_decodes(ids):
    expected = BACKENDS["byte-level"].decode(ids, skip_special_tokens=False)
    assert TOKENIZERS["byte-level"].decode(ids, skip_special_tokens=False) == expected


@given(ids=token_ids)
def test_unigram_text_is_what_the_library_decodes(ids):
    expected = BACKENDS["unigram"].decode(ids, skip_special_tokens=True)
    assert TOKENIZERS["unigram"].decode(ids) == expected


@given(ids=st.lists(st.integers(3, PROCESSOR.get_piece_size() - 1), max_size=40))
def test_sentencepiece_text_is_what_its_pieces_spell(ids):
    """The library loses a whole run of bytes for one bad byte; here only that byte is lost."""
    spelled = b"".join(
        bytes([int(piece[3:5], 16)])
        if PROCESSOR.is_byte(token_id)
        else piece.replace("▁", " ").encode()
        for token_id in ids
        for piece in [PROCESSOR.id_to_piece(token_id)]
    )
    expected = spelled.decode("utf-8", "replace")
    assert TOKENIZERS["no-space-prefix"].decode(ids) == expected
    assert TOKENIZERS["sentencepiece"].decode(ids) == expected.removeprefix(" ")
    if "\ufffd" not in expected:
        assert BACKENDS["sentencepiece"].decode(ids) == expected.removeprefix(" ")


def byte_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """`text` in a byte-level vocabulary, a token to a byte."""
    spelling = {byte: character for character, byte in byte_level_alphabet().items()}
    ids = [tokenizer.token_to_id(spelling[byte]) for byte in text.encode()]
    assert None not in ids
    return ids


def test_a_character_of_many_tokens_comes_with_the_last_of_them():
    tokenizer = TOKENIZERS["byte-level"]
    detokenizer = IncrementalDetokenizer(tokenizer)
    pushed = [detokenizer.push([token_id]) for token_id in byte_ids(tokenizer, "é🙂")]
    assert pushed == ["", "é", "", "", "", "🙂"]
    assert detokenizer.flush() == ""


def test_an_unfinished_character_is_flushed_as_a_replacement():
    tokenizer = TOKENIZERS["byte-level"]
    detokenizer = IncrementalDetokenizer(tokenizer)
    assert detokenizer.push(byte_ids(tokenizer, "🙂")[:3]) == ""
    assert detokenizer.flush() == "\ufffd"


def test_a_character_that_the_prompt_began_comes_whole():
    tokenizer = TOKENIZERS["byte-level"]
    ids = byte_ids(tokenizer, "a🙂")
    detokenizer = IncrementalDetokenizer(tokenizer, prompt_token_ids=ids[:3])
    assert detokenizer.push(ids[3:]) == "🙂"


def test_the_first_space_of_an_answer_survives_and_that_of_a_text_does_not():
    tokenizer = TOKENIZERS["sentencepiece"]
    prompt, answer = tokenizer.encode("Hello"), [tokenizer.token_to_id("▁"), *PROCESSOR.encode("x")]
    assert "".join(stream(tokenizer, answer)) == " x"
    assert "".join(stream(tokenizer, answer, prompt_token_ids=prompt)) == "  x"
    only_bos = tokenizer.encode("")
    assert "".join(stream(tokenizer, answer, prompt_token_ids=only_bos)) == " x"


def test_added_tokens_outside_the_byte_alphabet_keep_their_spelling():
    backend = train_byte_level()
    backend.add_tokens([AddedToken("<|thé 文|>", normalized=False)])
    tokenizer = FastTokenizer(backend, special_tokens={})
    assert tokenizer.decode(tokenizer.encode("x<|thé 文|>y")) == "x<|thé 文|>y"


def test_the_byte_alphabet_is_the_library_s():
    assert sorted(byte_level_alphabet()) == sorted(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(byte_level_alphabet().values()) == list(range(256))


def word_pieces() -> Tokenizer:
    """A decoder that looks at neighbours, so there is no table of pieces."""
    words = ["[UNK]", "[SEP]", "play", "##ing", "##ed", "the", "##r", "game"]
    backend = Backend(
        models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    backend.decoder = decoders.WordPiece(cleanup=False)
    backend.add_special_tokens(["[SEP]"])
    return FastTokenizer(backend, special_tokens={})


@given(
    ids=st.lists(st.integers(0, 9), max_size=40),
    skip=st.booleans(),
    prompt=st.lists(st.integers(0, 9), max_size=12),
)
def test_decoders_that_look_at_neighbours_stream_too(ids, skip, prompt):
    tokenizer = word_pieces()
    assert tokenizer.pieces is None
    options = {"skip_special_tokens": skip}
    whole = tokenizer.decode([*prompt, *ids], **options)
    pushed = stream(tokenizer, ids, prompt_token_ids=prompt, **options)
    assert tokenizer.decode(prompt, **options) + "".join(pushed) == whole


@settings(max_examples=20)
@given(ids=st.lists(st.integers(0, 3), max_size=12))
def test_spaces_between_special_tokens_stream_as_they_decode(ids):
    backend = Backend(models.WordLevel({"<a>": 0, "<b>": 1, "x": 2, "y": 3}, unk_token="x"))
    backend.add_special_tokens(["<a>", "<b>"])
    tokenizer = FastTokenizer(backend, special_tokens={})
    options = {"skip_special_tokens": False, "spaces_between_special_tokens": False}
    assert "".join(stream(tokenizer, ids, **options)) == tokenizer.decode(ids, **options)


@pytest.mark.parametrize("tokenizer", [TOKENIZERS["byte-level"], word_pieces()])
def test_the_work_of_a_push_does_not_grow(tokenizer):
    """Counted in Python calls, not in time."""
    detokenizer = IncrementalDetokenizer(tokenizer)
    ids = [5, 3, 2, 7] * 500
    detokenizer.push(ids[:100])
    early = count_calls(lambda: detokenizer.push(ids[:4]))
    detokenizer.push(ids)
    assert count_calls(lambda: detokenizer.push(ids[:4])) == early


def count_calls(function) -> int:
    calls = 0

    def count(_frame, event, _argument) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("make", [train_byte_level, word_pieces])
def test_special_tokens_are_left_out_but_for_the_kept_ones(make):
    made = make()
    tokenizer = made if isinstance(made, FastTokenizer) else FastTokenizer(made, special_tokens={})
    kept, *left_out = sorted(tokenizer.special_ids)
    word = min(set(range(tokenizer.vocab_size)) - tokenizer.special_ids)
    ids = [kept, word, *left_out, kept]
    pushed = stream(tokenizer, ids, kept_special_tokens=[kept])
    without = [token_id for token_id in ids if token_id not in left_out]
    assert "".join(pushed) == tokenizer.decode(without, skip_special_tokens=False)
    assert "".join(stream(tokenizer, ids)) == tokenizer.decode([word])
