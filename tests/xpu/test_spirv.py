"""``make test-spirv`` where there is no Triton for Intel GPUs: one line, and no failure."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HAS_TRITON = find_spec("triton") is not None
SCRIPT = Path(__file__).parents[2] / "scripts" / "spirv_compile.py"


@pytest.mark.skipif(
    HAS_TRITON and find_spec("triton.backends.intel") is not None, reason="there is one"
)
def test_it_says_what_is_missing_and_that_nothing_was_compiled():
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
    assert done.stdout.startswith("nothing was compiled: ")
    assert "make test-spirv SPIRV_PYTHON=" in done.stdout
