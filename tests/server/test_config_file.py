"""``octavo serve --config``: what a file may say, what it must not, and who wins over it."""

from __future__ import annotations

from pathlib import Path

import pytest

from octavo.cli.serve_file import ServeFile, read_serve_file
from octavo.cli.serve_plan import default_names, deployment_of
from octavo.errors import UsageError

FULL = """\
[server]
host = "::1"
port = 0
api_key = ["sk-file"]
allowed_origin = ["https://a.example", "*"]
management = false
page = false
request_timeout_s = 90        # a whole number where seconds are asked for
ssl_certfile = "tls.pem"
max_concurrent_requests = 8

[engine]
device = "cpu"
max_model_len = 2048
options = { threads = 2 }     # handed to the backend

[[models]]
model = "org/large"
served_model_name = ["large", "gpt-4o"]
device = "cuda:1"
tool_call_parser = "hermes"
chat_template_kwargs = '{"enable_thinking": false}'

[[models]]
model = "org/small"
enable_prefix_caching = false
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "serve.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def deploy(file, model=None, models=(), environ=None, **flags):
    flags = {"model": {}, "server": {}, "engine": {}, **flags}
    return deployment_of(model, models, flags, file, environ or {})


def test_a_file_says_all_that_flags_can(write):
    path = write(FULL)
    deployment = deploy(read_serve_file(path))
    server = deployment.server
    assert (server.host, server.port, server.api_keys) == ("::1", 0, ("sk-file",))
    assert server.allowed_origins == ("https://a.example", "*")
    assert (server.management, server.enable_page) == (False, False)
    assert server.request_timeout_s == 90
    assert server.ssl_certfile == Path("tls.pem")
    assert deployment.config_file == str(path)
    large, small = deployment.models
    assert large.names == ("large", "gpt-4o")
    assert (large.engine.device, large.engine.max_model_len) == ("cuda:1", 2048)
    assert large.engine.options == {"threads": 2}
    assert large.tool_call_parser == "hermes"
    assert large.template_variables == {"enable_thinking": False}
    assert (small.names, small.engine.device) == (("org/small",), "cpu")
    assert not small.engine.enable_prefix_caching


def test_flags_win_over_the_environment_and_both_over_the_file(write):
    file = read_serve_file(write(FULL))
    in_environment = {"OCTAVO_API_KEY": "sk-environment"}
    assert deploy(file, environ=in_environment).server.api_keys == ("sk-environment",)
    deployment = deploy(
        file,
        server={"api_key": ["sk-flag"], "port": 9},
        engine={"max_model_len": 64, "device": "fake"},
        environ=in_environment,
    )
    assert deployment.server.api_keys == ("sk-flag",)
    assert (deployment.server.port, deployment.server.host) == (9, "::1")
    assert [plan.engine.max_model_len for plan in deployment.models] == [64, 64]
    assert [plan.engine.device for plan in deployment.models] == ["fake", "fake"]


def test_a_model_on_the_command_line_takes_the_place_of_the_files(write):
    file = read_serve_file(write(FULL))
    (plan,) = deploy(file, model="org/other").models
    assert (plan.engine.model, plan.engine.max_model_len) == ("org/other", 2048)
    plans = deploy(file, models=["a=org/x,device=fake", "b=org/y"]).models
    assert [plan.names for plan in plans] == [("a",), ("b",)]
    assert [plan.engine.device for plan in plans] == ["fake", "cpu"]


def test_an_option_of_one_model_wins_over_that_of_all():
    (plan,) = deploy(ServeFile(), models=["a=x,dtype=float32"], engine={"dtype": "auto"}).models
    assert plan.engine.dtype == "float32"


def test_a_path_may_hold_commas_and_equal_signs():
    (plan,) = deploy(ServeFile(), models=["a=dir,1/b=2.gguf,Q4,block-size=8"]).models
    assert (plan.engine.model, plan.engine.block_size) == ("dir,1/b=2.gguf,Q4", 8)


def test_keys_come_from_files_too(tmp_path):
    (tmp_path / "keys").write_text("  sk-a \n\nsk-b\n")
    server = {"api_key": ["sk-c"], "api_key_file": [str(tmp_path / "keys")]}
    assert deploy(ServeFile(), model="x", server=server).server.api_keys == ("sk-c", "sk-a", "sk-b")
    config = deploy(ServeFile(), model="x", server=server).server
    assert "sk-" not in repr(config)


def test_names_that_nobody_gave(tmp_path):
    file = tmp_path / "Smol.Q4_1.gguf"
    file.touch()
    assert default_names(str(file)) == ["Smol.Q4_1", str(file)]
    assert default_names(str(tmp_path)) == [tmp_path.name, str(tmp_path)]
    assert default_names("org/name") == ["org/name"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server", "is not valid TOML"),
        ("[sever]", "unknown key 'sever' at the top level. Did you mean 'server'?"),
        ("port = 1", "unknown key 'port' at the top level"),
        ("[server]\nprot = 1", "unknown key 'prot' in [server]. Did you mean 'port'?"),
        ("[server]\nmodel = 'x'", "unknown key 'model' in [server]"),
        ("[server]\nport = '80'", "port in [server] is '80'; expected a whole number"),
        ("[server]\nport = 80.0", "expected a whole number"),
        ("[server]\nport = true", "expected a whole number"),
        ("[server]\npage = 1", "expected true or false"),
        ("[server]\nrequest_timeout_s = true", "expected a number"),
        ("[server]\nhost = 1", "expected a text"),
        ("[server]\napi_key = 'sk'", "expected a list of texts"),
        ("[server]\napi_key = [1]", "expected a list of texts"),
        ("server = 3", "[server] is 3; expected a table"),
        ("[engine]\ndevize = 'cpu'", "Did you mean 'device'?"),
        ("[engine]\noptions = 1", "expected a table"),
        ("[models]\nmodel = 'x'", "begin each model with [[models]]"),
        ("[[models]]\ndevice = 'cpu'", "[[models]] number 1 does not say which"),
        (
            "[[models]]\nmodel = 'x'\n[[models]]\nport = 1",
            "unknown key 'port' in [[models]] number 2",
        ),
    ],
)
def test_a_fault_in_a_file_is_named(write, text, message):
    path = write(text)
    with pytest.raises(UsageError) as caught:
        read_serve_file(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path, write):
    with pytest.raises(UsageError, match="No such file"):
        read_serve_file(tmp_path / "none.toml")
    path = write("")
    path.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_serve_file(path)


def test_a_served_queue_has_an_end_unless_it_is_set(write):
    assert deploy(ServeFile(), "model.gguf").models[0].engine.max_num_waiting == 1024
    flags = {"engine": {"max_num_waiting": 7}}
    assert deploy(ServeFile(), "model.gguf", **flags).models[0].engine.max_num_waiting == 7
    file = read_serve_file(write('[engine]\nmax_num_waiting = 9\n[[models]]\nmodel = "a"\n'))
    assert deploy(file).models[0].engine.max_num_waiting == 9
