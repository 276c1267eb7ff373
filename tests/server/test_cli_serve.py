"""``octavo serve``: what it refuses before it loads anything, what it plans, how it listens."""

from __future__ import annotations

import dataclasses
import shutil
import socket
import ssl
import subprocess
import sys

import httpx
import pytest
from served_process import ON_FAKE, ServedProcess, octavo_command, plugins_file
from typer.testing import CliRunner

from octavo.cli.main import app

EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing listens there
ANSI_FREE = {"NO_COLOR": "1", "COLUMNS": "200", "TERM": "dumb"}


@pytest.fixture
def octavo(monkeypatch):
    """Calls the command line in this process; (exit code, standard output, standard error)."""
    monkeypatch.delenv("OCTAVO_API_KEY", raising=False)

    def call(*arguments, code=0, **environment):
        result = CliRunner(env={**ANSI_FREE, **environment}).invoke(app, list(map(str, arguments)))
        assert result.exit_code == code, result.output + repr(result.exception)
        assert "Traceback" not in result.output
        return result.stdout, result.stderr

    return call


@pytest.fixture
def fake(tiny_folder, tmp_path):
    """A tiny model on the fake device, as arguments."""
    return (tiny_folder, "--plugins-file", plugins_file(tmp_path), *ON_FAKE)


def rows(text):
    """The plan as {label: value}; of several models the last."""
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def test_a_dry_run_tells_what_would_be_served(octavo, fake, tiny_folder):
    out, _ = octavo(
        *("serve", *fake, "--dry-run", "--served-model-name", "a", "--served-model-name", "b"),
        *("--tool-call-parser", "hermes", "--reasoning-parser", "none", "--max-model-len", 256),
        *("--host", EVERYWHERE, "--port", 81, "--api-key", "sk-hidden", "--root-path", "/llm"),
    )
    plan = {label: value.strip() for label, value in rows(out).items()}
    assert plan["served as"] == "a, b"
    assert "fake" in plan["chosen"]
    assert plan["device"].startswith("fake:0 ")
    assert plan["longest context"] == "256 tokens"
    assert plan["verdict"] == "it fits"
    assert "65,536 tokens" in plan["KV cache"]  # 256 requests at once, of 256 tokens
    assert (plan["tool calls"], plan["reasoning"]) == ("hermes", "none")
    assert plan["listens at"] == f"http://{EVERYWHERE}:81/llm"
    assert plan["lets in"] == "who shows one of 1 keys"
    assert "management" in plan["has"]
    assert "sk-hidden" not in out


def test_a_dry_run_of_several_models(octavo, fake, tiny_folder):
    out, _ = octavo(
        *("serve", *fake[1:], "--dry-run", "--host", EVERYWHERE),
        *("--model", f"big={tiny_folder},max-model-len=512,enable_prefix_caching=false"),
        *("--model", f"small={tiny_folder},max_model_len=64"),
    )
    assert "served as:        big\n" in out
    assert "served as:        small\n" in out
    assert "512 tokens" in out
    assert "64 tokens" in out
    assert "management" not in out  # reachable from elsewhere, and no keys


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "No model to serve"),
        (("{folder}", "--model", "x={folder}"), 2, "not both"),
        (("--model", "{folder}"), 2, "expected NAME=MODEL"),
        (("--model", "=x"), 2, "expected NAME=MODEL"),
        (("--model", "a={folder}", "--model", "a={folder}"), 2, "'a' is given to more than one"),
        (("--model", "a=x,devise=cpu"), 2, "Did you mean 'device'?"),
        (("--model", "a=x,block_size=big"), 2, "must be a number"),
        (("--model", "a=x,quiet=perhaps"), 2, "true or false"),
        (
            ("--model", "a=x", "--model", "b=y", "--served-model-name", "c"),
            2,
            "--served-model-name would hold for 2 models",
        ),
        (("{folder}", "--served-model-name", " "), 2, "empty name"),
        (("{folder}", "--port", "70000"), 2, "port=70000"),
        (("{folder}", "--host", ""), 2, "no address"),
        (("{folder}", "--api-key", ""), 2, "API key is empty"),
        (("{folder}", "--api-key-file", "{tmp}/none"), 2, "No such file"),
        (("{folder}", "--api-key-file", "{tmp}/blank"), 2, "holds no key"),
        (("{folder}", "--root-path", "llm"), 2, "begin with a slash"),
        (("{folder}", "--allowed-origin", "example.com"), 2, "is no origin"),
        (("{folder}", "--max-body-bytes", "0"), 2, "max_body_bytes=0"),
        (("{folder}", "--request-timeout-s", "-1"), 2, "request_timeout_s=-1"),
        (("{folder}", "--ssl-keyfile", "x.pem"), 2, "no certificate"),
        (("{folder}", "--otlp-endpoint", "here"), 2, "must be a URL"),
        (("{folder}", "--engine-placement", "moon"), 2, "process, thread"),
        (("{folder}", "--chat-template", "{tmp}/none"), 2, "No such file"),
        (("{folder}", "--chat-template", "{tmp}/broken"), 2, "not valid Jinja"),
        (("{folder}", "--chat-template-kwargs", "["), 2, "is not JSON"),
        (("{folder}", "--chat-template-kwargs", "[]"), 2, "not a JSON object"),
        (("{folder}", "--tool-call-parser", "herms"), 2, "Did you mean 'hermes'?"),
        (("{folder}", "--max-num-seqs", "0"), 2, "max_num_seqs=0"),
        (("{tmp}/nowhere",), 1, "nowhere"),
        (("{folder}", "--device", "cuda"), 1, "cuda"),
        (("{folder}", "--prot", "80"), 2, "--port"),
    ],
)
def test_what_cannot_be_is_said_in_one_message(
    octavo, tiny_folder, tmp_path, arguments, code, message
):
    (tmp_path / "blank").write_text("\n \n")
    (tmp_path / "broken").write_text("{% if %}")
    filled = [text.format(folder=tiny_folder, tmp=tmp_path) for text in arguments]
    _, error = octavo("serve", *filled, "--dry-run", code=code)
    assert message in " ".join(error.split())


