"""docs/support-matrix.md: current, and a true rendering of what the suite found."""

from __future__ import annotations

import copy
import importlib.util
import tomllib
from importlib.util import find_spec

import pytest

from octavo.plugins import load_plugins
from octavo.policy import load_policy


@pytest.fixture(scope="module")
def matrix(repo_root):
    path = repo_root / "scripts" / "support_matrix.py"
    spec = importlib.util.spec_from_file_location("support_matrix", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.timeout(300)
def test_numpy_passes_the_suite(numpy_report):
    assert numpy_report["summary"]["ok"]
    assert numpy_report["summary"]["gap"] == 0


@pytest.mark.timeout(300)
def test_native_passes_the_suite(native_report):
    assert native_report["summary"]["ok"]
    assert native_report["summary"]["gap"] == 0


@pytest.mark.timeout(300)
def test_torch_passes_the_suite(torch_report):
    assert torch_report["summary"]["ok"]
    assert torch_report["summary"]["gap"] == 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_jax_passes_the_suite(jax_report):
    assert jax_report["summary"]["ok"]
    assert jax_report["summary"]["gap"] == 0


@pytest.mark.timeout(300)
def test_the_page_is_current(matrix, native_report, torch_report, numpy_report):
    page = matrix.render([native_report, torch_report, numpy_report])
    assert matrix.PAGE.read_text("utf-8") == page, "run `make matrix`"


def result(check, status, message="", gap=None):
    kind, _, reason = (gap or "").partition(": ")
    return {
        "id": f"{check}[{message}{gap}]",
        "check": check,
        "section": check.partition(".")[0],
        "status": status,
        "message": message,
        "gap": {"kind": kind, "reason": reason} if gap else None,
    }


def report(*results, **changes):
    checks = dict.fromkeys(each["check"] for each in results)
    made = {
        "backend": "numpy",
        "distribution": {"name": "octavo-cpu", "version": "1.2.3"},
        "device": {"kind": "cpu", "index": 0, "name": "a processor | of mine"},
        "capabilities": {"dtypes": ["float32", "float16"], "soft_cap": True, "max_head_dim": 64},
        "quick": False, "pattern": None, "sections": None, "interrupted": False,
        "checks": [
            {"id": check, "section": check.partition(".")[0], "about": f"About {check}."}
            for check in checks
        ],
        "results": list(results),
        "summary": {"ok": True},
    }  # fmt: skip
    return {**made, **changes}


def row_of(page, check):
    (line,) = (line for line in page.splitlines() if f"| `{check}` |" in line)
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize(
    ("results", "mark", "notes"),
    [
        ([("passed",), ("passed",)], "yes", []),
        ([("passed",), ("unclaimed", "no int8")], "yes [1]", ["1. no int8"]),
        ([("passed",), ("gap", "", "notyet: a driver")], "part [1]", ["1. notyet: a driver"]),
        ([("gap", "", "never: no units")], "never [1]", ["1. never: no units"]),
        ([("unclaimed", "no int8")], "not claimed [1]", ["1. no int8"]),
        ([("unclaimed", "no int8", "notimpl: nobody")], "notimpl [1]", ["1. notimpl: nobody"]),
    ],
)  # fmt: skip
def test_marks(matrix, results, mark, notes):
    page = matrix.render([report(*(result("ops.linear", *each) for each in results))])

    assert row_of(page, "ops.linear") == ["About ops.linear", "`ops.linear`", mark]
    assert [line for line in page.splitlines() if line[:1].isdigit()] == notes


def test_two_backends_share_notes_and_rows(matrix, monkeypatch):
    monkeypatch.setitem(matrix.EVIDENCE, "other", "compiles for it")
    one = report(result("ops.linear", "unclaimed", "no int8"), result("paging.forks", "passed"))
    other = report(result("ops.rope", "unclaimed", "no int8"), backend="other")
    page = matrix.render([one, other])

    assert row_of(page, "ops.linear")[2:] == ["not claimed [1]", "-"]
    assert row_of(page, "ops.rope")[2:] == ["-", "not claimed [1]"]
    assert "| other | octavo-cpu | cpu | compiles for it |" in page
    assert "| computes in | `dtypes` | float32, float16 | float32, float16 |" in page


def test_each_backend_of_the_project_has_a_column_or_a_reason(matrix, repo_root):
    projects = (repo_root / "backends").glob("*/pyproject.toml")
    own = {tomllib.loads(path.read_text("utf-8"))["project"]["name"] for path in projects}
    records = load_plugins(load_policy(repo_root / "plugins.toml")).records
    names = {
        spec.name for record in records if record.distribution in own for spec in record.backends
    }
    if find_spec("torch"):
        assert names == {*matrix.EVIDENCE, *matrix.EXCLUDED}
    else:
        assert names == {"native", "numpy", "fake"}


def test_the_table_of_devices_agrees_with_the_columns(matrix):
    rows = matrix.SUPPORT["rows"]
    run = {name for row in rows if row["suite"][0] == "runs here in CI" for name in row["backends"]}
    assert run == {*matrix.EVIDENCE, "jax"}, "jax runs the suite in slow tests"


def test_every_capability_has_plain_words(matrix, numpy_report):
    assert list(matrix.CLAIMS) == list(numpy_report["capabilities"])


def test_no_machine_and_no_time_is_on_it(matrix):
    one = report(result("ops.linear", "passed"))
    other = copy.deepcopy(one) | {"started": "2031-01-01", "duration_s": 3.0, "platform": {}}
    other["device"]["name"] = "another processor"
    assert matrix.render([one]) == matrix.render([other])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"quick": True}, "a part of the suite"),
        ({"pattern": "ops"}, "a part of the suite"),
        ({"interrupted": True}, "a part of the suite"),
        ({"backend": "acme"}, "no backend of this project"),
    ],
)
def test_a_report_that_proves_too_little_is_refused(matrix, changes, said):
    with pytest.raises(ValueError, match=said):
        matrix.render([report(result("ops.linear", "passed"), **changes)])


def test_a_failing_backend_gets_no_page(matrix):
    failing = report(result("ops.linear", "failed", "wrong"), summary={"ok": False})
    with pytest.raises(ValueError, match=r"numpy fails ops\.linear\[wrongNone\]"):
        matrix.render([failing])
