"""A call that keeps to a format's grammar is parsed as that call: `required` cannot fail."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.parsing import ParserRegistry, ToolCallParser, collect, tool_definitions

REGISTRY = ParserRegistry()
FORMATS = [spec.name for spec in REGISTRY.specs("tool_calls")]
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
                    "where": {"type": ["object", "null"]},
                },
                "required": ["city"],
            },
        },
    },
    {"type": "function", "function": {"name": "now"}},
]
DEFINITIONS = tool_definitions(TOOLS)

weather_arguments = st.fixed_dictionaries(
    {"city": st.text().filter(lambda text: "</parameter>" not in text)},
    optional={
        "days": st.integers(),
        "where": st.none() | st.dictionaries(st.text(), st.integers() | st.text(), max_size=2),
    },
)
calls = st.lists(
    st.tuples(st.just("get_weather"), weather_arguments) | st.just(("now", {})),
    min_size=1,
    max_size=3,
)


def written(grammar, name, arguments):
    """One call as a grammar engine would let a model write it."""
    shape = next(shape for shape in grammar.calls if shape.name == name)
    if shape.arguments is None:
        body = json.dumps(arguments)
    else:
        parts = []
        for (key, schema), argument in zip(
            DEFINITIONS[0].properties.items() if arguments else [], shape.arguments, strict=False
        ):
            assert argument.schema is schema
            if key in arguments:
                value = arguments[key]
                text = value if argument.is_text else json.dumps(value)
                parts.append(argument.begin + text + argument.end)
            else:
                assert not argument.is_required
        body = shape.argument_separator.join(parts)
    return shape.begin + body + shape.end


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=60, deadline=None)
@given(calls=calls)
def test_a_call_by_the_grammar_is_parsed_as_that_call(name, calls):
    tool_format = REGISTRY.tool_call_format(name)
    grammar = tool_format.grammar(DEFINITIONS)
    assert grammar.separator is not None
    text = grammar.separator.join(written(grammar, *call) for call in calls)
    parser = ToolCallParser(tool_format, TOOLS)
    text = grammar.begin + text + grammar.end
    answer = collect([*parser.feed(text), *parser.finish()])
    assert answer.content == ""
    assert [(call.name, json.loads(call.arguments)) for call in answer.tool_calls] == calls
    assert all(call.is_known for call in answer.tool_calls)


@pytest.mark.parametrize("name", FORMATS)
def test_a_named_function_has_a_grammar_of_its_own(name):
    grammar = REGISTRY.tool_call_format(name).grammar(DEFINITIONS[1:])
    (shape,) = grammar.calls
    assert shape.name == "now"
    assert shape.schema == {"type": "object", "properties": {}, "additionalProperties": False}


def test_schemas_are_the_tools_own():
    """So that references within them stay good."""
    for name in FORMATS:
        shape = REGISTRY.tool_call_format(name).grammar(DEFINITIONS).calls[0]
        assert shape.schema is TOOLS[0]["function"]["parameters"]


def test_names_are_escaped_where_the_format_is_json():
    definitions = tool_definitions([{"name": 'say "hi"'}])
    shape = REGISTRY.tool_call_format("hermes").grammar(definitions).calls[0]
    assert shape.begin == '<tool_call>\n{"name": "say \\"hi\\"", "arguments": '
