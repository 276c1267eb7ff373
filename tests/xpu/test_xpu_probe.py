"""What `octavo devices` learns of Intel GPUs, from a sysfs and a Level Zero of our own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("octavo_xpu", reason="octavo-xpu is not installed")

from octavo_xpu.graphics_cards import graphics_cards

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
VERSION = (
    '__version__ = "2.13.0+{build}"\ncuda: Optional[str] = {cuda}\nxpu: Optional[str] = {xpu}\n'
)
XPU_TORCH = VERSION.format(build="xpu", cuda=None, xpu="'20250302'")
ASK = """
import json, sys
from pathlib import Path
from octavo_xpu.probe import probe
found = probe(Path(sys.argv[1]))
devices = [[each.kind, each.index, each.name, each.total_bytes] for each in found.devices]
heavy = sorted({"torch", "numpy"} & set(sys.modules))
print(json.dumps([devices, found.reason, found.install, heavy]))
"""


@pytest.fixture(scope="module")
def stub_folder(tmp_path_factory):
    if COMPILER is None or not sys.platform.startswith("linux"):
        pytest.skip("the stub of Level Zero needs a C compiler and Linux")
    folder = tmp_path_factory.mktemp("level_zero")
    source = Path(__file__).with_name("stub_level_zero.c")
    command = [COMPILER, "-shared", "-fPIC", "-o", str(folder / "libze_loader.so.1"), str(source)]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture
def machine(tmp_path):
    """``machine(vendor, ...)``: the root of a tree with a render node for each."""

    def build(*vendors):
        root = tmp_path / "root"
        (root / "dev/dri").mkdir(parents=True)
        (root / "sys/class/drm").mkdir(parents=True)
        (root / "sys/bus/pci/drivers/xe").mkdir(parents=True)
        for index, vendor in enumerate(vendors):
            node = f"renderD{128 + index}"
            (root / "dev/dri" / node).touch()
            device = root / "sys/class/drm" / node / "device"
            device.mkdir(parents=True)
            (device / "vendor").write_text(f"{vendor}\n")
            (device / "device").write_text(f"0x{0xE20B + index:04x}\n")
            (device / "driver").symlink_to(root / "sys/bus/pci/drivers/xe")
        return root

    return build


@pytest.fixture
def ask(stub_folder, machine, tmp_path):
    """``ask(torch=version.py, NAME=VALUE...)``: (devices, reason, remedy)."""

    def ask(*, vendors=("0x8086",), torch=XPU_TORCH, driver=stub_folder, **variables):
        if torch is not None:
            package = tmp_path / "torch"
            package.mkdir()
            (package / "__init__.py").write_text("raise RuntimeError('torch was imported')\n")
            (package / "version.py").write_text(torch)
        environment = {**os.environ, "LD_LIBRARY_PATH": str(driver), **variables}
        if "ZE_AFFINITY_MASK" not in variables:
            environment.pop("ZE_AFFINITY_MASK", None)
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(tmp_path), environment.get("PYTHONPATH", "")]
        )
        command = [sys.executable, "-c", ASK, str(machine(*vendors))]
        asked = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert asked.returncode == 0, asked.stderr
        devices, reason, install, heavy = json.loads(asked.stdout)
        assert heavy == []
        return devices, reason, install

    return ask


def test_every_gpu_is_listed_and_what_is_no_gpu_is_not(ask):
    devices, reason, _ = ask(vendors=("0x10de", "0x8086", "0x8086"))
    assert reason is None
    assert devices == [["xpu", 0, "Stub Arc 1", 1 << 34], ["xpu", 1, "Stub Arc 2", 2 << 34]]


def test_cards_are_read_with_their_driver(machine):
    (card,) = graphics_cards(machine("0x1002", "0x8086"))
    assert (card.device_id, card.driver, card.node.name) == (0xE20C, "xe", "renderD129")
    assert card.may_be_opened


CPU_TORCH = VERSION.format(build="cpu", cuda=None, xpu=None)
CUDA_TORCH = VERSION.format(build="cu130", cuda="'13.0'", xpu=None)
REFUSALS = {
    "no GPU": ({"vendors": ("0x10de",)}, "there is no Intel GPU", "--device cpu"),
    "none found": ({"STUB_COUNT": "0"}, "Level Zero finds no Intel GPU", "libze-intel-gpu1"),
    "hidden": (
        {"STUB_STATUS": "0x78000001", "ZE_AFFINITY_MASK": "7"},
        "ZE_AFFINITY_MASK='7' leaves no GPU",
        "unset ZE_AFFINITY_MASK",
    ),
    "refused": (
        {"STUB_STATUS": "0x78000001"},
        "zeInit gives 0x78000001 (no driver finds a GPU)",
        "libze-intel-gpu1",
    ),
    "unknown status": (
        {"STUB_STATUS": "0x7ffffffe"},
        "zeInit gives 0x7ffffffe (see ze_result_t",
        "Level Zero",
    ),
    "torch for the CPU": (
        {"torch": CPU_TORCH},
        "torch 2.13.0+cpu is built for the CPU alone, not for Intel GPUs",
        "XPU build",
    ),
    "torch for CUDA": (
        {"torch": CUDA_TORCH},
        "is built for CUDA 13.0, not for Intel GPUs",
        "pip uninstall torch",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_missing_is_said_with_what_helps(ask, case):
    changes, reason, remedy = REFUSALS[case]
    devices, found_reason, install = ask(**changes)
    assert devices == []
    assert reason in found_reason
    assert remedy in install


def test_no_level_zero(ask, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    devices, reason, install = ask(driver=empty)
    if devices:
        pytest.skip("this machine has a Level Zero of its own")
    assert reason == "there is an Intel GPU (e20b), but no Level Zero (libze_loader.so.1)"
    assert "libze1" in install


def test_a_node_that_may_not_be_opened(machine, monkeypatch):
    from octavo_xpu.probe import probe

    monkeypatch.setattr(os, "access", lambda *_: False)
    found = probe(machine("0x8086"))
    assert found.reason == "/dev/dri/renderD128 may not be opened by this user"
    assert "usermod -aG render" in found.install


def test_a_driver_that_crashes_does_not_take_us_along(ask):
    with pytest.raises(AssertionError, match="asking Level Zero ended with -6"):
        ask(STUB_CRASHES="1")
