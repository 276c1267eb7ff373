"""Masks against brute force: a prefix allows exactly the tokens that lead on to some text.

The languages are finite, given as sets of strings by an evaluator of its own, so that nothing of
what is tested takes part in saying what is right.
"""

from __future__ import annotations

import contextlib
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structured_vocabulary import ALPHABET, make_vocabulary

from octavo.errors import UsageError
from octavo.structured import StructuredOutputs
from octavo.structured.compiler import GrammarCompiler
from octavo.structured.limits import MAX_GBNF_RULES
from octavo.token_mask import allowed_tokens

VOCABULARY = make_vocabulary(padding=5)
COMPILER = GrammarCompiler(VOCABULARY)
EOS = sorted(VOCABULARY.eos_token_ids)


def pieces():
    table = VOCABULARY.tokenizer.pieces
    known = range(VOCABULARY.tokenizer.vocab_size)
    special = VOCABULARY.tokenizer.special_ids
    return {token_id: table[token_id] for token_id in known if token_id not in special}


PIECES = pieces()


def expected(language, prefix):
    """Token ids that may follow ``prefix``, by trying each."""
    follows = {
        token_id
        for token_id, piece in PIECES.items()
        if piece and any(text.startswith(prefix + piece) for text in language)
    }
    return follows | (set(EOS) if prefix in language else set())


def found(mask):
    return set(np.flatnonzero(mask.allowed()).tolist())


def walk(mask, language, rng):
    """Follow one answer to its end, and look at each mask on the way."""
    prefix, may_go_on = b"", True
    while may_go_on:
        wanted = expected(language, prefix)
        assert found(mask) == wanted, prefix
        assert mask.may_end == (prefix in language)
        assert not mask.is_finished
        token_id = rng.choice(sorted(wanted))
        mask.accept(token_id)
        if token_id in EOS:
            return
        prefix += PIECES[token_id]
        may_go_on = any(text != prefix and text.startswith(prefix) for text in language)
    assert prefix in language
    assert mask.is_finished


def literal(text):
    return (f"(?:{text})", {text})


def concatenation(left, right):
    return (left[0] + right[0], {a + b for a in left[1] for b in right[1]})


def alternation(left, right):
    return (f"(?:{left[0]}|{right[0]})", left[1] | right[1])


def repetition(inner, bounds):
    low, high = sorted(bounds)
    words, all_words = {""}, set()
    for count in range(high + 1):
        if count >= low:
            all_words |= words
        words = {a + b for a in words for b in inner[1]}
    return (f"(?:{inner[0]}){{{low},{high}}}", all_words)


SMALL = st.text(ALPHABET, min_size=1, max_size=3)
REGEXES = st.recursive(
    SMALL.map(literal),
    lambda inner: st.one_of(
        st.builds(concatenation, inner, inner),
        st.builds(alternation, inner, inner),
        st.builds(repetition, inner, st.tuples(st.integers(0, 2), st.integers(0, 2))),
    ),
    max_leaves=5,
).filter(lambda pair: 0 < len(pair[1]) < 300)


@settings(max_examples=150)
@given(REGEXES, st.randoms(use_true_random=False))
def test_a_regex_allows_what_leads_to_one_of_its_texts(pair, rng):
    regex, words = pair
    language = {word.encode() for word in words}
    if language == {b""}:
        return  # the next test's
    walk(COMPILER.mask_for(StructuredOutputs(regex=regex)), language, rng)


def test_a_regex_of_the_empty_text_allows_the_end_only():
    mask = COMPILER.mask_for(StructuredOutputs(regex="(?:a){0,0}"))
    assert found(mask) == set(EOS)


