"""However an answer is cut, parsing gives the same; nothing is lost; the work grows with the text.

The oracles are json.loads, ast.literal_eval and the documents that the answers were made from.
"""

# ruff: noqa: RUF001 - the tokens of DeepSeek are spelt with a full-width bar

from __future__ import annotations

import ast
import json
import math
import warnings
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.parsing import (
    AnswerParser,
    ContentDelta,
    Cursor,
    MalformedCall,
    ParserRegistry,
    ParsingLimits,
    ReasoningParser,
    ToolCallArguments,
    ToolCallBegin,
    ToolCallEnd,
    ToolCallParser,
    collect,
    merge_events,
    read_value,
)
from octavo.parsing.json_reader import is_json_object, json_text
from octavo.parsing.python_reader import read_literal

REGISTRY = ParserRegistry()
FORMATS = [spec.name for spec in REGISTRY.specs("tool_calls")]
TOOLS = [{"name": "f", "parameters": {"properties": {"a": {"type": "integer"}}}}]

# What answers are made of: tags, whole ones and their parts, and all that stands between them.
FRAGMENTS = [
    *(
        "<tool_call>",
        "</tool_call>",
        "<function=f>",
        "</function>",
        "<parameter=a>",
        "</parameter>",
    ),
    *(
        "[TOOL_CALLS]",
        "[CALL_ID]",
        "[ARGS]",
        "<|python_tag|>",
        "<|python_start|>",
        "<|python_end|>",
    ),
    *("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"),
    *("<｜tool▁calls▁end｜>", "```json", "```", "<think>", "</think>", "function", "f", "f(", ")"),
    *('{"name": "f", "arguments": {"a": 1}}', '{"name": "g", "parameters": {}}', "[f(a=1)]"),
    *('{"name": "f", "arguments": ', '{"a": [1, {"b": null}]}', '"\\u00e9\\n\\""', "'x'", "a="),
    *(
        "{",
        "}",
        "[",
        "]",
        '"',
        ",",
        ":",
        ";",
        "\\",
        "\n",
        " ",
        "1",
        "-0.5e3",
        "true",
        "None",
        "é🙂",
    ),
]
answers = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=14).map("".join)


@st.composite
def cut_answers(draw):
    text = draw(answers)
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    bounds = [0, *places, len(text)]
    return text, [text[a:b] for a, b in pairwise(bounds)]


def tool_parser(name, **options):
    numbers = iter(range(10**6))
    new_id = lambda: f"id{next(numbers)}"  # noqa: E731
    return ToolCallParser(REGISTRY.tool_call_format(name), TOOLS, new_id=new_id, **options)


def run(parser, pieces):
    return merge_events(
        [event for piece in pieces for event in parser.feed(piece)] + parser.finish()
    )


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=80, deadline=None)
@given(
    cut=cut_answers(),
    stream_arguments=st.booleans(),
    max_call_chars=st.sampled_from([5, 30, 1000]),
    max_depth=st.sampled_from([1, 2, 9]),
    prompt=st.sampled_from([None, "<think>\n", "x"]),
)
def test_cutting_an_answer_changes_nothing(
    name, cut, stream_arguments, max_call_chars, max_depth, prompt
):
    text, pieces = cut
    limits = ParsingLimits(max_call_chars=max_call_chars, max_depth=max_depth, max_calls=3)

    def parser():
        return AnswerParser(
            ReasoningParser(REGISTRY.reasoning_format("think"), prompt),
            tool_parser(name, limits=limits, stream_arguments=stream_arguments),
        )

    whole = run(parser(), [text])
    assert run(parser(), pieces) == whole
    assert run(parser(), list(text)) == whole


def is_subsequence(part, text):
    characters = iter(text)
    return all(character in characters for character in part)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=80, deadline=None)
