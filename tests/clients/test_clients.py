"""Clients that others wrote, unmodified, each in an environment of its own, against a server."""

from __future__ import annotations

import sys

import pytest

# Of each script the environment below .venv-clients; None: the tests' own.
SCRIPTS = {
    "openai_chat": None,
    "openai_tools": None,
    "openai_completions": None,
    "openai_responses": None,
    "openai_errors": None,
    "anthropic": None,
    "instructor": "instructor",
    "langchain": "langchain",
    "litellm": "litellm",
    "llama_index": "llama-index",
    "openai_agents": "openai-agents",
    "pydantic_ai": "pydantic-ai",
}
# What `make test` runs of them: a word of each check's name.
IN_SHORT = {
    "openai_chat": ("whole_answer", "logprobs", "parsed"),
    "openai_tools": ("named", "stream_finishes", "bad_choices"),
    "openai_completions": ("whole", "echo_and"),
    "anthropic": ("create", "raw_stream", "count", "errors"),
}
NODE_SCRIPTS = ("openai", "anthropic", "ai_sdk")


@pytest.mark.parametrize("name", IN_SHORT)
def test_python_client_in_short(name, client_server, run_client):
    pytest.importorskip(name.partition("_")[0], reason="not installed: requirements/test.txt")
    command = [sys.executable, f"{name}_client.py", *IN_SHORT[name]]
    assert "checks passed" in run_client(command, **client_server.client_environment)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_python_client(name, client_program, client_server, run_client):
    if SCRIPTS[name] is None:
        pytest.importorskip(name.partition("_")[0], reason="not installed: requirements/test.txt")
    python = client_program(SCRIPTS[name])
    output = run_client([python, f"{name}_client.py"], **client_server.client_environment)
    assert "checks passed" in output


@pytest.mark.slow
@pytest.mark.parametrize("name", NODE_SCRIPTS)
def test_node_client(name, client_program, client_server, run_client, repo_root):
    node = client_program("node", "node")
    folder = repo_root / "tests/clients/node"
    output = run_client([node, f"{name}.mjs"], cwd=folder, **client_server.client_environment)
    assert "checks passed" in output
