"""Models divided among devices of JAX: eight of the host's against one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jax", reason="JAX is not installed")
pytest.importorskip("octavo_tpu.group", reason="octavo-tpu is not installed")

FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
TOLERANCE = 1e-5


def run(program, *arguments):
    """What a program prints as JSON, in a process that sees eight devices."""
    environment = {**os.environ, "XLA_FLAGS": FLAGS, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, Path(__file__).with_name(program), *arguments]
    ended = subprocess.run(
        command, check=False, env=environment, capture_output=True, text=True, timeout=240
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_several_devices_are_one():
    """{case: (largest difference of logits, whether greedy tokens are those of one device)}."""
    found = run("group_process.py")
    assert set(found) == {"llama 2", "llama 4", "llama 8", "olmo2 4"}
    for case, (difference, same_tokens) in found.items():
        assert difference < TOLERANCE, case
        assert same_tokens, case


def test_an_engine_on_eight_devices():
    """Forks and blocks that go to the host and back, with tokens that are drawn."""
    whole, eighth = run("engine_process.py", "1", "8").values()
    assert eighth == whole
    _, num_swaps = whole
    assert num_swaps > 0
