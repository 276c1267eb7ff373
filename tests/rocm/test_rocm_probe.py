"""What is learnt of AMD GPUs from the files of the amdgpu driver, here a tree of our own."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("octavo_rocm", reason="octavo-rocm is not installed")

from octavo_rocm import probe as probe_module
from octavo_rocm.architectures import ARCHITECTURES
from octavo_rocm.probe import probe
from octavo_rocm.topology import gpu_nodes
from octavo_torch.installed_torch import InstalledTorch

ROCM_TORCH = InstalledTorch("2.13.0+rocm7.0", None, "7.0.2")


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    for name in ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(probe_module, "find_torch", lambda: ROCM_TORCH)


@pytest.fixture
def machine(tmp_path):
    """``machine(version, ...)``: the root of a tree with a processor and one GPU for each."""

    def build(*versions):
        (tmp_path / "dev").mkdir()
        (tmp_path / "dev/kfd").touch()
        nodes = tmp_path / "sys/class/kfd/kfd/topology/nodes"
        facts = [{"cpu_cores_count": 16, "simd_count": 0, "vendor_id": 0, "gfx_target_version": 0}]
        for index, version in enumerate(versions):
            facts.append(
                {
                    "simd_count": 304,
                    "vendor_id": 4098,
                    "gfx_target_version": version,
                    "drm_render_minor": 128 + index,
                    "unique_id": 0xABC0 + index,
                }
            )
            device = tmp_path / f"sys/class/drm/renderD{128 + index}/device"
            device.mkdir(parents=True)
            (device / "mem_info_vram_total").write_text(f"{(index + 1) << 34}\n")
            (device / "product_name").write_text(f"Instinct {index}\n")
        for number, properties in enumerate(facts):
            (nodes / str(number)).mkdir(parents=True)
            lines = (f"{name} {value}\n" for name, value in properties.items())
            (nodes / str(number) / "properties").write_text("".join(lines))
        return tmp_path

    return build


def test_every_gpu_is_listed_and_the_processor_is_not(machine):
    found = probe(machine(90402, 120001))
    assert [(each.kind, each.index, each.name, each.total_bytes) for each in found.devices] == [
        ("rocm", 0, "Instinct 0 (gfx942)", 1 << 34),
        ("rocm", 1, "Instinct 1 (gfx1201)", 2 << 34),
    ]


# (gfx_target_version of the kernel driver, LLVM's name), as in LLVM's AMDGPUUsage.
NAMES = {
    90010: "gfx90a",
    90402: "gfx942",
    90500: "gfx950",
    110000: "gfx1100",
    110501: "gfx1151",
    120001: "gfx1201",
}


def test_versions_are_decoded_as_llvm_names_them(machine):
    assert [node.arch for node in gpu_nodes(machine(*NAMES))] == list(NAMES.values())
    assert set(NAMES.values()) <= set(ARCHITECTURES)


@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({"HIP_VISIBLE_DEVICES": "2,0"}, ["Instinct 2", "Instinct 0"]),
        ({"ROCR_VISIBLE_DEVICES": "1,2", "HIP_VISIBLE_DEVICES": "1"}, ["Instinct 2"]),
        ({"ROCR_VISIBLE_DEVICES": "GPU-000000000000abc1"}, ["Instinct 1"]),
        ({"CUDA_VISIBLE_DEVICES": "1"}, ["Instinct 1"]),
        ({"CUDA_VISIBLE_DEVICES": "1", "HIP_VISIBLE_DEVICES": "0"}, ["Instinct 0"]),
        ({"HIP_VISIBLE_DEVICES": "0,9,1"}, ["Instinct 0"]),
    ],
)
def test_the_runtime_s_variables_are_heeded(machine, monkeypatch, variables, names):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    devices = probe(machine(90402, 90402, 90402)).devices
    assert [each.name.removesuffix(" (gfx942)") for each in devices] == names
    assert [each.index for each in devices] == list(range(len(names)))


def test_hidden_gpus_are_said_to_be(machine, monkeypatch):
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "-1")
    assert probe(machine(90402)).reason == "HIP_VISIBLE_DEVICES=-1 leaves none of 1 GPUs"


def test_no_driver(tmp_path):
    found = probe(tmp_path)
    assert found.reason == "there is no AMD compute driver (/dev/kfd is not there)"
    assert "--device=/dev/kfd" in found.install


def test_no_permission(machine, monkeypatch):
    root = machine(90402)
    monkeypatch.setattr(probe_module.os, "access", lambda *_: False)
    found = probe(root)
    assert "/dev/kfd may not be opened" in found.reason
    assert "usermod -aG render,video" in found.install


@pytest.mark.parametrize(
    ("torch", "reason"),
    [
        (None, "torch is not installed"),
        (InstalledTorch("2.13.0+cpu", None, None), "built for the CPU alone, not for ROCm"),
        (InstalledTorch("2.13.0+cu130", (13, 0), None), "built for CUDA 13.0, not for ROCm"),
    ],
)
def test_another_torch_is_named(machine, monkeypatch, torch, reason):
    monkeypatch.setattr(probe_module, "find_torch", lambda: torch)
    assert reason in probe(machine(90402)).reason


def test_an_architecture_without_kernels_is_named(machine):
    found = probe(machine(100300))
    assert found.reason.startswith("there are no kernels for gfx1030; served are gfx90a, gfx942")


def test_probing_imports_nothing_heavy():
    code = (
        "import sys; from octavo_rocm.probe import probe; probe(); "
        "print(sorted({'torch', 'numpy', 'triton'} & set(sys.modules)))"
    )
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == "[]"
