"""``octavo conform``: what it runs, prints and exits with; that no backend can take it down."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import time

import pytest
from conform_toys import CASE_IDS, conform_command, environment, install_acme, run_conform

needs_posix = pytest.mark.skipif(os.name == "nt", reason="Windows ends processes otherwise")

BROKEN = """
import ctypes, os, sys, time

def misbehave(rows):
    if rows == 2:
        print("about to leave")
        os._exit(3)
    if rows == 3:
        ctypes.string_at(0)
    if rows == 4:
        time.sleep(3600)
    if rows == 5:
        sys.exit("enough")
    if rows == 6:
        raise ArithmeticError("no such kernel")
"""
DEADLY = ("rows=2", "rows=3", "rows=4", "rows=5", "rows=6")


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A run on a backend that fails in every way, and its JSON."""
    site = tmp_path_factory.mktemp("broken") / "site"
    site.mkdir()
    install_acme(site, BROKEN)
    ended = run_conform(site, "acme", "--timeout", "2", "--output", "report.json")
    return ended, json.loads((site / "report.json").read_text("utf-8"))


def statuses(record):
    return {result["id"]: result["status"] for result in record["results"]}


def result_of(record, case_id):
    (result,) = (each for each in record["results"] if each["id"] == case_id)
    return result


def test_a_good_backend_passes(site):
    install_acme(site)
    ended = run_conform(site, "acme")

    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    (row,) = (line.split() for line in lines if "linear multiplies. " in line)
    assert row == ["linear", "linear", "multiplies.", "9", "-", "-", "1"]
    assert "caps.quantization has no int8" in ended.stdout
    summary = "acme (octavo-acme 1.0) on toy:0: 11 passed, 0 failed, 1 unclaimed, 1 measured in"
    assert lines[-1].startswith(summary)
    assert "ops: 10 passed, 1 unclaimed of 11" in ended.stderr.splitlines()


def test_speed_is_shown_beside_its_limit_and_never_fails(site):
    install_acme(site)
    ended = run_conform(site, "acme", "--section", "performance")

    assert ended.returncode == 0
    (row,) = (line for line in ended.stdout.splitlines() if "1x3" in line)
    # 2 MB in a millisecond, where 4 GB/s can be had; a limit that is not finite is no limit.
    assert row.split() == ["linear", "1x3", "1", "ms", "2", "4", "50", "%", "3", "-", "-"]
    assert "The clock stands still." in ended.stdout


def test_whatever_a_kernel_does_is_one_failed_case(broken):
    ended, record = broken

    assert ended.returncode == 1
    failed = {f"ops.linear[{label}]" for label in DEADLY}
    expected = dict.fromkeys(CASE_IDS, "passed") | dict.fromkeys(failed, "failed")
    expected |= {"ops.linear[int8]": "unclaimed", "performance.linear[1x3]": "measured"}
    assert statuses(record) == {**expected, "performance.linear[stuck]": "failed"}


def test_it_says_how_the_process_ended(broken):
    _, record = broken

    message = result_of(record, "ops.linear[rows=2]")["message"]
    assert message.startswith("The process ended itself with exit code 3 in this case.")
    assert "about to leave" in message
    message = result_of(record, "ops.linear[rows=4]")["message"]
    assert message.startswith("No answer within 2 s in this case; the process was ended.")
    assert "in misbehave" in message  # where it hung
    assert result_of(record, "ops.linear[rows=5]")["message"].startswith("SystemExit: enough")


@needs_posix
def test_it_names_the_signal_and_the_place(broken):
    _, record = broken

    message = result_of(record, "ops.linear[rows=3]")["message"]
    assert message.startswith("The process died of signal 11 (SIGSEGV) in this case.")
    assert "in misbehave" in message