def test_a_missing_package_gives_the_line_that_installs_it(octavo, tiny_folder, monkeypatch):
    import octavo.cli.serve as command

    monkeypatch.setattr(command, "_PACKAGES", ("fastapi", "not_there_at_all"))
    _, error = octavo("serve", tiny_folder, code=2)
    assert 'not_there_at_all, not installed here: pip install "octavo[serve]"' in error


def test_a_port_that_is_taken(octavo, fake):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        _, error = octavo("serve", *fake, "--port", port, code=1)
    assert f"port {port} is in use" in error


def test_a_host_that_is_not_here(octavo, fake):
    assert "not an address" in octavo("serve", *fake, "--host", "no.such.host.invalid", code=2)[1]
    assert "no network interface" in octavo("serve", *fake, "--host", "192.0.2.1", code=1)[1]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for localhost and its key, made for this run by the openssl command."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command, which makes the certificate, is not here")
    folder = tmp_path_factory.mktemp("tls")
    certfile, keyfile = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", keyfile, "-out", certfile, "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    return certfile, keyfile


def test_tls_files_that_cannot_be_used(octavo, fake, certificate, tmp_path):
    certfile, keyfile = certificate
    locked = tmp_path / "locked.pem"
    subprocess.run(
        ["openssl", "rsa", "-aes256", "-passout", "pass:x", "-in", keyfile, "-out", locked],
        check=True,
        capture_output=True,
    )
    for message, *flags in (
        ("there is no such file", "--ssl-certfile", tmp_path / "none.pem"),
        ("cannot be used for TLS", "--ssl-certfile", certfile),  # without its key
        ("cannot be used for TLS", "--ssl-certfile", keyfile),
        ("is encrypted", "--ssl-certfile", certfile, "--ssl-keyfile", locked),
    ):
        _, error = octavo("serve", *fake, "--port", 0, *flags, code=2)
        assert message in error


@pytest.mark.skipif(sys.platform == "win32", reason="a process group of POSIX ends the server")
def test_https_with_keys_from_a_file(fake, certificate, tmp_path):
    certfile, keyfile = certificate
    keys = tmp_path / "keys.txt"
    keys.write_text("sk-one\n\nsk-two\n")
    with ServedProcess(
        *(*fake, "--ssl-certfile", certfile, "--ssl-keyfile", keyfile, "--api-key-file", keys)
    ) as server:
        assert server.base_url.startswith("https://127.0.0.1:")
        trusting = ssl.create_default_context(cafile=certfile)
        with server.client(verify=trusting) as http:
            assert http.get("/health").status_code == 200
            assert http.get("/v1/models").status_code == 401
            shown = {"Authorization": "Bearer sk-two"}
            listed = http.get("/v1/models", headers=shown)
            assert listed.json()["data"][0]["id"] == fake[0].name
        with pytest.raises(httpx.HTTPError):
            httpx.get(server.base_url.replace("https", "http") + "/health", timeout=5)
        assert "sk-" not in server.log


def test_the_help_names_every_flag(octavo):
    from octavo.cli.options import ENGINE_OPTIONS
    from octavo.cli.serve_options import MODEL_OPTIONS, SERVER_OPTIONS

    help_text, _ = octavo("serve", "--help", COLUMNS="300")
    for option in (*MODEL_OPTIONS, *SERVER_OPTIONS):
        assert f"--{option.parameter.replace('_', '-')}" in help_text
    for option in (*MODEL_OPTIONS, *SERVER_OPTIONS, *ENGINE_OPTIONS):
        assert option.help in help_text  # with its default, which stands in brackets


def test_every_field_of_the_servers_options_has_a_flag():
    from octavo.cli.serve_options import SERVER_OPTIONS
    from octavo.cli.serve_plan import SERVER_FIELDS
    from octavo.server.config import ServerConfig

    flags = {SERVER_FIELDS.get(o.parameter, o.parameter) for o in SERVER_OPTIONS}
    fields = {field.name for field in dataclasses.fields(ServerConfig)}
    assert flags - {"api_key", "api_key_file"} == fields - {"api_keys"}


def test_the_command_starts_without_the_web(tiny_folder):
    """A dry run must work where octavo[serve] is not installed."""
    script = (
        "import sys\n"
        "for name in ('fastapi', 'starlette', 'uvicorn', 'prometheus_client'):\n"
        "    sys.modules[name] = None\n"
        "from octavo.cli.main import main\nmain()\n"
    )
    command = [sys.executable, "-c", script, *octavo_command("serve", tiny_folder, *ON_FAKE)[3:]]
    ended = subprocess.run(
        [*command, "--dry-run"], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    assert "it fits" in ended.stdout
