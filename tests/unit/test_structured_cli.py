"""``octavo generate`` with a schema, a regex, choices or a grammar."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from octavo.cli.main import app
from structured_models import byte_level_folder

SCHEMA = {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 2, "maxItems": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(byte_level_folder(tmp_path_factory.mktemp("model")))


def generate(*arguments):
    return CliRunner().invoke(app, ["generate", *arguments])


def answered(folder, *flags):
    options = ("--device", "cpu", "--backend", "numpy", "--load-format", "dummy", "--quiet")
    sampling = ("--max-tokens", "200", "--seed", "1", "--kv-cache-memory-bytes", "9999999")
    result = generate(folder, "Say:", *options, *sampling, *flags)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_schema_comes_from_a_file_or_as_it_is(folder, tmp_path):
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(SCHEMA), encoding="utf-8")
    for flag in (str(file), json.dumps(SCHEMA), "\n " + json.dumps(SCHEMA)):
        assert set(json.loads(answered(folder, "--json-schema", flag))) <= {"a", "b"}


def test_the_other_forms(folder, tmp_path):
    file = tmp_path / "pair.lark"
    file.write_text('start: "(" /[0-9]/ ")"\n', encoding="utf-8")
    assert re.fullmatch(r"\(\d\)\n", answered(folder, "--grammar", str(file)))
    assert re.fullmatch(r"[xy]{3}\n", answered(folder, "--regex", "[xy]{3}"))
    assert answered(folder, "--choice", "left", "--choice", "right") in ("left\n", "right\n")
    lines = answered(folder, "--choice", "left", "--n", "2", "--json").splitlines()
    [record] = map(json.loads, lines)
    assert [answer["text"] for answer in record["outputs"]] == ["left"] * 2


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--regex", "[a-"], "unclosed character class"),
        (["--regex", "a", "--choice", "b"], "--regex and --choice exclude each other"),
        (["--json-schema", '{"type": "objekt"}'], "objekt"),
        (["--json-schema", "{'a': 1}"], "json is not JSON"),
        (["--json-schema", "missing.json"], "--json-schema missing.json: No such file"),
        (["--grammar", "missing.lark"], "--grammar missing.lark: No such file"),
    ],
)
def test_what_is_wrong_is_said_before_a_model_is_looked_for(flags, reason):
    result = generate("no-such-model.gguf", "x", *flags)
    assert result.exit_code != 0
    assert reason in re.sub(r"\s+", " ", result.output)
    assert "no-such-model" not in result.output


def test_a_file_that_is_no_text_is_named(tmp_path):
    file = tmp_path / "grammar.lark"
    file.write_bytes(b"start: \xff")
    result = generate("no-such-model.gguf", "x", "--grammar", str(file))
    assert "is not UTF-8 text (byte 7)" in re.sub(r"\s+", " ", result.output)