def test_each_failure_says_where_to_look(broken):
    ended, record = broken

    for label in DEADLY:
        result = result_of(record, f"ops.linear[{label}]")
        assert result["look"] == "ops.linear, backend.put_linear"
        places = result["where"].split(", ")
        assert places[0].startswith("octavo_acme/plugin.py:")
        assert places[0].endswith(" load.<locals>.AcmeOps.linear")
        assert places[1].endswith(" PlainBackend.put_linear")
        assert result["where"].split(", ")[0] in ended.stdout


def test_the_line_that_runs_one_case_again_runs_that_case(site, broken):
    ended, _ = broken
    lines = [line for line in ended.stdout.splitlines() if line.startswith("  again ")]
    words = shlex.split(lines[0])
    assert words[:4] == ["again", "octavo", "conform", "acme"]

    install_acme(site)
    again = run_conform(site, *words[3:], "--json")

    assert again.returncode == 0
    assert statuses(json.loads(again.stdout)) == {"ops.linear[rows=2]": "passed"}


@needs_posix
def test_a_kernel_that_hangs_with_the_interpreter_locked_is_ended(site):
    source = "import ctypes\ndef misbehave(rows):\n    ctypes.PyDLL(None).sleep(3600)\n"
    install_acme(site, source)
    ended = run_conform(site, "acme", "-k", "ops.linear[rows=1]", "--timeout", "1")

    assert ended.returncode == 1
    assert "No answer within 1 s in this case" in ended.stdout


def test_the_json_is_complete(broken):
    _, record = broken

    assert set(record) == {
        "schema", "octavo", "api_version", "backend", "distribution", "device",
        "attention_backend", "capabilities", "platform", "quick", "sections", "pattern",
        "checks", "results", "summary", "started", "duration_s", "interrupted",
    }  # fmt: skip
    assert record["schema"] == 1
    assert record["distribution"] == {"name": "octavo-acme", "version": "1.0"}
    assert (record["device"]["kind"], record["device"]["index"]) == ("toy", 0)
    assert record["capabilities"]["dtypes"][0] == "float32"
    assert set(record["platform"]) == {"python", "numpy", "system", "machine"}
    assert [result["id"] for result in record["results"]] == CASE_IDS
    summary = record["summary"]
    assert summary == {
        "passed": 6, "failed": 6, "unclaimed": 1, "measured": 1, "gap": 0, "blocked": 0, "ok": False
    }  # fmt: skip
    measured = result_of(record, "performance.linear[1x3]")["measured"]
    assert measured["operations"] == 3e6
    assert measured["operations_per_s_limit"] is None  # infinite, which JSON cannot say


def test_what_a_backend_prints_does_not_reach_the_json(site):
    source = (
        "import os\ndef misbehave(rows):\n    print('{\"chatty\": 1}')\n"
        "    os.write(1, b'from below\\n')\n    print('read', repr(os.read(0, 100)))\n"
    )
    install_acme(site, source)
    ended = run_conform(site, "acme", "--quick", "--json")

    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["summary"]["failed"] == 0
    for text in ('{"chatty": 1}', "from below", "read b''"):
        assert text in ended.stderr


@pytest.mark.parametrize("noise", ["noise", "[1]", "[" * 100_000])
def test_what_a_kernel_writes_to_every_file_is_one_failed_case(site, noise):
    source = (
        f"import os\nNOISE = {noise!r}.encode() + b'\\n'\n"
        "def misbehave(rows):\n    for file in range(3, 30) if rows == 2 else ():\n"
        "        try:\n            os.write(file, NOISE)\n"
        "        except OSError:\n            pass\n"
    )
    install_acme(site, source)
    ended = run_conform(site, "acme", "-k", "ops.linear", "--json")

    found = json.loads(ended.stdout)
    assert [each for each in statuses(found).values() if each != "passed"] == [
        "failed",
        "unclaimed",
    ]
    message = result_of(found, "ops.linear[rows=2]")["message"]
    assert f"The process wrote no answer but '{noise[:20]}" in message