@settings(max_examples=150)
@given(st.lists(SMALL, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_a_choice_allows_what_leads_to_one_of_them(choice, rng):
    language = {text.encode() for text in choice}
    walk(COMPILER.mask_for(StructuredOutputs(choice=choice)), language, rng)


@settings(max_examples=60)
@given(st.lists(SMALL, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_a_grammar_allows_what_leads_to_one_of_its_texts(words, rng):
    literals = " | ".join(f'"{word}"' for word in words)
    grammar = f'start: item ("," item)?\nitem: {literals} | "(" inner ")"\ninner: {literals}'
    items = {*words, *(f"({word})" for word in words)}
    language = {a.encode() for a in items} | {f"{a},{b}".encode() for a in items for b in items}
    walk(COMPILER.mask_for(StructuredOutputs(grammar=grammar)), language, rng)


def test_padding_and_special_ids_are_never_allowed():
    mask = COMPILER.mask_for(StructuredOutputs(regex=r"(.|\n)*"))
    allowed = found(mask)
    tokenizer = VOCABULARY.tokenizer
    assert allowed & tokenizer.special_ids == set(EOS)
    assert max(allowed) < tokenizer.vocab_size < VOCABULARY.size
    assert {token_id for token_id in PIECES if PIECES[token_id] == b""} & allowed == set()
    assert len(mask.allowed()) == VOCABULARY.size


def test_two_tokens_of_the_same_bytes_fare_alike():
    spelled = {}
    for token_id, piece in PIECES.items():
        spelled.setdefault(piece, set()).add(token_id)
    twice = [ids for piece, ids in spelled.items() if len(ids) > 1 and piece]
    assert twice
    [both, *_] = twice
    text = PIECES[min(both)].decode()
    assert found(COMPILER.mask_for(StructuredOutputs(choice=[text]))) >= both


def test_asking_does_not_advance_and_a_fork_is_free():
    mask = COMPILER.mask_for(StructuredOutputs(choice=["ab", "b"]))
    first = found(mask)
    assert found(mask) == first
    other = mask.fork()
    [token_a, token_b] = [{v: k for k, v in PIECES.items()}[piece] for piece in (b"a", b"b")]
    mask.accept(token_a)
    assert found(other) == first
    other.accept(token_b)
    assert other.is_finished
    assert not mask.is_finished
    assert found(COMPILER.mask_for(StructuredOutputs(choice=["ab", "b"]))) == first


def test_a_token_that_was_not_allowed_is_an_error():
    mask = COMPILER.mask_for(StructuredOutputs(choice=["a"]))
    wrong = next(token_id for token_id, piece in PIECES.items() if piece == b"c")
    with pytest.raises(RuntimeError, match=f"token {wrong} was sampled"):
        mask.accept(wrong)
    assert found(mask) == set()
    assert not mask.may_end
    assert mask.failure


def test_an_answer_that_goes_past_the_end_token_is_never_allowed_it():
    mask = COMPILER.mask_for(StructuredOutputs(regex="(ab)*"), ignore_eos=True)
    assert found(mask) == expected({b"ab" * i for i in range(9)}, b"") - set(EOS)
    assert found(mask.fork()) == found(mask)


class Counted:
    """A batch that notes how it is called."""

    def __init__(self, batch):
        self.batch, self.calls = batch, []

    def compute(self, masks):
        self.calls.append(len(masks))
        return self.batch.compute(masks)


def test_a_steps_masks_are_computed_together(monkeypatch):
    forms = ["ab", "ba", "c{1,3}", "[^a]"]
    masks = [COMPILER.mask_for(StructuredOutputs(regex=form)) for form in forms]
    counted = Counted(masks[0].batch)
    for mask in masks:
        monkeypatch.setattr(mask, "_masks", counted)
    places = [masks[0], None, masks[1], masks[1], masks[2], None, masks[3], masks[1]]
    table = allowed_tokens(places, VOCABULARY.size)
    assert counted.calls == [4]
    for place, row in zip(places, table, strict=True):
        if place is None:
            assert row.all()
        else:
            np.testing.assert_array_equal(row, place.allowed())
    np.testing.assert_array_equal(allowed_tokens(masks, VOCABULARY.size), table[[0, 2, 4, 6]])
    assert allowed_tokens([None, None], VOCABULARY.size) is None


def test_masks_of_other_kinds_mix_with_grammars():
    from drawing_backend import EveryOther

    class Small(EveryOther):
        def allowed(self):
            return np.arange(VOCABULARY.size) % 2 == 0

    class Free(EveryOther):
        def allowed(self):
            return None

    grammar = COMPILER.mask_for(StructuredOutputs(choice=["a"]))
    table = allowed_tokens([Small(), grammar, Free(), None], VOCABULARY.size)
    assert table.sum(axis=1).tolist()[2:] == [VOCABULARY.size] * 2
    assert table[0].tolist() == [i % 2 == 0 for i in range(VOCABULARY.size)]
    np.testing.assert_array_equal(table[1], grammar.allowed())


def test_many_rows_on_several_threads_are_each_their_own():
    rng = random.Random(5)
    words = ["".join(rng.choices(ALPHABET, k=6)) for _ in range(64)]
    masks = [COMPILER.mask_for(StructuredOutputs(choice=[word])) for word in words]
    table = allowed_tokens(masks, VOCABULARY.size)
    for row, word in zip(table, words, strict=True):
        assert set(np.flatnonzero(row).tolist()) == expected({word.encode()}, b"")


def test_a_vocabulary_without_an_end_token_or_a_tokenizer():
    compiler = GrammarCompiler(make_vocabulary(eos=False))
    mask = compiler.mask_for(StructuredOutputs(regex="a|ab"))
    assert len(mask.allowed()) == compiler._vocabulary.size
    assert {PIECES[token_id] for token_id in found(mask)} == {b"a", b"ab"}
    for vocabulary, reason in (
        (make_vocabulary(tokenizer=False), "needs a tokenizer, and this engine has none"),
        (make_vocabulary(pieces=False), "does more than join tokens"),
    ):
        with pytest.raises(UsageError, match=reason):
            GrammarCompiler(vocabulary).mask_for(StructuredOutputs(regex="a"))


def chains():
    """Schemas and grammars, as long as they may be, that are one chain of references."""
    refs = {str(i): {"$ref": f"#/$defs/{i + 1}"} for i in range(7000)}
    arrays = {str(i): {"type": "array", "items": {"$ref": f"#/$defs/{i + 1}"}} for i in range(3900)}
    for defs in (refs, arrays):
        defs[str(len(defs))] = {"type": "null"}
        yield {"json": {"$defs": defs, "$ref": "#/$defs/0"}}
    yield {"grammar": "start: r0\n" + chain("r", 15_000)}
    yield {"grammar": "start: T0\n" + chain("T", 15_000)}
    yield {"grammar": "root ::= r0\n" + chain("r", MAX_GBNF_RULES - 2).replace(":", " ::=")}


def chain(name, length):
    rules = "".join(f"{name}{i}: {name}{i + 1}\n" for i in range(length))
    return rules + f'{name}{length}: "a"\n'


@pytest.mark.parametrize(
    "outputs", [*chains()], ids=["refs", "arrays", "rules", "terminals", "gbnf"]
)
def test_no_chain_of_references_ends_the_process(outputs):
    with contextlib.suppress(UsageError):  # "schema too large" is an answer, too
        mask = COMPILER.mask_for(StructuredOutputs(**outputs))
        mask.accept(min(found(mask)))
