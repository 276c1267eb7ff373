"""The programs of docs/serving.md, run as they stand against a real server."""

from __future__ import annotations

import os
import re
import shutil

import pytest

_BLOCK = re.compile(
    r"^```(python|javascript|bash)\n(?:#|//) (\w+\.\w+): (.*?\n)```$", re.DOTALL | re.MULTILINE
)
_NEEDS = {"openai_client.py": "openai", "anthropic_client.py": "anthropic"}


@pytest.fixture(scope="module")
def programs(repo_root):
    """By name: (language, source); their first line is a comment with the name."""
    text = (repo_root / "docs/serving.md").read_text(encoding="utf-8")
    return {name: (language, f"# {rest}") for language, name, rest in _BLOCK.findall(text)}


@pytest.fixture
def run_program(programs, client_server, run_client, client_program, repo_root, tmp_path):
    from served_model_process import API_KEY

    def run(name):
        language, source = programs[name]
        path = tmp_path / name
        match language:
            case "python":
                pytest.importorskip(_NEEDS[name], reason="not installed: requirements/test.txt")
                program = client_program(None)
            case "javascript":
                program = client_program("node", "node")
                source = source.replace("#", "//", 1)
                modules = repo_root / "tests/clients/node/node_modules"
                (tmp_path / "node_modules").symlink_to(modules, target_is_directory=True)
            case _:
                program = shutil.which("bash")
        path.write_text(source, encoding="utf-8")
        server = {"OCTAVO_URL": client_server.url, "OCTAVO_API_KEY": API_KEY}
        return run_client([program, path], cwd=tmp_path, **server)

    return run


def test_every_program_is_run(programs):
    assert sorted(programs) == [
        "anthropic_client.py",
        "openai_client.mjs",
        "openai_client.py",
        "stream.sh",
    ]


@pytest.mark.parametrize("name", ["openai_client.py", "anthropic_client.py"])
def test_python_programs(run_program, name):
    assert run_program(name).strip()  # sampled: what it says differs


@pytest.mark.skipif(
    os.name == "nt" or not shutil.which("curl"), reason="stream.sh needs bash and curl"
)
def test_shell_program(run_program):
    output = run_program("stream.sh")  # curl tells of its progress in between
    assert '"text":' in output
    assert "data: [DONE]" in output


@pytest.mark.slow
def test_node_program(run_program):
    assert run_program("openai_client.mjs").strip()
