"""What the pages show of chat completions runs as it stands, against a model of noise."""

from __future__ import annotations

import re

import pytest
from tiny_serving import RunningServer, load_tiny


def _snippet(repo_root, name):
    page = (repo_root / "docs" / name).read_text("utf-8").partition("\n## Over HTTP")[2]
    [code] = re.findall(r"```python\n(.*?)```", page.partition("\n## ")[0], re.DOTALL)
    return code


@pytest.fixture
def run(tiny_folder, repo_root, capsys):
    with RunningServer(load_tiny(tiny_folder)) as server:

        def run_page(name):
            code = _snippet(repo_root, name)
            assert "http://127.0.0.1:8000" in code
            exec(code.replace("http://127.0.0.1:8000", server.base_url), {})  # noqa: S102 - ours
            return capsys.readouterr().out.splitlines()

        yield run_page


def test_the_page_on_tool_calls(run):
    [call] = run("tool-calls.md")
    assert re.fullmatch(r"weather \{'city': .*, 'unit': '[CF]'\}", call)


def test_the_page_on_structured_output(run):
    is_capital, cold = run("structured-output.md")
    assert is_capital in ("True", "False")
    assert cold in ("yes", "no")
