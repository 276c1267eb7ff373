"""The whole suite on the CPU backends, run once for all tests that need its report."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from octavo_cpu.native.probe import probe

TIME_LIMIT_S = 240


@pytest.fixture(scope="session")
def numpy_report(tmp_path_factory):
    """The JSON of ``octavo conform numpy``, every gating check and case; it must pass."""
    return passing_report("numpy", tmp_path_factory.mktemp("numpy") / "report.json")


@pytest.fixture(scope="session")
def native_report(tmp_path_factory):
    """The same of ``octavo conform native``, where its kernels are built."""
    found = probe()
    if not found.devices:
        pytest.skip(f"native cannot run: {found.reason}")
    return passing_report("native", tmp_path_factory.mktemp("native") / "report.json")


@pytest.fixture(scope="session")
def torch_report(tmp_path_factory):
    """The same of ``octavo conform torch``, where torch is installed."""
    pytest.importorskip("torch", reason="torch is not installed (requirements/oracles.txt)")
    return passing_report("torch", tmp_path_factory.mktemp("torch") / "report.json")


@pytest.fixture(scope="session")
def jax_report(tmp_path_factory):
    """The same of ``octavo conform jax``, where JAX is installed; for slow tests."""
    pytest.importorskip("jax", reason="JAX is not installed (requirements/oracles.txt)")
    return passing_report("jax", tmp_path_factory.mktemp("jax") / "report.json", time_limit_s=1800)


def passing_report(backend, file, time_limit_s=TIME_LIMIT_S):
    command = [sys.executable, "-m", "octavo.cli.main", "conform", backend, "--no-performance"]
    ended = subprocess.run(
        [*command, "--output", str(file)],
        capture_output=True,
        encoding="utf-8",
        timeout=time_limit_s,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "op by op" not in ended.stderr  # what is checked are steps as they are served
    return json.loads(file.read_text("utf-8"))
