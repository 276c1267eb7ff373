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


@pytest.fixture(scope="module")
def found():
    """{case: (largest difference of logits, whether greedy tokens are those of one device)}."""
    program = Path(__file__).with_name("group_process.py")
    environment = {**os.environ, "XLA_FLAGS": FLAGS, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, program]
    run = subprocess.run(
        command, check=False, env=environment, capture_output=True, text=True, timeout=240
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("case", ["llama 2", "llama 4", "llama 8", "olmo2 4"])
def test_several_devices_are_one(found, case):
    difference, same_tokens = found[case]
    assert difference < TOLERANCE
    assert same_tokens
