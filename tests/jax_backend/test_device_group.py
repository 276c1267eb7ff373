"""Models divided among devices of JAX: eight of the host's against one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jax", reason="JAX is not installed")
pytest.importorskip("octavo_tpu.group", reason="octavo-tpu is not installed")

from octavo.api import BackendError, UsageError
from octavo_tpu.processes import join_processes

FLAGS = "--xla_backend_optimization_level=0"  # compiles in half the time
TOLERANCE = 1e-5


def start(program, *arguments, num_devices=8, **environment):
    """A program in a process that sees so many devices."""
    flags = f"--xla_force_host_platform_device_count={num_devices} {FLAGS}"
    return subprocess.Popen(
        [sys.executable, Path(__file__).with_name(program), *arguments],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process):
    """What it prints as JSON in the end."""
    try:
        stdout, stderr = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, stderr
    return json.loads(stdout.splitlines()[-1])


def free_address():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return f"localhost:{probe.getsockname()[1]}"


@pytest.fixture(scope="module")
def engines():
    return result(start("engine_process.py", "1,8,2 pallas"))


def test_several_devices_are_one():
    """{case: (largest difference of logits, whether greedy tokens are those of one device)}."""
    found, (weights_at_once, weights_in_all) = result(start("group_process.py"))
    assert weights_at_once < weights_in_all / 3, "loaded one by one"
    assert set(found) == {"llama 2", "llama 4", "llama 8", "olmo2 4"}
    for case, (difference, same_tokens) in found.items():
        assert difference < TOLERANCE, case
        assert same_tokens, case


def test_an_engine_on_several_devices(engines):
    """Forks and blocks that go to the host and back, with tokens that are drawn."""
    assert engines["8"] == engines["1"]
    assert engines["2 pallas"] == engines["1"], "caches of rows, and the TPU's kernels"
    _, num_swaps = engines["1"]
    assert num_swaps > 0


def test_two_processes_with_two_devices_each(engines):
    """The second one follows, and both end. One is told by its environment, one by options."""
    address = free_address()
    known = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}
    processes = [
        start("engine_process.py", "4", num_devices=2, **known),
        start("engine_process.py", "4", address, num_devices=2),
    ]
    first, second = map(result, processes)
    tokens, _ = first["4"]
    assert tokens == engines["1"][0]
    assert second == {}


def test_a_process_whose_first_one_never_comes(monkeypatch):
    monkeypatch.setattr("octavo_tpu.processes._START_S", 0)
    with pytest.raises(BackendError, match="does not answer at localhost:"):
        join_processes(free_address(), 2, 1)


@pytest.mark.parametrize("address", ["host", ":80", "host:", "host:http", "host:0", "host:65536"])
def test_an_address_that_is_none(address):
    with pytest.raises(UsageError, match="expected HOST:PORT of the first process"):
        join_processes(address, 2, 1)
