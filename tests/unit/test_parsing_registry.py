"""Parsers are found by name and by a model's template and tokens; plugins add and replace them."""

# ruff: noqa: RUF001 - the tokens of DeepSeek are spelt with a full-width bar

from __future__ import annotations

import ast
import itertools
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import pytest

import octavo.parsing
from octavo.errors import PluginError, UsageError
from octavo.parsing import ModelClues, ParserRegistry, ToolCallParser, clues_of, collect
from octavo.plugins import load_plugins
from octavo.policy import Policy
from octavo.spec import API_VERSION, ParserSpec
from throwaway_plugins import install

REGISTRY = ParserRegistry()

# The lines of chat templates that show how calls are written: (model, template, tokens, format).
MODELS = [
    (
        "Qwen/Qwen3-8B",
        '{{- \'\\n<tool_call>\\n{"name": "\' }}{%- if tools %}<think>\\n\\n</think>',
        "<|im_end|>",
        ("hermes", "think"),
    ),
    (
        "Qwen/Qwen3-Coder-480B-A35B-Instruct",
        "<tool_call>\\n<function=example_function_name>\\n<parameter=example_parameter_1>",
        "<|im_end|>",
        ("qwen3_coder", None),
    ),
    (
        "meta-llama/Llama-3.1-8B-Instruct",
        '{{- \'Respond in the format {"name": function name, "parameters": dictionary of \'}}',
        "<|python_tag|>",
        ("llama3_json", None),
    ),
    (
        "Llama 4 with a pythonic template",
        '[get_weather(location="Vancouver"), calculate_route(start="Boston")] tools',
        "<|python_start|>",
        ("pythonic", None),
    ),
    (
        "mistralai/Mistral-7B-Instruct-v0.3",
        '{{- "[TOOL_CALLS] [" }}{{- "[AVAILABLE_TOOLS] [" }}',
        "[TOOL_CALLS]",
        ("mistral", None),
    ),
    (
        "mistralai/Magistral-Small-2507",
        "{{- '[TOOL_CALLS]' + name + '[ARGS]' + arguments }}",
        "[TOOL_CALLS] [ARGS] [THINK] [/THINK]",
        ("mistral_args", "mistral_think"),
    ),
    (
        "deepseek-ai/DeepSeek-R1-0528",
        "'<｜Assistant｜>' '<｜tool▁call▁begin｜>' + tool['type'] + '\n```json\n' <think>",
        "",
        ("deepseek_v3", "deepseek_r1"),
    ),
    (
        "deepseek-ai/DeepSeek-V3.1",
        "<｜Assistant｜></think> <think> <｜tool▁call▁begin｜>name<｜tool▁sep｜>arguments",
        "",
        ("deepseek_v31", "deepseek_r1"),
    ),
    ("asks for JSON", "{% for tool in tools %}{{ tool | tojson }}{% endfor %}", "", ("json", None)),
    ("HuggingFaceTB/SmolLM2-135M-Instruct", "{% for message in messages %}", "", (None, None)),
]

_counter = itertools.count()


@pytest.mark.parametrize(
    ("template", "tokens", "expected"), [pytest.param(*case[1:], id=case[0]) for case in MODELS]
)
def test_formats_are_detected(template, tokens, expected):
    clues = ModelClues(template, frozenset(tokens.split()))
    found = (REGISTRY.detect_tool_calls(clues), REGISTRY.detect_reasoning(clues))
    assert tuple(each and each.name for each in found) == expected


def test_clues_come_from_a_tokenizer():
    class Tokenizer:
        special_ids = frozenset({1, 2})
        chat_template = MappingProxyType({"default": "a", "tool_use": "<tool_call>"})

        def id_to_token(self, token_id):
            return {1: "<s>", 2: "[TOOL_CALLS]"}[token_id]

    clues = clues_of(Tokenizer())
    assert clues == ModelClues("a\n<tool_call>", frozenset({"<s>", "[TOOL_CALLS]"}))
    Tokenizer.chat_template = None
    assert clues_of(Tokenizer()).template == ""


def test_every_name_leads_to_its_format():
    for spec in REGISTRY.specs("tool_calls"):
        assert REGISTRY.tool_call_format(spec.name).name == spec.name
    for spec in REGISTRY.specs("reasoning"):
        assert REGISTRY.reasoning_format(spec.name).name == spec.name


def test_an_unknown_name_lists_the_good_ones():
    with pytest.raises(UsageError, match=r"Did you mean 'hermes'\? Choose one of: deepseek_v3, "):
        REGISTRY.tool_call_format("hermess")
    with pytest.raises(UsageError, match="no reasoning parser 'hermes'"):
        REGISTRY.reasoning_format("hermes")


