"""The command line and its listings: what they print, how they end, what they import."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from octavo.cli import tables
from octavo.cli.main import COMMANDS, app
from octavo.ops.names import OP_NAMES
from throwaway_plugins import install, run_octavo

FRAMEWORKS = ("torch", "jax", "jaxlib", "triton", "transformers", "numpy")


@pytest.fixture
def site(tmp_path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


def test_devices_shows_the_cpu_and_who_serves_it(site):
    ended = run_octavo(site, "devices")

    assert (ended.returncode, ended.stderr) == (0, "")
    (line,) = (line for line in ended.stdout.splitlines() if line.startswith("  cpu:0"))
    assert "numpy" in line
    assert "auto chooses this" in line
    (xpu,) = (line for line in ended.stdout.splitlines() if line.startswith("  xpu"))
    assert find_spec("octavo_xpu") or "pip install octavo-xpu" in xpu


def test_devices_in_json(site):
    install(site, "toy")
    listing = json.loads(run_octavo(site, "devices", "--json").stdout)

    assert set(listing) == {"policy", "devices", "unusable", "broken"}
    cpu, toy = listing["devices"]
    assert (cpu["kind"], cpu["index"], cpu["auto"]) == ("cpu", 0, True)
    # without compiled kernels, torch and jax NumPy serves alone
    known = ["native", "torch", "numpy", "jax"]
    assert cpu["backends"] == [name for name in known if name in cpu["backends"] or name == "numpy"]
    assert cpu["total_bytes"] > 2**20
    assert (toy["kind"], toy["name"], toy["auto"]) == ("toy", "a device", False)
    assert {"kind", "backend", "reason", "remedy"} == set(listing["unusable"][0])


def test_a_backend_without_devices_is_shown_with_its_remedy(site):
    source = (
        "@hookimpl\ndef octavo_register_backends(register):\n    register(spec(probe=lambda: "
        "Probe(reason='the driver is missing', install='pip install toy-driver')))\n"
    )
    install(site, "toy", source)

    (line,) = (
        line for line in run_octavo(site, "devices").stdout.splitlines() if line.startswith("  toy")
    )
    assert line.split("  ")[-1].strip() == "pip install toy-driver"
    assert "the driver is missing" in line


def test_a_plugin_cannot_send_control_characters_to_the_terminal(site):
    install(site, "nasty", "raise RuntimeError('\\x1b[31m red \\x07')")
    ended = run_octavo(site, "devices")

    assert "red" in ended.stdout
    assert "\x1b" not in ended.stdout
    assert "\x07" not in ended.stdout


def test_without_any_plugin_there_is_advice(site):
    (site / "none.toml").write_text("schema = 1\n[plugins]\nallow = ['nobody']\n", "utf-8")
    policy = str(site / "none.toml")

    devices = run_octavo(site, "devices", "--plugins-file", policy)
    assert devices.returncode == 0
    assert "No device can be used." in devices.stdout
    assert "pip install octavo-cpu" in devices.stdout

    ops = run_octavo(site, "ops", "--device", "cpu", "--plugins-file", policy)
    assert ops.returncode == 1
    assert "pip install octavo-cpu" in ops.stderr


def test_plugins_shows_the_cpu_plugin(site):
    records = json.loads(run_octavo(site, "plugins", "--json").stdout)["plugins"]
    (record,) = (record for record in records if record["name"] == "cpu")

    assert (record["name"], record["distribution"], record["status"]) == ("cpu", "octavo-cpu", "ok")
    assert record["version"] == version("octavo-cpu")
    assert [each["name"] for each in record["backends"]][:2] == ["native", "numpy"]


@pytest.mark.parametrize("place", ["before", "after", "variable"])
def test_the_plugins_file_is_taken_from_flag_and_variable(site, place):
    file = site / "my.toml"
    file.write_text("schema = 1\n[plugins]\nblock = ['octavo-cpu']\n", "utf-8")
    arguments = {
        "before": ("--plugins-file", str(file), "plugins", "--json"),
        "after": ("plugins", "--json", "--plugins-file", str(file)),
        "variable": ("plugins", "--json"),
    }[place]
    environ = {"OCTAVO_PLUGINS_FILE": str(file)} if place == "variable" else {}

    shown = json.loads(run_octavo(site, *arguments, environ=environ).stdout)

    assert shown["policy"] == str(file)
    assert shown["plugins"][0]["status"] == "blocked"


def test_ops_shows_each_op_with_its_implementation(site):
    ended = run_octavo(site, "ops", "--device", "cpu", "--backend", "numpy", "--json")

    shown = json.loads(ended.stdout)
    assert [each["op"] for each in shown["ops"]] == list(OP_NAMES)
    assert {each["distribution"] for each in shown["ops"]} == {"octavo", "octavo-cpu"}
    assert all(each["implementation"] and each["reason"] for each in shown["ops"])
    assert shown["backend"] == "numpy"


def test_ops_prints_the_choice_of_device_in_a_line(site):
    ended = run_octavo(site, "ops")
    assert re.match(r"cpu:0 through (native|numpy), chosen by auto: ", ended.stdout)


def test_an_error_is_one_message_without_a_traceback(site):
    ended = run_octavo(site, "ops", "--device", "cdua")

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("error: Unknown device kind 'cdua'. Did you mean 'cuda'?")
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("way", ["flag", "variable"])
def test_debug_adds_the_traceback(site, way):
    flags = ["--debug"] if way == "flag" else []
    environ = {"OCTAVO_DEBUG": "1"} if way == "variable" else {}
    ended = run_octavo(site, *flags, "ops", "--device", "cdua", environ=environ)

    assert ended.returncode == 1
    assert "Traceback" in ended.stderr
    assert "error: Unknown device kind" in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["devises"],
        ["devices", "--jsn"],
        ["--plugins-file", "absent.toml", "devices"],
        ["ops", "--attention-backend", "absent"],
    ],
)
def test_a_usage_error_ends_with_2(arguments):
    ended = CliRunner().invoke(app, arguments)

    assert ended.exit_code == 2
    assert "Traceback" not in ended.output
    assert ended.output


def test_a_misspelt_command_gets_a_suggestion():
    output = CliRunner().invoke(app, ["devises"]).output

    assert "No such command 'devises'. Did you mean 'devices'?" in output
    assert "generate" in output


def test_a_malformed_policy_names_the_file(site):
    (site / "bad.toml").write_text("schema = 1\n[plugin]\n", "utf-8")
    ended = run_octavo(site, "devices", "--plugins-file", str(site / "bad.toml"))

    assert ended.returncode == 1
    assert f"error: {site / 'bad.toml'}: unknown key 'plugin'" in ended.stderr
    assert "Did you mean 'plugins'?" in ended.stderr


def test_version(site):
    assert run_octavo(site, "--version").stdout == f"octavo {version('octavo')}\n"


def test_help_lists_every_command_and_imports_none(site):
    script = (
        "import sys\nsys.argv = ['octavo', '--help']\nfrom octavo.cli.main import app\n"
        "try: app()\nexcept SystemExit: pass\n"
        "print([m for m in sys.modules if m.startswith('octavo.')], file=sys.stderr)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "120"},
        check=True,
    )

    for name, entry in COMMANDS.items():
        assert f" {name} " in ended.stdout
        assert entry.help in ended.stdout
        assert repr(entry.function.partition(":")[0]) not in ended.stderr
    assert "octavo chat MODEL" in ended.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_imported_and_teaches(name):
    ended = CliRunner().invoke(app, [name, "--help"], prog_name="octavo")

    assert ended.exit_code == 0
    assert ended.output.count(f"octavo {name}") >= 2  # the usage, and at least one example
    assert "Examples" in ended.output


@pytest.mark.parametrize("arguments", [["devices"], ["plugins", "--json"], ["--version"]])
def test_listing_imports_no_framework(site, arguments):
    script = (
        f"import sys, atexit\nsys.argv = ['octavo', *{arguments!r}]\n"
        f"loaded = lambda: set({FRAMEWORKS!r}) & set(sys.modules)\n"
        "atexit.register(lambda: print(*loaded(), file=sys.stderr))\n"
        "from octavo.cli.main import main\nmain()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, encoding="utf-8", check=True
    )
    assert ended.stdout
    assert ended.stderr.split() == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send to one process")
@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_ends_quietly_with_130(site):
    started = site / "started"
    source = (
        f"def probe():\n    open({str(started)!r}, 'w').close()\n    time.sleep(3600)\n"
        "@hookimpl\ndef octavo_register_backends(register):\n    register(spec(probe=probe))\n"
    )
    install(site, "slow", source)
    process = subprocess.Popen(
        [sys.executable, "-m", "octavo.cli.main", "devices"],
        env={**os.environ, "PYTHONPATH": str(site), "OCTAVO_PROBE_TIMEOUT_S": "600"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not started.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    assert (process.returncode, out, err) == (130, "", "")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no closed pipes of this kind")
def test_a_closed_pipe_is_no_reason_for_noise(site):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "octavo.cli.main", "devices"],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writing)

    assert ended.stderr == ""
    assert ended.returncode == 1


class Terminal:
    """Standard output that says it is a terminal."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_drawn_table_with_the_same_cells(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")

    tables.print_table("Things", ("name", "why"), [("[bold]a", "because\x1b")])

    assert "─" in terminal.text
    assert "[bold]a" in terminal.text  # what a plugin wrote is no markup
    assert "because " in terminal.text


def test_a_pipe_gets_aligned_columns(capsys):
    tables.print_table("Things", ("name", "why"), [("a", "one"), ("longer", "two")])

    assert capsys.readouterr().out == "Things:\n  NAME    WHY\n  a       one\n  longer  two\n\n"


def test_an_empty_table_is_not_printed(capsys):
    tables.print_table("Things", ("name",), [])
    assert capsys.readouterr().out == ""
