"""What every test shares: one thread, no user caches, reproducible examples, the real model."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import hypothesis
import pytest

# Before any test imports an array library: their thread pools are sized once, at import. One
# thread each keeps results reproducible and does not fight with the tests that run beside it.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("VECLIB_MAXIMUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# No test may see, or depend on, what the user has downloaded or configured.
_hub_folder = tempfile.mkdtemp(prefix="octavo-tests-hub-")
os.environ["HF_HOME"] = _hub_folder
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
for _variable in ("HF_HUB_CACHE", "HF_TOKEN", "OCTAVO_PLUGINS_FILE"):
    os.environ.pop(_variable, None)

REPO_ROOT = Path(__file__).resolve().parent.parent
ORACLES = ("torch", "transformers", "accelerate", "jax", "mlx", "triton", "gguf", "sentencepiece")
IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")

hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if IN_CI else "default")


class OracleModule(pytest.Module):
    """A test module; skipped, and reported so, where a framework that it compares with is absent.

    `make test` installs them all and names them in OCTAVO_TEST_REQUIRES, so that none goes missing
    unseen there; the torch-free runs of the workflow live on this.
    """

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        try:
            return super().collect()
        except self.CollectError as error:
            cause = error.__cause__
            name = (cause.name or "") if isinstance(cause, ModuleNotFoundError) else ""
            if name.partition(".")[0] not in ORACLES:
                raise
            pytest.skip(f"{self.path.name} needs {name}, not installed (requirements/oracles.txt)")


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module:
    return OracleModule.from_parent(parent, path=module_path)


def pytest_configure(config: pytest.Config) -> None:
    required = os.environ.get("OCTAVO_TEST_REQUIRES", "").split()
    missing = [name for name in required if importlib.util.find_spec(name) is None]
    if missing:
        raise pytest.UsageError(
            f"OCTAVO_TEST_REQUIRES asks for {', '.join(missing)}, not installed here: "
            "pip install -c constraints.txt -r requirements/oracles.txt"
        )


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(_hub_folder, ignore_errors=True)


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The checkout's root folder."""
    return REPO_ROOT


@pytest.fixture
def heeds_ctrl_c() -> Iterator[None]:
    """Programs the test starts heed Ctrl-C, though the tests run where it is ignored (nohup, &)."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.fixture(scope="session")
def smollm2_path(repo_root: Path) -> Path:
    """SmolLM2-135M-Instruct, the real model as a Q4_1 GGUF; fetched once into models/."""
    path = repo_root / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if path.is_file():
        return path
    result = subprocess.run(
        [sys.executable, str(repo_root / "scripts" / "fetch_model.py")],
        capture_output=True,
        check=False,
        text=True,
    )
    if result.returncode != 0:
        reason = f"SmolLM2 is not in models/ and cannot be fetched: {result.stderr.strip()}"
        if IN_CI:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return path