def spec(**changes):
    fields = {
        "name": "own",
        "kind": "tool_calls",
        "summary": "a parser of a test",
        "load": lambda: REGISTRY.tool_call_format("json"),
        "detect": lambda clues: True,
        "api_version": API_VERSION,
    }
    return ParserSpec(**{**fields, **changes})


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (spec(load=lambda: 5), "load returned a int; expected a ToolCallFormat"),
        (spec(load=lambda: 1 / 0), "load raised ZeroDivisionError"),
        (spec(detect=lambda clues: 1 / 0), "detect raised ZeroDivisionError"),
    ],
)
def test_a_plugin_parser_that_fails_is_named(broken, message):
    with pytest.raises(PluginError, match=f"tool-call parser 'own' of a plugin.*{message}"):
        ParserRegistry([broken]).detect_tool_calls(ModelClues(""))


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / f"parsers{next(_counter)}"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


def load(*distributions):
    policy = Policy(
        path="plugins.toml",
        device_order=("cpu",),
        backend_order=MappingProxyType({}),
        block=(),
        allow=distributions,
        ops=MappingProxyType({}),
        options=MappingProxyType({}),
    )
    return load_plugins(policy)


def record_of(found, distribution):
    return next(each for each in found.records if each.distribution == distribution)


def documented_examples() -> list[str]:
    page = Path(__file__).resolve().parents[2] / "docs" / "tool-calls.md"
    text = page.read_text(encoding="utf-8")
    return [block.partition("```")[0] for block in text.split("```python\n")[1:]]


def test_the_documented_use_gives_what_it_says():
    names = {}
    exec(documented_examples()[0], names)  # noqa: S102 - a page of this repository
    answer = collect(names["events"])
    assert (answer.content, answer.reasoning) == ("", "What time?")
    assert [(call.name, call.is_known) for call in answer.tool_calls] == [("now", True)]


def test_the_documented_plugin_is_found_detected_and_parses(site):
    found = load(install(site, "angle", documented_examples()[-1]))

    registry = ParserRegistry(found.parsers)
    tool_format = registry.detect_tool_calls(ModelClues("<call>"))
    assert tool_format.name == "angle"
    parser = ToolCallParser(tool_format, [{"name": "add"}])
    text = 'Sure. <call>add {"a": 1}</call> <call>add '
    answer = collect([*parser.feed(text), *parser.finish()])
    assert [(call.name, call.arguments) for call in answer.tool_calls] == [("add", '{"a": 1}')]
    assert answer.content == "Sure.  <call>add "
    shape = tool_format.grammar([])
    assert shape.calls == ()


_PARSER = (
    "@hookimpl\ndef octavo_register_parsers(register):\n"
    "    register(ParserSpec({}, {}, 'x', dict, {}, {}))\n"
)


def test_a_plugins_parser_replaces_a_built_in_one(site):
    found = load(install(site, "mine", _PARSER.format("'hermes'", "'tool_calls'", "bool", "1")))
    registry = ParserRegistry(found.parsers)
    named = [spec for spec in registry.specs("tool_calls") if spec.name == "hermes"]
    assert named == [registry.specs("tool_calls")[0]] == [*found.parsers]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("'Own'", "'reasoning'", "bool", "1"), "name='Own'; expected a name"),
        (("'own'", "'tools'", "bool", "1"), "kind='tools'; expected 'tool_calls' or 'reasoning'"),
        (("'own'", "'reasoning'", "None", "1"), "detect=None; expected a callable"),
        (("'own'", "'reasoning'", "bool", "99"), "needs plugin API version 99"),
    ],
)
def test_a_bad_parser_is_refused_with_the_reason(site, arguments, reason):
    distribution = install(site, f"bad-parser-{next(_counter)}", _PARSER.format(*arguments))
    record = record_of(load(distribution), distribution)
    assert record.status == "broken"
    assert reason in record.reason
    assert record.parsers == ()


def test_two_plugins_with_one_parser_are_both_refused(site):
    names = [
        install(site, f"rival-{n}", _PARSER.format("'own'", "'reasoning'", "bool", "1"))
        for n in (1, 2)
    ]
    found = load(*names)
    for name in names:
        assert "the reasoning parser 'own' is claimed by octavo-rival-1 and by octavo-rival-2" in (
            record_of(found, name).reason
        )


def test_parsing_needs_the_standard_library_only():
    allowed = {"octavo.errors", "octavo.isolation", "octavo.spec", "octavo.suggest"}
    for path in Path(octavo.parsing.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                is_for_types = module == "octavo.tokenizer.base" and path.name == "clues.py"
                is_ours = module.startswith("octavo.parsing") or module in allowed or is_for_types
                is_standard = module.partition(".")[0] in sys.stdlib_module_names
                assert is_ours or is_standard, f"{path.name} imports {module}"


def test_importing_the_api_does_not_import_parsing():
    code = "import sys, octavo.api; print([m for m in sys.modules if 'octavo.parsing' in m])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
