"""Progress of loading: lines in a pipe, a bar on a terminal, nothing when quick or quiet."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import pytest

from octavo.loading import load_progress, progress


@pytest.fixture
def clock(monkeypatch):
    """Time that goes on by two seconds whenever it is looked at."""
    ticks = itertools.count(step=2)
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(ticks)))


def test_a_quick_load_is_silent(capsys):
    with load_progress(100, "model") as on_bytes:
        on_bytes(100)
    assert capsys.readouterr() == ("", "")


def test_a_long_load_prints_lines_in_a_pipe(capsys, clock):
    with load_progress(200_000_000, "model") as on_bytes:
        for _ in range(8):
            on_bytes(25_000_000)
    out, err = capsys.readouterr()
    assert out == ""  # standard output belongs to answers
    first, *_, last = lines = err.splitlines()
    assert first == "loading model: 12 % of 200 MB"
    assert 3 <= len(lines) <= 6
    assert last.startswith("loaded model: 200 MB in ")


def test_a_failed_load_does_not_hide_its_error(clock):
    def load():
        with load_progress(0, "model") as on_bytes:
            on_bytes(1)
            raise RuntimeError("disk gone")

    with pytest.raises(RuntimeError, match="disk gone"):
        load()


def test_quiet_is_silent(capsys, clock):
    with load_progress(100, "model", quiet=True) as on_bytes:
        on_bytes(50)
        on_bytes(50)
    assert capsys.readouterr() == ("", "")


SCRIPT = """
import time
from octavo.loading import load_progress
with load_progress(4_000_000, "tiny") as on_bytes:
    for _ in range(4):
        time.sleep(0.2)
        on_bytes(1_000_000)
"""


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="a pseudo-terminal needs a Unix")
def test_a_terminal_shows_a_bar():
    ours, theirs = os.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        check=False,
        stderr=theirs,
        stdout=subprocess.PIPE,
        env=environment,
    )
    shown = os.read(ours, 1 << 16).decode()  # before closing: some systems drop what is unread
    os.close(theirs)
    os.close(ours)
    assert result.returncode == 0
    assert result.stdout == b""
    assert "loading tiny" in shown
    assert "MB" in shown
