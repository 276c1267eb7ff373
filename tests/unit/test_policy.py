"""plugins.toml: which file decides, what it may say, and how it is refused."""

from __future__ import annotations

import dataclasses
import sys
import tomllib
from pathlib import Path

import pytest

import octavo
from octavo.errors import PluginError
from octavo.policy import find_policy_file, load_policy

REPO_ROOT = Path(__file__).resolve().parents[2]

FULL = """
schema = 1
[devices]
order = ["neuron", "cpu"]
cpu = ["native", "numpy"]
neuron = ["neuron"]
[plugins]
block = ["octavo-bad"]
allow = ["cpu", "neuron"]
[ops.cpu]
paged_attention = ["flash", "portable"]
rms_norm = ["portable"]
[ops.numpy]
rms_norm = ["numpy"]
[options.numpy]
threads = 4
nested = {a = [1, 2]}
"""


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A working directory and a configuration folder of the test's own, both empty."""
    work, config = tmp_path / "work", tmp_path / "config"
    work.mkdir()
    (config / "octavo").mkdir(parents=True)
    monkeypatch.chdir(work)
    monkeypatch.delenv("OCTAVO_PLUGINS_FILE", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config))
    return tmp_path


def write(path: Path, text: str = "schema = 1\n") -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def refusal(tmp_path: Path, text: str) -> str:
    """What the error says about a file with this text; the file's path is part of it."""
    path = write(tmp_path / "refused.toml", text)
    with pytest.raises(PluginError) as error:
        load_policy(path)
    assert str(path) in str(error.value)
    return str(error.value)


def test_every_field_is_read(places):
    policy = load_policy(write(places / "full.toml", FULL))

    assert policy.path == str(places / "full.toml")
    assert policy.device_order == ("neuron", "cpu")
    assert policy.backend_order == {"cpu": ("native", "numpy"), "neuron": ("neuron",)}
    assert (policy.block, policy.allow) == (("octavo-bad",), ("cpu", "neuron"))
    assert policy.options == {"numpy": {"threads": 4, "nested": {"a": [1, 2]}}}


def test_a_backends_own_op_preferences_win_over_its_kinds(places):
    policy = load_policy(write(places / "full.toml", FULL))

    assert policy.ops_for("numpy", "cpu") == {
        "paged_attention": ("flash", "portable"),
        "rms_norm": ("numpy",),
    }
    assert policy.ops_for("torch", "cpu")["rms_norm"] == ("portable",)
    assert policy.ops_for("cuda", "cuda") == {}


def test_a_policy_cannot_be_changed(places):
    policy = load_policy(write(places / "full.toml", FULL))

    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.block = ()
    with pytest.raises(TypeError):
        policy.options["numpy"]["threads"] = 5


def test_a_short_file_has_the_documented_defaults(places):
    policy = load_policy(write(places / "short.toml"))

    assert policy.device_order == ("cuda", "rocm", "tpu", "xpu", "cpu")
    assert (policy.block, policy.allow, dict(policy.ops), dict(policy.options)) == ((), (), {}, {})


def test_the_first_file_found_decides_alone(places, monkeypatch):
    packaged = Path(octavo.__file__).with_name("plugins.toml")
    assert find_policy_file() == packaged

    in_config = write(places / "config" / "octavo" / "plugins.toml")
    assert find_policy_file() == in_config

    in_work = write(places / "work" / "plugins.toml")
    assert find_policy_file() == in_work

    by_variable = write(places / "variable.toml")
    monkeypatch.setenv("OCTAVO_PLUGINS_FILE", str(by_variable))
    assert find_policy_file() == by_variable

    by_flag = write(places / "flag.toml")
    assert find_policy_file(by_flag) == by_flag


def test_an_empty_variable_is_no_variable(places, monkeypatch):
    monkeypatch.setenv("OCTAVO_PLUGINS_FILE", "")
    assert find_policy_file().parent == Path(octavo.__file__).parent


