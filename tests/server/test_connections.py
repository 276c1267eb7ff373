"""What happens on the socket itself: garbage, endless heads, silence; and two models at once."""

from __future__ import annotations

import socket
import sys

import pytest
from served_process import ON_FAKE, ServedProcess, plugins_file

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="process groups are POSIX's")


@pytest.fixture(scope="module")
def server(tiny_folder, tmp_path_factory):
    plugins = plugins_file(tmp_path_factory.mktemp("two"))
    with ServedProcess(
        *("--plugins-file", plugins, *ON_FAKE, "--body-timeout-s", 1),
        *("--model", f"one={tiny_folder},device=fake:0,max-model-len=128"),
        *("--model", f"two={tiny_folder},device=fake:1,max-model-len=64"),
        env={"OCTAVO_FAKE_DEVICES": "2"},
    ) as served:
        yield served
        assert "Traceback" not in served.log


def talk(server, data):
    """What the server says to some bytes, until it closes the connection."""
    host, port = server.base_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        try:
            connection.sendall(data)
            received = b""
            while part := connection.recv(65536):
                received += part
        except ConnectionError:
            pass
        return received


def test_two_models_on_two_devices(server):
    with server.client() as http:
        listed = {
            model["id"]: model["max_model_len"] for model in http.get("/v1/models").json()["data"]
        }
        assert listed == {"one": 128, "two": 64}
        for name in ("one", "two"):
            body = {"model": name, "prompt": "Hi", "max_tokens": 3, "ignore_eos": True}
            assert http.post("/v1/completions", json=body).json()["model"] == name
        unknown = http.post("/v1/completions", json={"model": "three", "prompt": "Hi"})
        assert unknown.status_code == 404
        assert "one, two" in unknown.json()["error"]["message"]
    assert "model=two prompt=" in server.log
    assert len(server.children) == 2  # a process for each engine


@pytest.mark.parametrize(
    "garbage",
    [
        b"\r\n\r\nGARBAGE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS greeting
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_not_http_is_refused_and_closed(server, garbage):
    received = talk(server, garbage)
    assert received.startswith(b"HTTP/1.1 400 ") or received == b""
    with server.client() as http:
        assert http.get("/health").status_code == 200


def test_a_head_without_end_is_cut_off(server):
    received = talk(server, b"GET / HTTP/1.1\r\n" + b"X-Many: " + b"a" * 300_000)
    assert received.startswith(b"HTTP/1.1 431 ") or received == b""


@pytest.mark.parametrize("begun", [b"", b"GET /health HT", b"GET /health HTTP/1.1\r\nHost: a\r\n"])
def test_a_request_that_never_comes_is_not_waited_for(server, begun):
    assert talk(server, begun) == b""


def test_a_body_that_never_comes_is_not_waited_for(server):
    head = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{"
    assert talk(server, head).startswith(b"HTTP/1.1 408 ")


def test_a_body_that_is_announced_too_large_is_refused_unread(server):
    head = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
    received = talk(server, head + b"Content-Length: 999999999999\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in received