@given(text=answers)
def test_an_answer_is_content_and_whole_calls_and_nothing_else(name, text):
    events = run(tool_parser(name), [text])
    answer = collect(events)
    assert is_subsequence(answer.content, text)
    if not answer.tool_calls:
        assert answer.content == text
    begun = [event for event in events if isinstance(event, ToolCallBegin)]
    assert [event.index for event in begun] == list(range(len(begun)))
    for position, begin in enumerate(events):
        if isinstance(begin, ToolCallBegin):
            arguments, end = events[position + 1 : position + 3]
            assert isinstance(arguments, ToolCallArguments)
            assert end == ToolCallEnd(begin.index)
            assert isinstance(json.loads(arguments.text), dict)
            assert begin.name in text
            assert begin.is_known == (begin.name == "f")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)
json_objects = st.dictionaries(st.text(max_size=8), json_values, max_size=4)
names = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,12}", fullmatch=True)
plain_texts = st.text(st.characters(codec="utf-8", exclude_characters="<{[`"), min_size=1)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(plain_texts.filter(str.strip), names, json_objects), max_size=4),
    st.booleans(),
    st.sampled_from([None, 1, 4]),
)
def test_calls_come_out_as_they_were_written(document, ensure_ascii, indent):
    tags = ("<tool_call>", "</tool_call>")
    dump = {"ensure_ascii": ensure_ascii, "indent": indent}
    text = "".join(
        before + json.dumps({"name": name, "arguments": arguments}, **dump).join(tags)
        for before, name, arguments in document
    )
    answer = collect(run(tool_parser("hermes"), list(text)))
    assert answer.content == "".join(before for before, _, _ in document)
    found = [(call.name, json.loads(call.arguments)) for call in answer.tool_calls]
    assert found == [(name, arguments) for _, name, arguments in document]


python_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(names, python_values, max_size=4))
def test_pythonic_arguments_are_what_python_reads(arguments):
    text = f"[f({', '.join(f'{key}={value!r}' for key, value in arguments.items())})]"
    (call,) = collect(run(tool_parser("pythonic"), list(text))).tool_calls
    assert json.loads(call.arguments) == json.loads(json.dumps(arguments))


def read_with(reader):
    """What a reader gives of a whole text, and the text must end with it."""

    def read(text):
        cursor = Cursor()
        cursor.feed(text)
        cursor.end()
        try:
            value = run_reader(reader(cursor))
            return value if run_reader(cursor.peek()) == "" else MalformedCall
        except MalformedCall:
            return MalformedCall

    return read


def run_reader(reader):
    try:
        next(reader)
    except StopIteration as end:
        return end.value
    raise AssertionError("waits behind the end")


LITERALS = [
    *(
        "1",
        "-1",
        "+1",
        "--1",
        "007",
        "00",
        "1_000",
        "1__0",
        "1.",
        ".5",
        "1.5e-3",
        "1e5",
        "e5",
        "1_e5",
    ),
    *(
        "'a'",
        '"a"',
        r"'\n\t\\\'\"'",
        r"'\x41\u00e9\U0001F600'",
        r"'\101\0\08'",
        r"'\q'",
        r"'\N{BULLET}'",
    ),
    *(
        r"'\x4'",
        r"'\N{NO SUCH}'",
        r"'\U00110000'",
        "'a\nb'",
        "'a\\\nb'",
        "'",
        "'a",
        "()",
        "(1)",
        "(1,)",
    ),
    *("[1, 2,]", "[,]", "[1 2]", "(1, 2", "{'a': 1}", "{'a': {'b': ()}}", "{}", "{'a' 1}", "[]]"),
    *(
        "True",
        "None",
        "abc",
        "1+1",
        "a.b",
        "f(1)",
        "f'a'",
        "[*a]",
        "1 if 1 else 2",
        "lambda: 1",
        "",
    ),
    *(" 1", "-", ".", "1.2.3", "[(1)]", "((((1))))", "-.5", "0.0", "-0", "''", "1e-400"),
]


@pytest.mark.parametrize("literal", LITERALS)
def test_literals_are_read_as_python_reads_them(literal):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = ast.literal_eval(literal) if literal == literal.strip() else MalformedCall
        except (ValueError, SyntaxError):
            expected = MalformedCall
    actual = read_with(lambda cursor: read_literal(cursor, 9))(literal)
    assert repr(actual) == repr(lists_for_tuples(expected))