@pytest.mark.parametrize(
    ("platform", "variable", "place"),
    [
        ("linux", "XDG_CONFIG_HOME", "octavo"),
        ("win32", "APPDATA", "octavo"),
        ("linux", "HOME", ".config/octavo"),
        ("darwin", "HOME", "Library/Application Support/octavo"),
    ],
)
def test_the_users_folder_is_the_systems(places, monkeypatch, platform, variable, place):
    home = places / "somebody"
    monkeypatch.setattr(sys, "platform", platform)
    for name in ("XDG_CONFIG_HOME", "APPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(home))
    monkeypatch.setattr(Path, "expanduser", lambda path: Path(str(path).replace("~", str(home))))
    (home / place).mkdir(parents=True)
    expected = write(home / place / "plugins.toml")

    assert find_policy_file() == expected


@pytest.mark.parametrize("source", ["--plugins-file", "$OCTAVO_PLUGINS_FILE"])
def test_a_file_that_was_named_must_exist(places, monkeypatch, source):
    absent = str(places / "absent.toml")
    if source == "--plugins-file":
        write(places / "work" / "plugins.toml")
    else:
        monkeypatch.setenv("OCTAVO_PLUGINS_FILE", absent)

    with pytest.raises(PluginError) as error:
        load_policy(absent if source == "--plugins-file" else None)

    assert f"{source} names {absent}" in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "schema = 1\n[devces]\n",
            "unknown key 'devces' in the top level. Did you mean 'devices'?",
        ),
        ("schema = 1\n[plugins]\nblok = []\n", "'blok' in [plugins]. Did you mean 'block'?"),
        ("schema = 1\n[devices]\nordr = []\n", "'ordr' in [devices]. Did you mean 'order'?"),
        ("schema = 1\n[devices]\ncpy = []\n", "'cpy' in [devices]. Did you mean 'cpu'?"),
        (
            "schema = 1\n[ops.numpy]\npaged_atention = []\n",
            "'paged_atention' in [ops.numpy]. Did you mean 'paged_attention'?",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_a_suggestion(tmp_path, text, message):
    assert message in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema = 1\n[devices]\norder = 'cpu'\n", "[devices] order is 'cpu'; expected a list"),
        ("schema = 1\n[devices]\norder = ['cpu', 'cpu']\n", "order lists cpu more than once"),
        ("schema = 1\n[devices]\ncpu = [1]\n", "[devices] cpu is [1]; expected a list of names"),
        ("schema = 1\n[plugins]\nallow = ['']\n", "[plugins] allow is ['']"),
        ("schema = 1\ndevices = 3\n", "devices is 3; expected a table [devices]"),
        ("schema = 1\n[ops]\ncpu = ['a']\n", "ops.cpu is ['a']; expected a table [ops.cpu]"),
        ("schema = 1\n[options]\ncpu = 1\n", "options.cpu is 1; expected a table [options.cpu]"),
        ("schema = 1\n[ops.cpu]\nattend = 'x'\n", "[ops.cpu] attend is 'x'; expected a list"),
        ("[devices]\n", "begin it with `schema = 1`"),
        ("schema = 2\n", "has schema = 2; this octavo reads schema = 1"),
        ("schema = true\n", "has schema = True"),
        ("schema = 1\n[devices\n", "line 2"),
    ],
)
def test_a_malformed_file_is_refused_with_the_place(tmp_path, text, message):
    assert message in refusal(tmp_path, text)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PluginError, match="not UTF-8"):
        load_policy(path)


def test_the_repositorys_file_is_the_packaged_default():
    packaged = Path(octavo.__file__).with_name("plugins.toml")
    assert (REPO_ROOT / "plugins.toml").read_text("utf-8") == packaged.read_text("utf-8")


def test_the_default_says_what_the_design_says():
    default = tomllib.loads((REPO_ROOT / "plugins.toml").read_text("utf-8"))

    assert default["devices"]["order"] == ["cuda", "rocm", "tpu", "xpu", "cpu"]
    assert default["devices"]["cpu"] == ["native", "torch", "numpy"]
    for kind in ("cuda", "rocm", "xpu"):
        assert default["devices"][kind] == [kind], "its own kernels before what JAX has for it"
    assert default["plugins"] == {"block": [], "allow": []}
    policy = load_policy(REPO_ROOT / "plugins.toml")
    order = policy.ops_for("cuda", "cuda")["paged_attention"]
    assert order == ("flashinfer", "triton", "sdpa")
    assert policy.ops_for("rocm", "rocm")["paged_attention"] == ("triton", "sdpa")


def test_the_examples_in_the_defaults_comments_are_valid(tmp_path):
    text = (REPO_ROOT / "plugins.toml").read_text("utf-8")
    examples = [line[2:] for line in text.splitlines() if line.startswith(("# [", "# graph"))]
    policy = load_policy(write(tmp_path / "examples.toml", "schema = 1\n" + "\n".join(examples)))

    assert policy.options["cuda"]["graph_batch_sizes"] == [1, 2, 4, 8, 16, 32]
