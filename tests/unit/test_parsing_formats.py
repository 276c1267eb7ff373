"""Published outputs of models, whole and cut everywhere, and what is malformed."""

# ruff: noqa: RUF001 - the tokens of DeepSeek are spelt with a full-width bar

from __future__ import annotations

import json

import pytest

from octavo.errors import UsageError
from octavo.parsing import (
    ContentDelta,
    ParserRegistry,
    ParsingLimits,
    ToolCallArguments,
    ToolCallBegin,
    ToolCallEnd,
    ToolCallParser,
    collect,
    merge_events,
)

REGISTRY = ParserRegistry()
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer"},
                    "scale": {"type": ["number", "null"]},
                    "hourly": {"type": "boolean"},
                    "where": {"anyOf": [{"type": "object"}, {"type": "string"}]},
                },
                "required": ["city"],
            },
        },
    }
]

# Tokens of DeepSeek, as its chat templates spell them.
CALLS, END_CALLS = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL, END_CALL, SEP = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"

# (source, format, text, content, [(name, arguments)])
PUBLISHED = [
    (
        "model card of NousResearch/Hermes-2-Pro-Llama-3-8B",
        "hermes",
        (
            '<tool_call>\n{"arguments": {"symbol": "TSLA"}, "name": "get_stock_fundamentals"}\n'
            "</tool_call>"
        ),
        "",
        [("get_stock_fundamentals", {"symbol": "TSLA"})],
    ),
    (
        "chat template of Qwen/Qwen2.5-7B-Instruct: two calls in the assistant's turn",
        "hermes",
        (
            'I look it up.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Zürich"}}\n'
            '</tool_call>\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "東京"}}\n'
            "</tool_call>"
        ),
        "I look it up.\n",
        [("get_weather", {"city": "Zürich"}), ("get_weather", {"city": "東京"})],
    ),
    (
        "model card of HuggingFaceTB/SmolLM2-1.7B-Instruct: an array in one tag",
        "hermes",
        (
            '<tool_call>[{"name": "get_random_number", "arguments": {"min": 1, "max": 300}}]'
            "</tool_call>"
        ),
        "",
        [("get_random_number", {"min": 1, "max": 300})],
    ),
    (
        "llama-models/models/llama3_1/prompt_format.md, JSON based tool calling",
        "llama3_json",
        '{"type": "function", "name": "trending_songs", "parameters": {"n": "10", "genre": "all"}}',
        "",
        [("trending_songs", {"n": "10", "genre": "all"})],
    ),
    (
        "several calls with semicolons, behind the tag of Python",
        "llama3_json",
        '<|python_tag|>{"name": "a", "parameters": {"q": ";"}}; {"name": "b", "parameters": {}}',
        "",
        [("a", {"q": ";"}), ("b", {})],
    ),
    (
        "llama-models/models/llama3_2/text_prompt_format.md, zero shot function calling",
        "pythonic",
        "[get_user_info(user_id=7890, special='black')]",
        "",
        [("get_user_info", {"user_id": 7890, "special": "black"})],
    ),
    (
        "llama-models/models/llama4/prompt_format.md, zero shot function calling",
        "pythonic",
        (
            '<|python_start|>[get_weather(city="San Francisco"), get_weather(city="Seattle")]'
            "<|python_end|>"
        ),
        "",
        [("get_weather", {"city": "San Francisco"}), ("get_weather", {"city": "Seattle"})],
    ),
    (
        "model card of mistralai/Mistral-7B-Instruct-v0.3",
        "mistral",
        (
            '[TOOL_CALLS] [{"name": "get_current_weather", "arguments": '
            '{"location": "Paris", "format": "celsius"}, "id": "VvvODy9mT"}]'
        ),
        "",
        [("get_current_weather", {"location": "Paris", "format": "celsius"})],
    ),
    (
        "mistral-common, tokenizer V13",
        "mistral_args",
        '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}[TOOL_CALLS]add[ARGS]{"a": 2, "b": 3}',
        "",
        [("get_weather", {"city": "Paris"}), ("add", {"a": 2, "b": 3})],
    ),
    (
        "mistral-common, tokenizer V11, which has ids",
        "mistral_args",
        '[TOOL_CALLS]add[CALL_ID]123456789[ARGS]{"a": 3.5, "b": 4}',
        "",
        [("add", {"a": 3.5, "b": 4})],
    ),
    (
        "chat template of deepseek-ai/DeepSeek-R1-0528 and V3-0324",
        "deepseek_v3",
        (
            f"{CALLS}{CALL}function{SEP}get_weather\n"
            f'```json\n{{"city": "Paris"}}\n```{END_CALL}\n'
            f'{CALL}function{SEP}get_weather\n```json\n{{"city": "Rome"}}\n```{END_CALL}{END_CALLS}'
        ),
        "",
        [("get_weather", {"city": "Paris"}), ("get_weather", {"city": "Rome"})],
    ),
    (
        "chat template of deepseek-ai/DeepSeek-V3.1",
        "deepseek_v31",
        (
            f'Let me see.{CALLS}{CALL}get_weather{SEP}{{"city": "Paris"}}{END_CALL}'
            f"{CALL}now{SEP}{{}}{END_CALL}{END_CALLS}"
        ),
        "Let me see.",
        [("get_weather", {"city": "Paris"}), ("now", {})],
    ),
    (
        "chat template of Qwen/Qwen3-Coder-480B-A35B-Instruct",
        "qwen3_coder",
        (
            "<tool_call>\n<function=get_weather>\n<parameter=city>\nSt. Gallen\n(old town)\n"
            "</parameter>\n<parameter=days>\n3\n</parameter>\n<parameter=scale>\nNone\n</parameter>\n"
            "<parameter=hourly>\nTrue\n</parameter>\n"
            '<parameter=where>\n{"lat": 47.4}\n</parameter>\n<parameter=other>\n7\n</parameter>\n'
            "</function>\n</tool_call>"
        ),
        "",
        [
            (
                "get_weather",
                {
                    "city": "St. Gallen\n(old town)",
                    "days": 3,
                    "scale": None,
                    "hourly": True,
                    "where": {"lat": 47.4},
                    "other": "7",
                },
            )
        ],
    ),
    (
        "ggml-org/llama.cpp#15012: Qwen3-Coder without the outer tag",
        "qwen3_coder",
        (
            "<function=search_products>\n<parameter=query>\nwaterproof shoes\n</parameter>\n"
            "<parameter=sort_by>\nprice_low_to_high\n</parameter>\n</function>"
        ),
        "",
        [
            (
                "search_products",
                {"query": "waterproof shoes", "sort_by": "price_low_to_high"},
            )
        ],
    ),
    (
        "a fenced block between text",
        "json",
        'Here:\n```json\n{"name": "f", "arguments": {"a": {"b": "}\\""}}}\n```\nDone.',
        "Here:\n\nDone.",
        [("f", {"a": {"b": '}"'}})],
    ),
]

