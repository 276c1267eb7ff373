"""What StructuredOutputs takes and refuses, with the reason in the message."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest

from octavo import SamplingParams, StructuredOutputs
from octavo.errors import UsageError
from octavo.structured.limits import MAX_CHOICES, MAX_REGEX_LENGTH, MAX_TEXT_BYTES

DEEP = {}
for _ in range(5000):
    DEEP = {"items": DEEP}
STRUCTURE = {"begin": "<f>", "schema": {}, "end": ""}
TAG = {"triggers": ["<f"], "structures": [STRUCTURE]}


@pytest.mark.parametrize(
    ("outputs", "kind"),
    [
        ({"json": {"type": "string"}}, "json"),
        ({"json": '{"type": "string"}', "json_object": False}, "json"),
        ({"regex": "a+"}, "regex"),
        ({"choice": ["a", "b"]}, "choice"),
        ({"grammar": 'start: "a"'}, "grammar"),
        ({"json_object": True}, "json_object"),
        ({"structural_tag": TAG}, "structural_tag"),
        ({"structural_tag": json.dumps({"type": "structural_tag", **TAG})}, "structural_tag"),
    ],
)
def test_one_of_them_is_chosen(outputs, kind):
    made = StructuredOutputs(**outputs)
    assert made.kind == kind
    assert hash(made) == hash(StructuredOutputs(**outputs))
    assert dataclasses.replace(made) == made
    assert SamplingParams(structured_outputs=outputs).structured_outputs == made


def test_what_was_given_may_change_afterwards():
    schema, choice = {"type": "string"}, ["a"]
    made = StructuredOutputs(json=schema), StructuredOutputs(choice=choice)
    schema["type"] = "integer"
    choice.append("b")
    assert json.loads(made[0].json) == {"type": "string"}
    assert made[1].choice == ("a",)


def test_the_order_of_a_schemas_properties_is_kept():
    schema = {"properties": {"z": {}, "a": {}}}
    assert json.dumps(schema) == StructuredOutputs(json=schema).json


REFUSED = [
    ({}, "sets nothing; expected exactly one of json, regex, choice, grammar"),
    ({"json_object": False}, "sets nothing"),
    ({"json": {}, "regex": "a"}, "sets json and regex; expected exactly one"),
    ({"choice": ["a"], "json_object": True}, "sets choice and json_object"),
    ({"json_object": 1}, "json_object must be True or False, got 1"),
    ({"json": 3}, r"json must be a JSON object, .*got int"),
    ({"json": []}, r"json must be a JSON object, .*got list"),
    ({"json": "[]"}, r"json must be a JSON object, .*got list"),
    ({"json": "true"}, r"json must be a JSON object, .*got bool"),
    ({"json": "{'type': 1}"}, "json is not JSON: .*double quotes"),
    ({"json": ""}, "json is empty"),
    ({"json": {"minimum": float("nan")}}, "json is not JSON: Out of range"),
    ({"json": {"enum": [{1, 2}]}}, "json is not JSON: .*set is not JSON"),
    ({"json": DEEP}, "json is nested too deeply"),
    ({"json": '{"items":' * 100_000}, "json has 900000 bytes|nested too deeply"),
    ({"json": {"const": "\ud800"}}, "lone surrogate"),
    ({"json": {"enum": ["x" * MAX_TEXT_BYTES]}}, f"at most {MAX_TEXT_BYTES} are taken"),
    ({"regex": 3}, "regex must be text, got 3"),
    ({"regex": ""}, "regex is empty"),
    ({"regex": "a\ud800"}, "lone surrogate"),
    ({"regex": "a" * (MAX_REGEX_LENGTH + 1)}, f"at most {MAX_REGEX_LENGTH} are taken"),
    ({"choice": "yes"}, "choice must be a list of strings, got the single string 'yes'"),
    ({"choice": []}, "choice is empty"),
    ({"choice": ["a", ""]}, "choice cannot contain an empty string"),
    ({"choice": ["a", 3]}, "choice must be a string or a list of strings"),
    ({"choice": ["a", "\udc00"]}, "lone surrogate"),
    ({"choice": map(str, range(3))}, "choice must be"),
    ({"choice": [str(i) for i in range(MAX_CHOICES + 1)]}, f"at most {MAX_CHOICES}"),
    ({"choice": ["x" * MAX_TEXT_BYTES, "y"]}, "at most"),
    ({"grammar": b"start"}, "grammar must be text"),
    ({"grammar": "a" * (MAX_TEXT_BYTES + 1)}, f"grammar has {MAX_TEXT_BYTES + 1} bytes"),
    ({"structural_tag": {}}, "expected .*triggers"),
    ({"structural_tag": {"type": "structural_tag", "format": {}}}, "has the keys .*format"),
    ({"structural_tag": {**TAG, "triggers": []}}, "at least one of each"),
    ({"structural_tag": {**TAG, "triggers": ["<g"]}}, "no trigger for begin='<f>'"),
    ({"structural_tag": {**TAG, "triggers": [""]}}, "no trigger"),
    ({"structural_tag": {**TAG, "structures": [{}]}}, "expected begin"),
    ({"structural_tag": {**TAG, "structures": [{**STRUCTURE, "x": 1}]}}, "expected begin"),
    ({"structural_tag": {**TAG, "structures": [{**STRUCTURE, "schema": "a"}]}}, "expected begin"),
    ({"json": {}, "disable_any_whitespace": 1}, "disable_any_whitespace must be True or False"),
    ({"json": {}, "whitespace_pattern": 1}, "whitespace_pattern must be text"),
    ({"regex": "a", "whitespace_pattern": " "}, "means nothing with regex"),
    ({"choice": ["a"], "disable_any_whitespace": True}, "means nothing with choice"),
    (
        {"json": {}, "disable_any_whitespace": True, "whitespace_pattern": " "},
        "contradict each other",
    ),
]


@pytest.mark.parametrize(("outputs", "reason"), REFUSED)
def test_what_cannot_be_meant_is_refused(outputs, reason):
    with pytest.raises(UsageError, match=r"(?s)^structured_outputs|^A structure") as caught:
        StructuredOutputs(**outputs)
    assert caught.match(f"(?s){reason}")
    assert len(str(caught.value)) < 700


def run(script):
    command = [sys.executable, "-c", script]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_a_missing_package_is_named_with_the_pip_line():
    script = """
import sys
sys.modules["llguidance"] = None
from octavo.completion import Vocabulary
from octavo.errors import UsageError
from octavo.structured import StructuredOutputs
from octavo.structured.compiler import GrammarCompiler
compiler = GrammarCompiler(Vocabulary(10, None, frozenset()))
try:
    compiler.mask_for(StructuredOutputs(regex="a"))
except UsageError as error:
    print(error)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert 'pip install "octavo[structured]"' in ended.stdout, ended.stderr


def test_nothing_of_the_package_is_loaded_before_it_is_asked_for():
    script = "import sys, octavo.engine, octavo.structured.compiler; print(*sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert "octavo.structured.compiler" in ended.stdout, ended.stderr
    assert "llguidance" not in ended.stdout
