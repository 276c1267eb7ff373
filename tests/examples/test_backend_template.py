"""The template, built as a wheel and installed in a clean environment: found, light, and right."""

from __future__ import annotations

import tomllib

import pytest
from clean_environment import generate

pytest.importorskip("jax", reason="the template runs on jax, which is not installed")

FOLDER = "examples/backend-template"
AMPLE_BYTES, SCARCE_BYTES = 10_000_000, 200_000


@pytest.fixture(scope="module")
def environment(clean_environment):
    with clean_environment.installed(FOLDER, remove="octavo-template"):
        yield clean_environment


def python(environment, script):
    return environment.run("python", "-c", script)


def test_it_is_short(repo_root):
    files = list((repo_root / FOLDER).rglob("*.py"))
    assert {"plugin.py", "backend.py", "ops.py", "test_conformance.py"} <= {f.name for f in files}
    assert sum(len(file.read_text("utf-8").splitlines()) for file in files) < 80


def test_what_runs_is_installed_and_no_checkout(environment, repo_root):
    homes = python(
        environment,
        "import octavo, octavo_cpu, octavo_template as t; print(octavo, octavo_cpu, t, sep='\\n')",
    )
    assert homes.count("site-packages") == 3
    assert str(repo_root) not in homes


def test_it_is_found_by_its_entry_point(environment):
    devices = environment.run("octavo", "devices")
    assert "template:0" in devices
    assert "host CPU, through JAX" in devices
    assert "octavo-template" in environment.run("octavo", "plugins")


def test_the_wheel_declares_its_gaps(environment):
    text = python(
        environment,
        "from importlib.resources import files\n"
        "print((files('octavo_template') / 'conformance.toml').read_text())",
    )
    assert tomllib.loads(text) == {"schema": 1}


def test_probing_imports_no_framework_and_says_what_is_missing(environment):
    probe = (
        "import sys, octavo_template.plugin as plugin; print(plugin.probe(), 'jax' in sys.modules)"
    )
    assert "template" in python(environment, probe)
    assert python(environment, probe).endswith("False\n")
    without = python(environment, f"import sys; sys.modules['jax'] = None; {probe}")
    assert "reason='JAX is not installed', install='pip install jax'" in without


def test_what_it_does_not_have_is_refused(environment):
    script = """
from octavo.api import DeviceError, UsageError
from octavo_template.backend import TemplateBackend
for arguments, error in [((1, {}), DeviceError), ((0, {"threads": 2}), UsageError)]:
    try:
        TemplateBackend(*arguments)
    except error as refusal:
        print(refusal)
"""
    assert python(environment, script).splitlines() == [
        "There is no device template:1; there is template:0.",
        "Backend 'template' has no options; it got {'threads': 2}.",
    ]


def test_it_generates_what_numpy_does_whatever_is_swapped(environment, tiny_llama):
    expected = generate(environment, tiny_llama, "cpu", AMPLE_BYTES)
    found = generate(environment, tiny_llama, "template", SCARCE_BYTES)
    assert (expected["backend"], found["backend"]) == ("numpy", "template")
    assert (expected["num_swaps"] == 0, found["num_swaps"] > 0) == (True, True)
    assert found["rounds"] == expected["rounds"]
    # Shapes that it has seen are not compiled again.
    assert found["compilations"][0] > 0
    assert found["compilations"][1] == 0


def test_the_overridden_op_is_bound(environment):
    ops = environment.run("octavo", "ops", "--device", "template")
    (line,) = (line for line in ops.splitlines() if line.split()[:1] == ["linear"])
    assert "TemplateOps.linear" in line
    assert "octavo-template" in line


# The quick level is a sample of each table; JAX compiles for most of the time, beside other tests.
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "level", ["--quick", pytest.param("--no-performance", marks=pytest.mark.slow)]
)
def test_it_conforms(environment, level):
    last_line = environment.run("octavo", "conform", "template", level).splitlines()[-1]
    assert last_line.startswith("template (octavo-template 0.1.0) on template:0: ")
    assert ", 0 failed" in last_line


def test_a_test_of_it_is_three_lines(repo_root):
    file = repo_root / FOLDER / "tests" / "test_conformance.py"
    assert len(file.read_text("utf-8").splitlines()) <= 3