@pytest.mark.parametrize("literal", ["true", "[false, null]", r'"\/"', r'"\ud83d\ude00"'])
def test_literals_of_json_are_read_as_json(literal):
    (call,) = collect(run(tool_parser("pythonic"), [f"[f(a={literal})]"])).tool_calls
    assert json.loads(call.arguments) == {"a": json.loads(literal)}


def lists_for_tuples(value):
    if isinstance(value, tuple | list):
        return [lists_for_tuples(each) for each in value]
    if isinstance(value, dict):
        return {key: lists_for_tuples(each) for key, each in value.items()}
    return value


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([*'{}[]",:\\ \n', "1", "-", ".", "e", '"a"', "true", "null", "é"])))
def test_json_is_what_json_loads_takes(tokens):
    text = "".join(tokens).strip()

    def refuse(constant):
        raise ValueError(constant)

    try:
        json.loads(text, parse_constant=refuse)
        is_json = True
    except ValueError:
        is_json = False
    pieces = []
    read = read_with(lambda cursor: read_value(cursor, pieces.append, 1000))(text)
    assert (read is None) == is_json
    if is_json:
        assert "".join(pieces) == text
    assert is_json_object(text, 1000) == (is_json and text.startswith("{"))


def test_values_that_json_and_utf8_lack():
    assert json_text("\ud800") == '"\\ud800"'
    assert json_text("é") == '"é"'
    with pytest.raises(ValueError):
        json_text(math.nan)


# What a scan that goes back would do again and again, by what the scan looks for.
REPEATED = [
    "<",
    "<tool_call>",
    "<tool_call>{",
    '<tool_call>{"name": "',
    '<tool_call>{"name": "f"',
    '<tool_call>{"a": "<tool_call>", ',
    "<function=f><parameter=a></parameter",
    "</parameter",
    "\n{",
    '{"name": ',
    "\n[f(",
    "[",
    "[f(a='",
    "[f(a=[",
    "[TOOL_CALLS]",
    "[TOOL_CALLS][",
    "[TOOL_CALLS]f[ARGS]",
    "```json",
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>",
    " ",
    "\n",
    "x",
    "\\",
    '<tool_call>{"name": "f", "arguments": {"a": ["',
    "</think",
    "<think> ",
]
BEGINNINGS = [
    "",
    "<think>",
    '<tool_call>{"name": "f", "arguments": {"a": "',
    "<function=f><parameter=a>",
    "[f(a='",
    "[f(a=[",
]


def num_examined_chars(parser, text, *, at_once):
    run(parser, [text] if at_once else list(text))
    return parser.num_examined_chars


def assert_linear(new_parser, beginning, repeated):
    """Twice the text is about twice the work; going back over it would be four times."""
    num_repeats = 600 // len(repeated)
    for at_once in (True, False):
        once, twice = (
            num_examined_chars(new_parser(), beginning + repeated * times, at_once=at_once)
            for times in (num_repeats, 2 * num_repeats)
        )
        assert twice <= 2.3 * once + 100, (beginning, repeated, at_once)


@pytest.mark.parametrize("name", FORMATS)
def test_the_work_grows_with_the_text_alone(name):
    for beginning in BEGINNINGS:
        for repeated in REPEATED:
            assert_linear(lambda: tool_parser(name), beginning, repeated)


def test_reasoning_is_scanned_once():
    for repeated in ("<", "</think", " ", "x </thin"):
        assert_linear(
            lambda: ReasoningParser(REGISTRY.reasoning_format("think")), "<think>", repeated
        )


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_that_was_read_stays_in_the_way(name):
    """What is unread is copied with each piece, so it must stay short."""
    for beginning in BEGINNINGS:
        for repeated in REPEATED:
            parser = tool_parser(name)
            for character in beginning + repeated * 6:
                parser.feed(character)
                assert len(parser._cursor._text) < 40


def test_text_is_handed_on_at_once():
    parser = tool_parser("hermes")
    for character in "no call in sight":
        assert merge_events(parser.feed(character)) in ([ContentDelta(character)], [])
