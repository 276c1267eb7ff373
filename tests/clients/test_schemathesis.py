"""schemathesis: requests made from the server's own OpenAPI document, right and wrong ones."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
# A stream of events that never ends, and what would leave every other request a 503.
LEFT_OUT = ("/engine/events", "/sleep")


@pytest.fixture
def tiny_server(tmp_path):
    """A Llama of two layers with dummy weights, which answers thousands of requests a minute."""
    pytest.importorskip("uvicorn", reason='octavo serve needs: pip install "octavo[serve]"')
    from served_model_process import ServerProcess

    from structured_models import byte_level_folder
    from tiny_tokenizers import CHAT_TEMPLATE

    folder = byte_level_folder(tmp_path, chat_template=CHAT_TEMPLATE)
    options = ("--load-format", "dummy", "--max-model-len", "256", "--management")
    with ServerProcess(folder, "--backend", "numpy", "--no-log-requests", *options) as server:
        yield server


def test_no_request_surprises(client_program, tiny_server, run_client, tmp_path):
    run_client(
        [
            client_program("schemathesis", "schemathesis"),
            *("run", f"{tiny_server.url}/openapi.json", "--seed", "1", "--max-examples", "50"),
            *("--checks", ",".join(CHECKS), "--phases", "coverage,fuzzing", "--no-shrink"),
            *("--request-timeout", "60", "--warnings", "off"),
            *[argument for path in LEFT_OUT for argument in ("--exclude-path", path)],
        ],
        cwd=tmp_path,
    )
    assert not [line for line in tiny_server.log if "Traceback" in line], tiny_server.log