# (why, format, text): no call, and not a character lost
NO_CALLS = [
    ("broken off in the name", "hermes", 'So:\n<tool_call>\n{"name": "get_wea'),
    ("broken off in the arguments", "hermes", '<tool_call>{"name": "f", "arguments": {"a": "x'),
    ("broken off before a brace", "hermes", '<tool_call>{"name": "f", "arguments": {}'),
    ("an opening tag alone", "hermes", "  <tool_call>"),
    ("a part of a tag", "hermes", "a <tool_cal"),
    ("no name", "hermes", '<tool_call>{"arguments": {}}</tool_call>'),
    ("a name that is no text", "hermes", '<tool_call>{"name": 5, "arguments": {}}</tool_call>'),
    ("an empty name", "hermes", '<tool_call>{"name": "", "arguments": {}}</tool_call>'),
    ("a name half a character", "hermes", '<tool_call>{"name": "\\ud800"}</tool_call>'),
    ("two names", "hermes", '<tool_call>{"name": "f", "name": "g"}</tool_call>'),
    ("arguments twice", "hermes", '<tool_call>{"name":"f","arguments":{},"parameters":{}}'),
    ("arguments in an array", "hermes", '<tool_call>{"name": "f", "arguments": [1]}</tool_call>'),
    ("arguments a number", "hermes", '<tool_call>{"name": "f", "arguments": 1}</tool_call>'),
    ("arguments a text", "hermes", '<tool_call>{"name": "f", "arguments": "x"}</tool_call>'),
    ("a comma too many", "hermes", '<tool_call>{"name": "f", "arguments": {"a": 1,}}</tool_call>'),
    ("Python's quotes", "hermes", "<tool_call>{'name': 'f', 'arguments': {}}</tool_call>"),
    ("not a number", "hermes", '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>'),
    ("a line break in a string", "hermes", '<tool_call>{"name": "f", "arguments": {"a": "\n"}}'),
    ("an empty array", "hermes", "<tool_call>[]</tool_call>"),
    ("JSON that is an answer", "llama3_json", '{"answer": {"name": "f", "parameters": {}}}'),
    ("a name without parameters", "llama3_json", '{"name": "Alice"}'),
    ("other keys", "json", '{"name": "Alice", "arguments": {}, "age": 7}'),
    ("within a line", "json", 'Write {"name": "f", "arguments": {}} to call f.'),
    ("code behind the tag of Python", "llama3_json", "<|python_tag|>import math\nprint({})"),
    ("a link", "pythonic", "[the docs](https://example.org) say so"),
    ("a list", "pythonic", "[1, 2, 3]"),
    ("positional", "pythonic", "[f(1)]"),
    ("a value that is an expression", "pythonic", "[f(a=1+1)]"),
    ("a value that is a call", "pythonic", "[f(a=__import__('os').system('true'))]"),
    ("a value that is a name", "pythonic", "[f(a=b)]"),
    ("an argument twice", "pythonic", "[f(a=1, a=2)]"),
    ("infinite", "pythonic", "[f(a=1e999)]"),
    ("a set", "pythonic", "[f(a={1, 2})]"),
    ("more digits than Python converts", "pythonic", f"[f(a={'9' * 5000})]"),
    ("broken off", "pythonic", "[f(a='x'"),
    ("no arguments", "mistral", "[TOOL_CALLS]f"),
    ("an array of arguments", "mistral", "[TOOL_CALLS]f[ARGS][1]"),
    ("no separator", "deepseek_v3", f'{CALLS}{CALL}f{{"a": 1}}{END_CALL}{END_CALLS}'),
    ("no arguments", "deepseek_v31", f"{CALLS}{CALL}f{SEP}{END_CALL}{END_CALLS}"),
    ("a value broken off", "qwen3_coder", "<tool_call><function=f><parameter=a>\n1\n</param"),
    ("a parameter twice", "qwen3_coder", "<function=f><parameter=a>1</parameter><parameter=a>2"),
    ("text between parameters", "qwen3_coder", "<tool_call><function=f>hm</function></tool_call>"),
]


def parser_of(name, **options):
    numbers = iter(range(10**6))
    options.setdefault("new_id", lambda: f"id{next(numbers)}")
    return ToolCallParser(REGISTRY.tool_call_format(name), TOOLS, **options)


def events_of(parser, pieces):
    return merge_events(
        [event for piece in pieces for event in parser.feed(piece)] + parser.finish()
    )


def cuts(text):
    """Whole, in two at every position, and character by character."""
    yield [text]
    yield from ([text[:i], text[i:]] for i in range(1, len(text)))
    yield list(text)


@pytest.mark.parametrize(
    ("name", "text", "content", "calls"),
    [pytest.param(*case[1:], id=case[0]) for case in PUBLISHED],
)
@pytest.mark.parametrize("stream_arguments", [False, True])
def test_published_calls(name, text, content, calls, stream_arguments):
    whole = None
    for pieces in cuts(text):
        events = events_of(parser_of(name, stream_arguments=stream_arguments), pieces)
        whole = whole or events
        assert events == whole
    answer = collect(whole)
    assert answer.content == content
    assert [(call.name, json.loads(call.arguments)) for call in answer.tool_calls] == calls
    assert all(call.is_complete for call in answer.tool_calls)
    assert [call.is_known for call in answer.tool_calls] == [n == "get_weather" for n, _ in calls]


