"""Load generators that others wrote: vLLM's `bench serve` and GuideLLM.

`make bench-clients` runs them and shows what they print. What they measure is not judged: that
every request succeeds and the numbers of tokens are right is.
"""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.slow
NUM_REQUESTS = 16
INPUT_TOKENS = 32
OUTPUT_TOKENS = 16
CONCURRENCY = 4


@pytest.mark.parametrize("interface", ["openai", "openai-chat"])
def test_vllm_bench_serve(
    interface, client_program, client_server, run_client, tokenizer_folder, tmp_path
):
    from served_model_process import API_KEY, MODEL_NAME

    path = "/v1/completions" if interface == "openai" else "/v1/chat/completions"
    output = run_client(
        [
            *(client_program("vllm"), "vllm_bench_serve.py"),
            *("--backend", interface, "--base-url", client_server.url, "--endpoint", path),
            *("--model", MODEL_NAME, "--tokenizer", tokenizer_folder),
            *("--header", f"Authorization=Bearer {API_KEY}"),
            *("--dataset-name", "random", "--random-input-len", INPUT_TOKENS),
            *("--random-output-len", OUTPUT_TOKENS, "--num-prompts", NUM_REQUESTS),
            *("--max-concurrency", CONCURRENCY, "--ignore-eos", "--seed", "1"),
            *("--save-result", "--result-dir", tmp_path, "--result-filename", "result.json"),
        ],
        VLLM_LOGGING_LEVEL="ERROR",
        VLLM_NO_USAGE_STATS="1",
    )
    print(output)
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["completed"], result["failed"]) == (NUM_REQUESTS, 0)
    assert result["total_output_tokens"] == NUM_REQUESTS * OUTPUT_TOKENS


def test_guidellm(client_program, client_server, run_client, tokenizer_folder, tmp_path):
    from served_model_process import API_KEY, MODEL_NAME

    backend = {
        "kind": "openai_http",
        "target": client_server.url,
        "model": MODEL_NAME,
        "api_key": API_KEY,
        "request_format": "/v1/chat/completions",
    }
    data = f"kind=synthetic_text,prompt_tokens={INPUT_TOKENS},output_tokens={OUTPUT_TOKENS}"
    output = run_client(
        [
            *(client_program("guidellm", "guidellm"), "run"),
            *("--backend", ",".join(f"{name}={value}" for name, value in backend.items())),
            *("--profile", f"kind=concurrent,streams={CONCURRENCY}"),
            *("--constraint", f"kind=max_requests,count={NUM_REQUESTS}"),
            *("--tokenizer", f"kind=huggingface_auto,model={tokenizer_folder}"),
            *("--data", data, "--output", f"kind=json,path={tmp_path / 'result.json'}"),
            "--disable-console-interactive",
        ],
        cwd=tmp_path,
        HF_HOME=str(tmp_path / "hub"),
    )
    print(output)
    [benchmark] = json.loads((tmp_path / "result.json").read_text())["benchmarks"]
    totals = benchmark["metrics"]["request_totals"]
    assert (totals["successful"], totals["errored"]) == (NUM_REQUESTS, 0)
