"""docs/fake-device.md is what happens: its test file passes, its plugins.toml puts auto on fake."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from octavo.devices import load_backend, resolve
from octavo.plugins import load_plugins
from octavo.policy import load_policy


@pytest.fixture(scope="module")
def page(repo_root):
    return (repo_root / "docs" / "fake-device.md").read_text("utf-8")


def block(page, file_name):
    """The code block whose first line names the file."""
    found = re.search(rf"```\w+\n(# {re.escape(file_name)}\n.*?)```", page, re.DOTALL)
    return found[1]


def test_the_example_for_ci_passes(page, tmp_path):
    (tmp_path / "test_service.py").write_text(block(page, "test_service.py"), "utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n", "utf-8")
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_service.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "4 passed" in ended.stdout


def test_the_plugins_file_puts_auto_on_the_fake_device(page, tmp_path):
    file = tmp_path / "plugins.toml"
    file.write_text(block(page, "plugins.toml"), "utf-8")
    policy = load_policy(file)
    resolution = resolve("auto", None, policy, load_plugins(policy))
    backend = load_backend(resolution, policy)

    assert resolution.spec.name == "fake"
    assert backend.memory().total_bytes == 160 << 30
    assert not backend.caps.reads_weights
    backend.close()


def test_every_option_member_and_kind_is_on_the_page(page):
    from octavo_cpu.fake import faults, options

    for name in (*options.FakeOptions.__dataclass_fields__, *faults._MEMBERS, *faults._KINDS):
        assert f"`{name}`" in page, name


def test_every_fault_on_the_page_can_be_read(page):
    from octavo_cpu.fake.faults import parse_faults

    found = re.findall(r"`([a-z_]+:[a-z]+@[^`]*)`", page)
    assert len(found) >= 5
    for text in found:
        assert len(parse_faults(text)) == 1