def test_listing_the_cases_runs_none(site):
    install_acme(site, "import os\ndef misbehave(rows):\n    os._exit(3)\n")
    ended = run_conform(site, "acme", "--list", "--section", "ops")

    assert ended.returncode == 0
    lines = [line.split("  ") for line in ended.stdout.splitlines() if line.startswith("  ops")]
    assert [line[1] for line in lines] == CASE_IDS[1:-2]
    assert "not claimed: caps.quantization has no int8" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("acne",), "Did you mean 'acme'?"),
        ((), "Name a backend: octavo conform NAME. Installed: acme, "),
        (("acme", "-k", "ops.linaer"), "Did you mean 'ops.linear'?"),
        (("acme", "--attention-backend", "none"), "none"),
        (("acme", "--output", "nowhere/report.json"), "whose folder does not exist"),
        (("--list", "-k", "linaer"), "No check matches 'linaer'."),
    ],
)
def test_a_wrong_flag_ends_with_2(site, arguments, said):
    install_acme(site)
    ended = run_conform(site, *arguments)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_broken_plugin_is_no_wrong_flag(site):
    install_acme(site, "raise RuntimeError('imported')")
    ended = run_conform(site, "acme")

    assert (ended.returncode, ended.stdout) == (1, "")
    assert "Plugin 'acme' of octavo-acme is broken" in ended.stderr


@needs_posix
def test_a_terminal_gets_a_line_for_each_section(site):
    import pty  # not on Windows

    install_acme(site)
    reading, writing = pty.openpty()
    with os.fdopen(reading, encoding="utf-8", errors="replace") as terminal:
        ended = subprocess.run(
            conform_command("acme"),
            env={**environment(site), "TERM": "xterm", "COLUMNS": "100"},
            cwd=site,
            stdout=subprocess.PIPE,
            stderr=writing,
            timeout=120,
            check=False,
        )
        os.close(writing)
        shown = ""
        with contextlib.suppress(OSError):  # how Linux says that nobody writes any more
            while piece := terminal.readline():
                shown += piece

    assert ended.returncode == 0
    for section, count in (("contract", "1/1"), ("ops", "11/11"), ("performance", "2/2")):
        assert re.search(rf"{section} .*{count}", shown), shown
    assert "1 failed" in shown  # the clock that stands still
    assert b"1x3" in ended.stdout


def test_listing_the_checks_loads_nothing(site):
    install_acme(site, "raise RuntimeError('imported')")
    ended = run_conform(site, "--list", "--section", "ops,contract")

    assert (ended.returncode, ended.stderr) == (0, "")
    ids = [line.split()[0] for line in ended.stdout.splitlines() if line.startswith("  ")]
    assert ids == ["CHECK", "contract.name", "CHECK", "ops.linear", "ops.linear_again"]


def test_stopping_at_the_first_failure(site):
    install_acme(site, BROKEN)
    ended = run_conform(site, "acme", "-x", "--json")

    assert ended.returncode == 1
    assert list(statuses(json.loads(ended.stdout))) == CASE_IDS[:3]


@pytest.mark.parametrize(
    ("load", "said"),
    [
        ("raise RuntimeError('no driver')", "RuntimeError: no driver"),
        ("import os; os._exit(7)", "ended itself with exit code 7 while the backend was loaded"),
    ],
)
def test_a_backend_that_cannot_be_loaded_blocks_all_but_the_contract(site, load, said):
    install_acme(site, f"def load(index, options):\n    {load}\n")
    ended = run_conform(site, "acme", "--json")

    assert ended.returncode == 1
    record = json.loads(ended.stdout)
    blocked = ["ops.linear", "ops.linear_again", "performance.linear"]
    assert statuses(record) == {"contract.name": "passed", **dict.fromkeys(blocked, "blocked")}
    assert [result["id"] for result in record["results"]] == ["contract.name", *blocked]
    assert said in result_of(record, "ops.linear")["message"]
    assert record["capabilities"] is None


