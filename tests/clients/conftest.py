"""One server for all clients, and the environment that each client lives in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT_LIMIT_S = 280
_SCRIPTS = "Scripts" if os.name == "nt" else "bin"
_REQUIRED = os.environ.get("OCTAVO_TEST_CLIENTS", "").split()


@pytest.fixture(scope="session")
def client_server(smollm2_path, repo_root):
    """`octavo serve` with SmolLM2, a template that knows tools, a key, and room for 8 requests."""
    pytest.importorskip("uvicorn", reason='octavo serve needs: pip install "octavo[serve]"')
    from served_model_process import serve_for_clients

    with serve_for_clients(smollm2_path, repo_root) as server:
        yield server
        assert not [line for line in server.log if "Traceback" in line], server.log


@pytest.fixture(scope="session")
def client_program(repo_root):
    """Finds a program of a client's own environment; skips, or fails in `make test-clients`."""

    def find(environment, program="python"):
        if environment is None:
            return Path(sys.executable)
        folder = repo_root / ".venv-clients" / environment
        path = folder / _SCRIPTS / (program + (".exe" if os.name == "nt" else ""))
        if path.exists() and (folder / "made.stamp").exists():
            return path
        reason = f"no environment for {environment}: make .venv-clients/{environment}/made.stamp"
        if environment in _REQUIRED:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)

    return find


@pytest.fixture
def run_client(repo_root):
    """Runs a client's command; gives its output, and fails as it does."""

    def run(command, *, cwd=None, limit_s=SCRIPT_LIMIT_S, **environment):
        kept = {name: value for name, value in os.environ.items() if "_API_" not in name}
        result = subprocess.run(
            [str(part) for part in command],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=limit_s,
            cwd=cwd or repo_root / "tests/clients",
            env={**kept, **environment},
        )
        if result.returncode != 0:
            pytest.fail(f"exit status {result.returncode}\n{result.stdout[-20_000:]}", False)
        return result.stdout

    return run


@pytest.fixture(scope="session")
def tokenizer_folder(smollm2_path, tmp_path_factory):
    """SmolLM2's tokenizer as files that Hugging Face's libraries load; transformers writes them."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    path = smollm2_path
    AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder
