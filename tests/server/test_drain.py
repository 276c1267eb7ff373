"""How a server ends: SIGTERM and Ctrl-C, once and twice, with requests under way."""

from __future__ import annotations

import concurrent.futures
import json
import signal
import sys
import time

import httpx
import pytest
from served_process import DEADLINE_S, ON_FAKE, ServedProcess, plugins_file

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send")


def start(folder, tmp_path, *arguments, step_s=0.02, **options):
    plugins = plugins_file(tmp_path, latency_s=step_s)
    flags = ("--plugins-file", plugins, "--served-model-name", "tiny", *ON_FAKE)
    return ServedProcess(folder, *flags, *arguments, **options)


def stream(client, num_tokens):
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "ignore_eos": True,
        "max_tokens": num_tokens,
    }
    return client.stream("POST", "/v1/chat/completions", json=body)


def events(answer):
    return (line.removeprefix("data: ") for line in answer.iter_lines() if line)


def test_sigterm_lets_a_stream_end_and_takes_nothing_new(tiny_folder, tmp_path):
    with start(tiny_folder, tmp_path) as server, server.client() as client:
        with client.stream("GET", "/ready") as ready:
            assert ready.status_code == 200
        with server.client() as other, stream(client, 60) as answer:
            assert other.get("/health").status_code == 200  # a connection that stays open
            received = events(answer)
            next(received)
            server.send(signal.SIGTERM)
            server.wait_for_line("Shutting down: 1 request")
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"{server.base_url}/health", timeout=5)
            assert other.get("/ready").status_code == 503
            refused = other.post("/v1/chat/completions", json={})
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "5"
            rest = list(received)
        assert rest[-1] == "[DONE]"
        assert json.loads(rest[-2])["choices"][0]["finish_reason"] == "length"
        server.ends_with(0)


def test_a_stream_that_does_not_end_in_time_is_ended_with_an_error(tiny_folder, tmp_path):
    with start(tiny_folder, tmp_path, "--shutdown-timeout-s", 0.2) as server:
        with server.client() as client, stream(client, 900) as answer:
            received = events(answer)
            next(received)
            server.send(signal.SIGTERM)
            rest = list(received)
        assert rest[-1] == "[DONE]"
        assert json.loads(rest[-2])["error"]["code"] == "shutting_down"
        server.ends_with(0)
        assert "error=shutting_down" in server.log


def test_a_second_ctrl_c_ends_at_once(tiny_folder, tmp_path):
    with start(tiny_folder, tmp_path, "--shutdown-timeout-s", 600) as server:
        with server.client() as client, stream(client, 900) as answer:
            received = events(answer)
            next(received)
            server.press_ctrl_c()
            server.wait_for_line("Shutting down: 1 request")
            server.press_ctrl_c()
            rest = list(received)
        assert json.loads(rest[-2])["error"]["code"] == "shutting_down"
        server.ends_with(130)


def test_ctrl_c_without_requests(tiny_folder, tmp_path):
    with start(tiny_folder, tmp_path) as server:
        server.press_ctrl_c()
        server.ends_with(0)


def test_a_load_can_be_broken_off(tiny_folder, tmp_path):
    faults = ("--plugins-file", plugins_file(tmp_path))
    (tmp_path / "plugins.toml").write_text(
        'schema = 1\n[options.fake]\nfaults = "make_kv:hang@1:300s"\n'
    )
    with ServedProcess(tiny_folder, *faults, *ON_FAKE, waits=False) as server:
        server.wait_for_line("as asked")
        server.send(signal.SIGTERM)
        server.ends_with(130)


def test_a_step_that_hangs_does_not_keep_a_server_alive(tiny_folder, tmp_path):
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}
    with (
        start(tiny_folder, tmp_path, "--shutdown-timeout-s", 0.2, step_s=300) as server,
        server.client() as client,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        waiting = pool.submit(client.post, "/v1/chat/completions", json=body)
        with server.client() as other:
            while other.get("/load").json()["server_load"] == 0:
                time.sleep(0.01)
        server.send(signal.SIGTERM)
        assert waiting.result().status_code == 503
        server.send(signal.SIGTERM)
        server.ends_with(130)
        assert "An engine does not stop" in server.log


def test_a_server_whose_engine_was_killed_says_so_and_still_ends_in_peace(tiny_folder, tmp_path):
    with start(tiny_folder, tmp_path) as server, server.client() as client:
        assert client.get("/health").status_code == 200
        for child in server.children:
            child.kill()
        end_s = time.monotonic() + DEADLINE_S
        while (health := client.get("/health")).status_code == 200:
            assert time.monotonic() < end_s
            time.sleep(0.01)
        assert health.status_code == 503
        assert "SIGKILL" in health.text
        server.send(signal.SIGTERM)
        server.ends_with(0)
