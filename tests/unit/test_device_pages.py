"""The pages on devices: one for each kind, alike in shape, and marks that the code bears out."""

from __future__ import annotations

import re
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from octavo.plugins import load_plugins
from octavo.policy import load_policy

REPO_ROOT = Path(__file__).resolve().parents[2]
DEVICES = REPO_ROOT / "docs/devices"
PAGES = sorted(page.name for page in DEVICES.glob("*.md") if page.name != "README.md")
SUPPORT = tomllib.loads((DEVICES / "support.toml").read_text("utf-8"))
ROWS = [pytest.param(row, id=row["devices"]) for row in SUPPORT["rows"]]
RUNS, COMPILES, NOT_YET, NONE = "runs here in CI", "compiles for", "not yet", "none"
SHAPE = [
    "What is supported",
    "On what it has run",
    "Install",
    "What may go wrong",
    "Known gaps",
    "How it is checked",
]
TRITON_BUILDS = "tests/triton_kernels/test_triton_builds.py"


def best(row):
    """What README has to say of it: the strongest mark, which is RUNS for the whole suite alone."""
    marks = {row[part][0] for part in SUPPORT["parts"]}
    if row["suite"][0] == RUNS:
        return RUNS
    return COMPILES if COMPILES in marks else NOT_YET


@pytest.mark.parametrize("page", PAGES)
def test_every_page_has_the_common_shape(page):
    headings = re.findall(r"^## (.+)$", (DEVICES / page).read_text("utf-8"), re.MULTILINE)
    assert [heading for heading in headings if heading in SHAPE] == SHAPE


def test_the_index_has_every_page():
    index = (DEVICES / "README.md").read_text("utf-8")
    assert set(re.findall(r"\]\((\w+\.md)\)", index)) == set(PAGES)
    assert {row["page"].partition("#")[0] for row in SUPPORT["rows"]} == set(PAGES)


@pytest.mark.parametrize("row", ROWS)
def test_a_mark_rests_on_something(row):
    makefile = (REPO_ROOT / "Makefile").read_text("utf-8")
    for part in SUPPORT["parts"]:
        mark, *evidence = row[part]
        if mark in {NOT_YET, NONE}:
            assert not evidence, part
            continue
        assert mark in {RUNS, COMPILES}, part
        (proof,) = evidence
        if proof.startswith("make "):
            assert re.search(rf"^{proof.removeprefix('make ')}:", makefile, re.MULTILINE), proof
            assert mark == COMPILES, f"{proof} is no part of CI's own run"
        else:
            assert (REPO_ROOT / proof).is_file(), proof
        if mark == RUNS:
            assert row["kinds"] == ["cpu"], "CI has no accelerator"


@pytest.mark.parametrize("row", ROWS)
def test_readme_says_the_same(row):
    lines = (REPO_ROOT / "README.md").read_text("utf-8").splitlines()
    link = f"(docs/devices/{row['page']})"
    states = [line.rsplit("|", 2)[1].strip() for line in lines if line[:1] == "|" and link in line]
    assert states, f"README's table has no {link}"
    assert any(state.startswith(best(row)) for state in states), states


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_kernels_compile_for_exactly_what_they_are_compiled_for():
    pytest.importorskip("torch", reason="torch is not installed")
    from octavo_torch.kernels.ahead import TARGETS

    names = {"cuda": "cuda", "hip": "rocm", "xpu": "xpu"}
    compiled = {names[target.vendor] for target in TARGETS.values()}
    marked = {row["kinds"][0] for row in SUPPORT["rows"] if TRITON_BUILDS in row["kernels"]}
    assert marked == compiled


def own_records():
    """Of the plugins that are in this repository and installed."""
    projects = (REPO_ROOT / "backends").glob("*/pyproject.toml")
    own = {tomllib.loads(path.read_text("utf-8"))["project"]["name"] for path in projects}
    records = load_plugins(load_policy(REPO_ROOT / "plugins.toml")).records
    return [record for record in records if record.distribution in own]


def test_every_kind_that_is_served_has_a_row():
    served = {
        (spec.name, kind)
        for record in own_records()
        for spec in record.backends
        if spec.automatic
        for kind in spec.device_kinds
    }
    rows = {
        (name, kind) for row in SUPPORT["rows"] for name in row["backends"] for kind in row["kinds"]
    }
    assert served <= rows


def test_every_attention_has_a_row():
    rows = [
        line for line in (REPO_ROOT / "docs/plugins.md").read_text("utf-8").splitlines()
        if line.startswith("| `")
    ]  # fmt: skip
    for record in own_records():
        for spec in record.attention:
            (row,) = (line for line in rows if f"`{spec.name}`" in line.split("|")[1])
            assert f"`{spec.backend}`" in row, spec
