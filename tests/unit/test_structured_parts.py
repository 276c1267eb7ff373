"""Answers of several parts, judged text by text through the grammar engine."""

from __future__ import annotations

import pytest

from octavo.completion import Vocabulary
from octavo.parsing import ParserRegistry, tool_definitions
from octavo.structured import StructuredOutputs
from octavo.structured.call_parts import calls_part, text_with_calls
from octavo.structured.compiler import GrammarCompiler
from octavo.structured.parts import (
    AnswerGrammar,
    AnyText,
    ExactText,
    Formed,
    InOrder,
    OneOf,
    Repeated,
    Space,
    TextUntil,
    TextValue,
)
from octavo.tokenizer.fast import FastTokenizer
from tiny_tokenizers import train_byte_level

DIGIT = Formed(StructuredOutputs(regex="[0-9]"))


@pytest.fixture(scope="module")
def compiler():
    backend = train_byte_level()
    backend.add_special_tokens(["[MARK]"])
    tokenizer = FastTokenizer(backend, special_tokens={})
    end = frozenset({tokenizer.token_to_id("<|im_end|>")})
    return GrammarCompiler(Vocabulary(tokenizer.vocab_size, tokenizer, end))


def takes(compiler, part, text):
    """Whether the text is a whole answer; None if it is the beginning of one."""
    mask = compiler.mask_for(AnswerGrammar(part))
    for token_id in compiler._vocabulary.tokenizer.encode(text):
        if not mask.allowed()[token_id]:
            return False
        mask.accept(token_id)
    return mask.may_end or None


THINK = TextUntil("</think>")
REASONED = OneOf((InOrder((Space(), ExactText("<think>"), THINK, Space(), DIGIT)), DIGIT))
CASES = [
    (ExactText("ab[MARK]c"), "ab[MARK]c", True),
    (InOrder((DIGIT, Repeated(ExactText("-"), 2))), "1--", True),
    (InOrder((DIGIT, Repeated(ExactText("-"), 2))), "1---", False),
    (InOrder((THINK, Space(), DIGIT)), "no </thin yet</think>\n\n7", True),
    (InOrder((THINK, Space(), DIGIT)), "9", None),
    (InOrder((THINK, DIGIT)), "x</think>y", False),
    (InOrder((TextUntil("[MARK]"), DIGIT)), "some text[MARK]7", True),
    (InOrder((TextUntil("[MARK]"), DIGIT)), "some text[MARK]x", False),
    (REASONED, "7", True),
    (REASONED, "\n<think>7 or 8?</think>\n\n8", True),
    (REASONED, "<think>7", None),
    (REASONED, "x", False),
    (AnyText(barred="<think>"), "text <think>", True),
    (AnyText(barred="<think>"), " <think>", False),
    (TextValue(end="\n</p>", closer="</p>", least=2, most=3), "abc\n</p>", True),
    (TextValue(end="\n</p>", closer="</p>", least=2, most=3), "a\n</p>", False),
    (TextValue(end="!", closer="!", pattern="(a/b)+"), "a/ba/b!", True),
    (TextValue(end="!", closer="!", pattern="(a/b)+"), "a/b/!", False),
]


@pytest.mark.parametrize(("part", "text", "expected"), CASES)
def test_a_part_takes_its_texts_and_no_others(compiler, part, text, expected):
    assert takes(compiler, part, text) is expected


def test_a_nested_grammar_keeps_its_rules_to_itself(compiler):
    inner = Formed(StructuredOutputs(grammar='start: "a" x\nx: "b" | "c"'))
    assert takes(compiler, InOrder((THINK, inner)), "hm</think>ac") is True
    assert takes(compiler, InOrder((THINK, inner)), "hm</think>ad") is False


HERMES = ParserRegistry().tool_call_format("hermes")
GRAMMAR = HERMES.grammar(
    tool_definitions([{"name": "add", "parameters": {"properties": {"a": {"type": "integer"}}}}])
)
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain text, 1 < 2", True),
        (f"Let me see.\n{CALL}", True),
        (f"{CALL}\n{CALL} done", True),
        ("<tool_call>\nanything", False),
        (CALL.replace("add", "sub"), False),
        (CALL.replace('"a"', '"b"'), False),
        (CALL[:-5], None),
        (f"{CALL}<tool_call>x", False),
    ],
)
def test_text_is_free_until_a_call_begins(compiler, text, expected):
    part = text_with_calls(GRAMMAR, ["<tool_call>"], is_parallel=True)
    assert takes(compiler, part, text) is expected


def test_one_call_alone_ends_the_answer(compiler):
    part = text_with_calls(GRAMMAR, ["<tool_call>"], is_parallel=False)
    assert takes(compiler, part, CALL) is True
    assert takes(compiler, part, CALL + " ") is False
    assert takes(compiler, calls_part(GRAMMAR, is_parallel=False), f"{CALL}\n{CALL}") is False
    assert takes(compiler, calls_part(GRAMMAR, is_parallel=True), f"{CALL}\n{CALL}") is True


def test_a_format_without_a_mark_leaves_text_alone():
    bare = ParserRegistry().tool_call_format("llama3_json")
    grammar = bare.grammar(tool_definitions([{"name": "add"}]))
    assert text_with_calls(grammar, ["<|python_tag|>"], is_parallel=True) is None