@pytest.mark.parametrize(
    ("name", "text"), [pytest.param(*case[1:], id=" - ".join(case[:2])) for case in NO_CALLS]
)
def test_what_is_no_call_is_content_to_the_last_character(name, text):
    for pieces in [[text], list(text)] if len(text) > 500 else cuts(text):
        assert events_of(parser_of(name), pieces) == [ContentDelta(text)]


def test_content_around_and_between_calls_is_kept():
    call = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    events = events_of(parser_of("hermes"), [f"A < b\n{call} and\n\n{call}\n\n{call}\n\nend. \n"])
    assert [event for event in events if isinstance(event, ContentDelta)] == [
        ContentDelta("A < b\n"),
        ContentDelta(" and\n\n"),
        ContentDelta("\n\nend. \n"),
    ]
    assert [event.index for event in events if isinstance(event, ToolCallBegin)] == [0, 1, 2]


def test_white_space_alone_is_content_only_without_a_call():
    call = '\n<tool_call>{"name": "f"}</tool_call>\n'
    assert events_of(parser_of("hermes"), [" \n"]) == [ContentDelta(" \n")]
    assert collect(events_of(parser_of("hermes"), [call])).content == ""


def test_a_broken_call_does_not_hide_the_next():
    text = '<tool_call>{"name": "f", <tool_call>{"name": "g"}</tool_call>'
    answer = collect(events_of(parser_of("hermes"), list(text)))
    assert answer.content == '<tool_call>{"name": "f", '
    assert [call.name for call in answer.tool_calls] == ["g"]


def test_a_call_that_follows_is_lost_to_no_broken_one():
    text = '[TOOL_CALLS][{"name": "f", "arguments": {}}, {"name": "g", "argu'
    answer = collect(events_of(parser_of("mistral"), [text]))
    assert [call.name for call in answer.tool_calls] == ["f"]
    assert answer.content == ', {"name": "g", "argu'


def test_the_closing_tag_may_be_missing_at_the_end():
    answer = collect(events_of(parser_of("hermes"), ['<tool_call>\n{"name": "f"}\n']))
    assert ([call.name for call in answer.tool_calls], answer.content) == (["f"], "")


@pytest.mark.parametrize("arguments", ["null", '"{\\"a\\": [1]}"', '" {} "'])
def test_arguments_that_are_no_object_but_mean_one(arguments):
    text = f'<tool_call>{{"name": "f", "arguments": {arguments}}}</tool_call>'
    (call,) = collect(events_of(parser_of("hermes"), list(text))).tool_calls
    decoded = json.loads(arguments)
    assert json.loads(call.arguments) == (json.loads(decoded) if decoded else {})


def test_ids_are_the_models_own_or_new():
    own = '[TOOL_CALLS] [{"name": "f", "arguments": {}, "id": "VvvODy9mT"}]'
    no_id = "[TOOL_CALLS]f{}"
    (call,) = collect(events_of(parser_of("mistral"), [own])).tool_calls
    assert call.id == "VvvODy9mT"
    (call,) = collect(events_of(parser_of("mistral", new_id=None), [no_id])).tool_calls
    assert (len(call.id), call.id.isalnum()) == (9, True)
    (call,) = collect(
        events_of(parser_of("json", new_id=None), ['{"name":"f","arguments":{}}'])
    ).tool_calls
    assert call.id.startswith("call_")


def test_partial_tags_are_held_back_and_text_is_not():
    parser = parser_of("hermes")
    assert parser.feed("Hello <tool") == [ContentDelta("Hello ")]
    assert merge_events(parser.feed("box> a")) == [ContentDelta("<toolbox> a")]
    assert parser.feed(" b") == [ContentDelta(" b")]


