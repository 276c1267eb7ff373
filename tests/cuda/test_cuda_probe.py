"""What `octavo devices` learns of NVIDIA GPUs, from a driver that is a stub of ours in C."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("octavo_cuda", reason="octavo-cuda is not installed")

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
CUDA_TORCH = (
    '__version__ = "2.13.0+cu130"\ncuda: Optional[str] = "13.0"\nhip: Optional[str] = None\n'
)
ASK = """
import json, sys
from octavo_cuda.probe import probe
found = probe()
devices = [[each.kind, each.index, each.name, each.total_bytes] for each in found.devices]
heavy = sorted({"torch", "numpy"} & set(sys.modules))
print(json.dumps([devices, found.reason, found.install, heavy]))
"""


@pytest.fixture(scope="module")
def stub_folder(tmp_path_factory):
    if COMPILER is None or not sys.platform.startswith("linux"):
        pytest.skip("the stub of the driver needs a C compiler and Linux")
    folder = tmp_path_factory.mktemp("driver")
    source = Path(__file__).with_name("stub_driver.c")
    command = [COMPILER, "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), str(source)]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture
def ask(stub_folder, tmp_path):
    """``ask(torch=version.py, NAME=VALUE...)``: (devices, reason, remedy)."""

    def ask(*, torch=CUDA_TORCH, driver=stub_folder, **variables):
        if torch is not None:
            package = tmp_path / "torch"
            package.mkdir()
            (package / "__init__.py").write_text("raise RuntimeError('torch was imported')\n")
            (package / "version.py").write_text(torch)
        environment = {**os.environ, "LD_LIBRARY_PATH": str(driver), **variables}
        if "CUDA_VISIBLE_DEVICES" not in variables:
            environment.pop("CUDA_VISIBLE_DEVICES", None)
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(tmp_path), environment.get("PYTHONPATH", "")]
        )
        command = [sys.executable, "-c", ASK]
        asked = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert asked.returncode == 0, asked.stderr
        devices, reason, install, heavy = json.loads(asked.stdout)
        assert heavy == []
        return devices, reason, install

    return ask


def test_every_gpu_is_listed(ask):
    devices, reason, _ = ask()
    assert reason is None
    assert devices == [["cuda", 0, "Stub GPU A", 1 << 34], ["cuda", 1, "Stub GPU B", 2 << 34]]


def test_a_gpu_that_is_too_old_is_left_out_and_keeps_its_number(ask):
    devices, _, _ = ask(STUB_CAPABILITY_0="61")
    assert devices == [["cuda", 1, "Stub GPU B", 2 << 34]]


CPU_TORCH = '__version__ = "2.13.0+cpu"\ncuda: Optional[str] = None\nhip: Optional[str] = None\n'
ROCM_TORCH = '__version__ = "2.13.0"\ncuda: Optional[str] = None\nhip: Optional[str] = "7.0"\n'
REFUSALS = {
    "no device": ({"STUB_STATUS": "100"}, "the NVIDIA driver finds no GPU", "nvidia-smi"),
    "hidden": (
        {"STUB_STATUS": "100", "CUDA_VISIBLE_DEVICES": "7"},
        "CUDA_VISIBLE_DEVICES='7' leaves no GPU",
        "unset CUDA_VISIBLE_DEVICES",
    ),
    "none": ({"STUB_COUNT": "0"}, "the NVIDIA driver finds no GPU", "--gpus all"),
    "mismatch": (
        {"STUB_STATUS": "803"},
        "cuInit gives 803 (the library and the kernel module are of different versions",
        "nvidia-smi",
    ),
    "unknown status": ({"STUB_STATUS": "777"}, "cuInit gives 777 (see CUresult", "nvidia-smi"),
    "torch for the CPU": (
        {"torch": CPU_TORCH},
        "torch 2.13.0+cpu is built for the CPU alone, not for CUDA",
        "CUDA build",
    ),
    "torch for ROCm": ({"torch": ROCM_TORCH}, "is built for ROCm 7.0, not for CUDA", "CUDA build"),
    "old driver": (
        {"STUB_VERSION": "12080"},
        "serves CUDA up to 12.8, and torch 2.13.0+cu130 is built for CUDA 13.0",
        "a newer driver",
    ),
    "old GPUs": (
        {"STUB_CAPABILITY_0": "61", "STUB_CAPABILITY_1": "70"},
        "7.5 is the least that is served, and there is Stub GPU A (6.1), Stub GPU B (7.0)",
        "--device cpu",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_missing_is_said_with_what_helps(ask, case):
    changes, reason, remedy = REFUSALS[case]
    devices, found_reason, install = ask(**changes)
    assert devices == []
    assert reason in found_reason
    assert remedy in install


def test_a_newer_minor_version_of_torch_is_no_obstacle(ask):
    newer = CUDA_TORCH.replace("13.0", "13.2")
    assert len(ask(torch=newer)[0]) == 2


def test_no_driver(ask, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    devices, reason, install = ask(driver=empty)
    if devices:
        pytest.skip("this machine has an NVIDIA driver of its own")
    assert reason == "there is no NVIDIA driver (libcuda.so.1 is not found)"
    assert "--gpus all" in install


def test_a_driver_that_crashes_does_not_take_us_along(ask):
    with pytest.raises(AssertionError, match="asking the NVIDIA driver ended with -6"):
        ask(STUB_CRASHES="1")
