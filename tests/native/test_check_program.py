"""The kernels' own program, kernels/check: what other processors are checked with, on this one."""

from __future__ import annotations

import shutil
import subprocess

import pytest


def test_kernels_agree_with_their_oracles(repo_root):
    caches = sorted((repo_root / "backends/cpu/build").glob("py3-*/CMakeCache.txt"))
    if not caches or shutil.which("cmake") is None:
        pytest.skip("the kernels were not built in this checkout by `make kernels`")
    folder = caches[-1].parent
    build = ["cmake", "--build", folder, "--target", "check"]
    built = subprocess.run(build, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    checked = subprocess.run([folder / "check"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert " ok\n" in checked.stdout
