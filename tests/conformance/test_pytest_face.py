"""``from octavo.testing.suite import *`` in somebody's test module, in a pytest of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from conform_toys import environment, install_acme
from test_gaps import FAILING, entry, gaps_file

CONFTEST = """
import conform_toys
import octavo.testing.suite

octavo.testing.suite.all_checks = lambda: conform_toys.CHECKS
"""
MODULE = """
from octavo.testing.suite import *

BACKEND = "acme"
"""
COUNTING = """
whole_load = load

def load(index, options):
    backend = whole_load(index, options)
    with open("events.txt", "a") as file:
        file.write("load ")

    def close():
        with open("events.txt", "a") as file:
            file.write("close ")

    backend.close = close
    return backend
"""


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "conftest.py").write_text(CONFTEST, "utf-8")
    return folder


def run_pytest(site, module=MODULE, *arguments):
    (site / "test_acme.py").write_text(module, "utf-8")
    strict = ("-p", "no:cacheprovider", "--strict-markers", "--strict-config", "-W", "error")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", *strict, *arguments, "test_acme.py"],
        env={**environment(site), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # half the time
        cwd=site,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def test_one_test_for_each_case(site):
    install_acme(site, FAILING + COUNTING, gaps_file(entry("ops.linear[rows=3]")))
    ended = run_pytest(site)

    assert ended.returncode == 1, ended.stdout
    assert "1 failed, 9 passed, 1 skipped, 1 xfailed" in ended.stdout.splitlines()[-1]
    assert "PASSED test_acme.py::test_conformance[ops.linear[rows=1]]" in ended.stdout
    assert re.search(r"SKIPPED .*caps\.quantization has no int8", ended.stdout)
    xfailed = (
        "XFAIL test_acme.py::test_conformance[ops.linear[rows=3]] - notyet: the driver is young"
    )
    assert xfailed in ended.stdout
    assert (site / "events.txt").read_text() == "load close "


def test_a_failure_says_what_and_where_without_a_traceback(site):
    install_acme(site, FAILING)
    ended = run_pytest(site, MODULE + "QUICK = True\n")

    assert "1 failed, 3 passed, 1 skipped" in ended.stdout.splitlines()[-1]
    assert "ops.linear[rows=2]: ArithmeticError: no" in ended.stdout
    assert "look at ops.linear, backend.put_linear" in ended.stdout
    assert re.search(r"written at octavo_acme/plugin\.py:\d+ \S+AcmeOps\.linear", ended.stdout)
    assert "planned" not in ended.stdout  # no source line of the suite


def test_a_closed_gap_fails(site):
    install_acme(site, FAILING, gaps_file(entry("ops.linear[rows=*]")))
    ended = run_pytest(site, MODULE, "-k", "4")

    assert ended.returncode == 1
    assert "delete the entry 'ops.linear[rows=*]' when this passes" in ended.stdout


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("from octavo.testing.suite import *", "Set BACKEND = "),
        (MODULE.replace("acme", "acne"), "Did you mean 'acme'?"),
        (MODULE + "DEVICE = 'toy:4'\n", "There is no toy:4"),
        (MODULE + "SECTIONS = ('opps',)\n", "Did you mean 'ops'?"),
    ],
)
def test_a_wrong_module_is_told_so(site, module, said):
    install_acme(site)
    ended = run_pytest(site, module)

    assert ended.returncode == 2
    assert said in ended.stdout
    assert "pytest_generate_tests" not in ended.stdout


def test_a_backend_that_cannot_be_loaded_fails_its_tests(site):
    install_acme(site, "def load(index, options):\n    raise RuntimeError('no driver')\n")
    ended = run_pytest(site)

    assert ended.returncode == 1
    assert "2 failed, 1 passed" in ended.stdout.splitlines()[-1]
    assert "RuntimeError: no driver" in ended.stdout


def test_it_is_importable_where_pytest_is_not(tmp_path):
    script = (
        "import sys, json; sys.modules['pytest'] = None\n"
        "from octavo.testing.suite import *\n"
        "print(json.dumps([test_conformance.__name__, *sys.modules]))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, encoding="utf-8", check=True
    )
    name, *modules = json.loads(ended.stdout)
    assert name == "test_conformance"
    assert not {"torch", "jax", "transformers", "octavo_cpu"} & set(modules)