def test_arguments_are_streamed_when_asked():
    parser = parser_of("hermes", stream_arguments=True)
    assert parser.feed('<tool_call>{"name": "get_weather", "arguments": ') == []
    assert merge_events(parser.feed('{"city": "Par')) == [
        ToolCallBegin(0, "id0", "get_weather", is_known=True),
        ToolCallArguments(0, '{"city": "Par'),
    ]
    assert merge_events(parser.feed("is")) == [ToolCallArguments(0, "is")]
    assert merge_events(parser.feed('"}}')) == [ToolCallArguments(0, '"}'), ToolCallEnd(0)]


def test_a_streamed_call_that_breaks_off_says_so():
    text = '<tool_call>{"name": "f", "arguments": {"a": 1, oops}} and on'
    for pieces in cuts(text):
        events = events_of(parser_of("hermes", stream_arguments=True), pieces)
        assert events == [
            ToolCallBegin(0, "id0", "f", is_known=False),
            ToolCallArguments(0, '{"a": 1, '),
            ToolCallEnd(0, is_complete=False),
            ContentDelta("oops}} and on"),
        ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": [[[1]]]}}</tool_call>'),
        ("pythonic", "[f(a=[[[[1]]]])]"),
        ("qwen3_coder", "<function=f><parameter=a>aaaaaaaaaaaaaaaaaaaaaaaa</parameter></function>"),
    ],
)
def test_what_exceeds_a_limit_is_content(name, text):
    assert collect(events_of(parser_of(name), [text])).tool_calls
    is_deep = "[[[" in text
    limits = ParsingLimits(max_depth=3) if is_deep else ParsingLimits(max_call_chars=40)
    for pieces in cuts(text):
        answer = collect(events_of(parser_of(name, limits=limits), pieces))
        assert (answer.tool_calls, answer.content) == ((), text)


@pytest.mark.parametrize(
    ("name", "beginning"),
    [
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": "'),
        ("qwen3_coder", "<function=f><parameter=a>"),
        ("pythonic", "[f(a='"),
    ],
)
def test_no_more_than_the_limit_is_held_back(name, beginning):
    parser = parser_of(name, limits=ParsingLimits(max_call_chars=100))
    fed = beginning
    released = collect(parser.feed(beginning)).content
    for _ in range(300):
        released += collect(parser.feed("x")).content
        fed += "x"
        assert len(fed) - len(released) <= 100
    assert fed.startswith(released)


def test_pieces_of_two_calls_are_not_joined():
    events = [ToolCallArguments(0, "a"), ToolCallArguments(0, "b"), ToolCallArguments(1, "c")]
    assert merge_events(events) == [ToolCallArguments(0, "ab"), ToolCallArguments(1, "c")]


def test_more_calls_than_the_limit_are_content():
    text = '<tool_call>{"name": "f"}</tool_call>' * 5
    answer = collect(events_of(parser_of("hermes", limits=ParsingLimits(max_calls=3)), [text]))
    assert len(answer.tool_calls) == 3
    assert answer.content == text[: len(text) // 5 * 2]


def test_deep_nesting_costs_no_recursion():
    text = '<tool_call>{"name": "f", "arguments": {"a": ' + "[" * 100_000
    assert events_of(parser_of("hermes"), [text]) == [ContentDelta(text)]
    text = "[f(a=" + "(" * 100_000
    assert events_of(parser_of("pythonic"), [text]) == [ContentDelta(text)]


def test_a_finished_parser_refuses_more():
    parser = parser_of("json")
    parser.finish()
    with pytest.raises(UsageError, match="finished"):
        parser.feed("x")


@pytest.mark.parametrize("bad", [{"max_depth": 0}, {"max_calls": -1}, {"max_call_chars": 0}])
def test_limits_are_positive(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        ParsingLimits(**bad)


@pytest.mark.parametrize("tool", [{}, {"function": {"name": ""}}, {"name": "f", "parameters": 5}])
def test_bad_tools_are_refused_by_place(tool):
    with pytest.raises(UsageError, match=r"tools\[0\]"):
        ToolCallParser(REGISTRY.tool_call_format("json"), [tool])
