"""Reasoning is told from the answer, wherever the tags stand or do not, however the text is cut."""

# ruff: noqa: RUF001 - the tokens of DeepSeek are spelt with a full-width bar

from __future__ import annotations

import pytest

from octavo.errors import UsageError
from octavo.parsing import (
    AnswerParser,
    ContentDelta,
    ParserRegistry,
    ReasoningDelta,
    ReasoningFormat,
    ReasoningParser,
    ToolCallParser,
    collect,
    merge_events,
)

REGISTRY = ParserRegistry()

# The ends of prompts, as the chat templates of these models write them.
QWEN3 = "<|im_start|>assistant\n"
QWEN3_THINKING = "<|im_start|>assistant\n<think>\n"  # Qwen3-…-Thinking-2507
QWEN3_NO_THINKING = "<|im_start|>assistant\n<think>\n\n</think>\n\n"  # enable_thinking=False
DEEPSEEK_R1 = "<｜Assistant｜><think>\n"
DEEPSEEK_V31_CHAT = "<｜Assistant｜></think>"

# (source or case, format, prompt, answer, reasoning, content)
ANSWERS = [
    ("Qwen3's own tags", "think", QWEN3, "<think>\nHm, 2.\n</think>\n\nTwo.", "Hm, 2.", "Two."),
    (
        "Qwen3-Thinking: opened by the prompt",
        "think",
        QWEN3_THINKING,
        "Hm.\n</think>\n\nA",
        "Hm.",
        "A",
    ),
    ("Qwen3 without thinking", "think", QWEN3_NO_THINKING, "Two.\n", "", "Two.\n"),
    ("DeepSeek-R1: opened by the prompt", "deepseek_r1", DEEPSEEK_R1, "Hm.</think>A", "Hm.", "A"),
    ("DeepSeek-R1: opened twice", "deepseek_r1", DEEPSEEK_R1, "<think>\nHm.</think>A", "Hm.", "A"),
    ("DeepSeek-R1: prompt unknown", "deepseek_r1", None, "Hm.\n</think>\n\nA", "Hm.", "A"),
    ("DeepSeek-V3.1: closed by the prompt", "deepseek_r1", DEEPSEEK_V31_CHAT, "Two.", "", "Two."),
    ("Magistral", "mistral_think", "[/INST]", "[THINK]Hm.[/THINK]Two.", "Hm.", "Two."),
    ("no tags", "think", None, "  Two.", "", "  Two."),
    ("nothing thought", "think", QWEN3, "<think>\n\n</think>\n\nTwo.", "", "Two."),
    ("ends inside", "think", QWEN3, "<think>\nHm, <b>\n", "Hm, <b>", ""),
    ("ends inside, opened by the prompt", "think", QWEN3_THINKING, "Hm, </thin", "Hm, </thin", ""),
    ("ends with the tag", "think", QWEN3_THINKING, "Hm.</think>", "Hm.", ""),
    ("a closing tag alone", "think", QWEN3, "Two.</think>", "", "Two.</think>"),
    (
        "a tag in the answer",
        "think",
        QWEN3,
        "Write <think>x</think>.",
        "",
        "Write <think>x</think>.",
    ),
    ("a part of a tag", "think", QWEN3, "<thin", "", "<thin"),
    (
        "a second block",
        "think",
        QWEN3,
        "<think>a</think>b<think>c</think>",
        "a",
        "b<think>c</think>",
    ),
    ("space within", "think", QWEN3, "<think>a \n b </think> c ", "a \n b", "c "),
    ("space alone", "think", QWEN3, " \n", "", " \n"),
    ("nothing", "think", QWEN3_THINKING, "", "", ""),
]


def run(parser, pieces):
    return merge_events(
        [event for piece in pieces for event in parser.feed(piece)] + parser.finish()
    )


@pytest.mark.parametrize(
    ("name", "prompt", "text", "reasoning", "content"),
    [pytest.param(*case[1:], id=case[0]) for case in ANSWERS],
)
def test_reasoning(name, prompt, text, reasoning, content):
    expected = [event for event in (ReasoningDelta(reasoning), ContentDelta(content)) if event.text]
    for pieces in (
        [text],
        list(text),
        *([text[:i], text[i:]] for i in range(1, len(text))),
    ):
        parser = ReasoningParser(REGISTRY.reasoning_format(name), prompt)
        assert run(parser, pieces) == expected


def test_a_parser_tells_whether_it_is_inside_the_reasoning():
    parser = ReasoningParser(REGISTRY.reasoning_format("think"))
    states = []
    for piece in ("<think", ">", "hm", "</think", ">", "yes"):
        parser.feed(piece)
        states.append(parser.is_reasoning)
    assert states == [False, True, True, True, False, False]

    parser = ReasoningParser(REGISTRY.reasoning_format("think"), QWEN3_THINKING)
    assert parser.is_reasoning
    parser.finish()
    assert parser.is_reasoning


def test_calls_follow_the_reasoning_and_are_none_within():
    call = '<tool_call>{"name": "f"}</tool_call>'
    text = f"<think>\nPerhaps {call}?\n</think>\n\n{call}\n"
    parser = AnswerParser(
        ReasoningParser(REGISTRY.reasoning_format("think")),
        ToolCallParser(REGISTRY.tool_call_format("hermes")),
    )
    answer = parser.parse(text)
    assert answer.reasoning == f"Perhaps {call}?"
    assert answer.content == ""
    assert [call.name for call in answer.tool_calls] == ["f"]


def test_without_parsers_all_is_content():
    assert collect(run(AnswerParser(), ["<think>", "", "x"])).content == "<think>x"


def test_a_finished_parser_refuses_more():
    parser = ReasoningParser(REGISTRY.reasoning_format("think"))
    parser.finish()
    with pytest.raises(UsageError, match="finished"):
        parser.finish()


def test_a_format_has_two_tags():
    with pytest.raises(ValueError, match="two tags"):
        ReasoningFormat("bad", "<x>", "")