def test_the_first_failure_is_why_a_backend_cannot_be_loaded_and_not_what_that_blocks(site):
    install_acme(site, "def load(index, options):\n    raise RuntimeError('no driver')\n")
    ended = run_conform(site, "acme", "-x", "--json", checks="LOADING_CHECKS")

    assert ended.returncode == 1
    (result,) = json.loads(ended.stdout)["results"]
    assert (result["id"], result["status"]) == ("contract.loads", "failed")
    assert result["message"] == "It does not load: no driver"


def test_a_load_that_ends_the_process_is_not_tried_again(site):
    source = (
        "import os\ndef load(index, options):\n"
        "    with open('loads', 'a') as loads:\n        loads.write('.')\n    os._exit(7)\n"
    )
    install_acme(site, source)
    ended = run_conform(site, "acme", "--json", checks="LOADING_CHECKS")

    record = json.loads(ended.stdout)
    assert statuses(record)["contract.loads"] == "failed"
    result = result_of(record, "contract.loads")
    assert "ended itself with exit code 7 while the backend was loaded" in result["message"]
    assert result["where"].startswith("octavo_acme/plugin.py:")
    assert (site / "loads").read_text("utf-8") == "."


def test_what_blocks_much_is_told_once(site):
    source = (
        "import os\ndef misbehave(rows):\n    open('gone', 'w').close()\n    os._exit(3)\n"
        "whole_load = load\n"
        "def load(index, options):\n    if os.path.exists('gone'):\n"
        "        raise RuntimeError('the device has fallen off the bus')\n"
        "    return whole_load(index, options)\n"
    )
    install_acme(site, source)
    ended = run_conform(site, "acme", "--no-performance")

    (line,) = (line for line in ended.stdout.splitlines() if line.startswith("BLOCKED"))
    assert line == "BLOCKED 9 times, in ops.linear, ops.linear_again"
    assert ended.stdout.count("fallen off the bus") == 1
    assert ended.stderr.count("BLOCKED") == 1


def test_a_plugin_that_ends_the_process_is_an_error_and_no_crash(site):
    install_acme(site, "import os; os._exit(9)")
    ended = run_conform(site, "acme")

    assert (ended.returncode, ended.stdout) == (1, "")
    assert "ended itself with exit code 9 while plugins were loaded" in ended.stderr


def test_a_device_that_a_crash_took_along_is_not_the_next_cases_failure(site):
    source = (
        "import os\ndef misbehave(rows):\n    if rows == 2:\n"
        "        open('gone', 'w').close()\n        os._exit(3)\n"
        "whole_load = load\n"
        "def load(index, options):\n    if os.path.exists('gone'):\n"
        "        raise RuntimeError('the device has fallen off the bus')\n"
        "    return whole_load(index, options)\n"
    )
    # The hook that registers ``load`` looks it up when it is called: after this.
    install_acme(site, source)
    ended = run_conform(site, "acme", "-k", "ops.linear", "--json")

    found = json.loads(ended.stdout)
    assert list(statuses(found).values())[:4] == ["passed", "failed", "blocked", "blocked"]
    assert "fallen off the bus" in result_of(found, "ops.linear[rows=3]")["message"]


@needs_posix
@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_ends_both_processes_and_shows_what_is_known(site):
    source = (
        "import os, time\ndef misbehave(rows):\n    if rows == 3:\n"
        "        open('started', 'w').write(str(os.getpid()))\n        time.sleep(3600)\n"
    )
    install_acme(site, source)
    process = subprocess.Popen(
        conform_command("acme", "--output", "report.json"),
        env=environment(site),
        cwd=site,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    started = site / "started"
    while not (started.exists() and started.read_text()):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)

    assert process.returncode == 130, err
    assert "3 passed, 0 failed" in out.splitlines()[-1]
    assert "Interrupted" in out.splitlines()[-1]
    assert "Traceback" not in err
    assert "interrupted in ops.linear[rows=3]" in err.splitlines()
    record = json.loads((site / "report.json").read_text("utf-8"))
    assert (record["interrupted"], record["summary"]["ok"]) == (True, False)
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)
