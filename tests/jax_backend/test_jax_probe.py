"""What is learnt of PJRT devices without importing JAX, from folders of our own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("octavo_tpu", reason="octavo-tpu is not installed")

ASK = """
import json, sys
from pathlib import Path
from octavo_tpu.plugin import served_kinds
from octavo_tpu.probe import probe
found = probe(Path(sys.argv[1]))
print(json.dumps({
    "devices": [[each.kind, each.index, each.name] for each in found.devices],
    "lacking": {each.kind: [each.reason, each.install] for each in found.lacking},
    "reason": found.reason,
    "kinds": served_kinds(),
    "heavy": sorted({"jax", "jaxlib", "numpy", "libtpu"} & set(sys.modules)),
}))
"""


@pytest.fixture
def ask(tmp_path):
    """``ask(modules, files)``: what the probe says where these are there."""

    def ask(modules=("jax", "jaxlib"), files=()):
        site, root = tmp_path / "site", tmp_path / "root"
        root.mkdir()
        for module in modules:
            package = site.joinpath(*module.split("."))
            package.mkdir(parents=True)
            (package / "__init__.py").write_text("raise RuntimeError('this was imported')\n")
        for file, text in dict(files).items():
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_text(text)
        others = [
            folder
            for folder in [*os.environ.get("PYTHONPATH", "").split(os.pathsep), *sys.path]
            if folder
        ]
        asked = subprocess.run(
            [sys.executable, "-c", ASK, str(root)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *others])},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert asked.returncode == 0, asked.stderr
        found = json.loads(asked.stdout)
        assert found["heavy"] == []
        return found

    return ask


TPU_FILES = {f"dev/accel{index}": "" for index in range(4)}


def test_the_cpu_and_why_there_is_no_tpu(ask):
    found = ask()
    assert [device[:2] for device in found["devices"]] == [["cpu", 0]]
    assert found["lacking"]["tpu"] == [
        "there is no TPU, and no PJRT plugin for one",
        "pip install 'octavo-tpu[tpu]'",
    ]
    assert found["kinds"][0] == "tpu"
    assert found["kinds"][-1] == "cpu"


def test_tpus_with_their_library(ask):
    found = ask(("jax", "jaxlib", "libtpu"), TPU_FILES)
    assert found["devices"][:4] == [["tpu", index, f"TPU {index}"] for index in range(4)]
    assert "tpu" not in found["lacking"]


def test_tpus_behind_vfio_are_google_s(ask):
    files = {"dev/vfio/0": "", "dev/vfio/vfio": "", "sys/bus/pci/devices/0/vendor": "0x1ae0\n"}
    found = ask(("jax", "jaxlib", "libtpu"), files)
    assert found["devices"][0] == ["tpu", 0, "TPU 0"]


def test_tpus_without_their_library(ask):
    reason, install = ask(files=TPU_FILES)["lacking"]["tpu"]
    assert reason == "4 TPUs, but no PJRT plugin"
    assert install == "pip install 'octavo-tpu[tpu]'"


def test_a_library_without_a_tpu(ask):
    reason, _ = ask(("jax", "jaxlib", "libtpu"))["lacking"]["tpu"]
    assert reason == "there is a PJRT plugin, but no TPU"


def test_a_plugin_adds_its_kind(ask):
    files = {"proc/driver/nvidia/gpus/0000/information": "x"}
    found = ask(("jax", "jaxlib", "jax_plugins.xla_cuda13"), files)
    assert "cuda" in found["kinds"]
    assert found["devices"][0] == ["cuda", 0, "NVIDIA GPU 0"]
