"""The whole suite on the NumPy backend, run once for all tests that need its report."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

TIME_LIMIT_S = 240


@pytest.fixture(scope="session")
def numpy_report(tmp_path_factory):
    """The JSON of ``octavo conform numpy``, every gating check and case; it must pass."""
    file = tmp_path_factory.mktemp("numpy") / "report.json"
    command = [sys.executable, "-m", "octavo.cli.main", "conform", "numpy", "--no-performance"]
    ended = subprocess.run(
        [*command, "--output", str(file)],
        capture_output=True,
        encoding="utf-8",
        timeout=TIME_LIMIT_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return json.loads(file.read_text("utf-8"))
