"""conformance.toml: strict about its own words, about what fails, and about what does not."""

from __future__ import annotations

import json
import sys
import tomllib

import pytest
from conform_toys import install_acme, run_conform

from octavo.errors import PluginError
from octavo.plugins import PluginRecord
from octavo.testing.conform import Result
from octavo.testing.gaps import Gap, GapTable, parse_gaps, read_gaps
from octavo.testing.patterns import matches_whole, matches_within

CASES = [("ops.a", "ops.a"), ("ops.b", "ops.b[int8 2:3]"), ("ops.b", "ops.b[int4]")]
FAILING = "def misbehave(rows):\n    if rows in (2, 3):\n        raise ArithmeticError('no')\n"


def gaps_file(*entries, schema="schema = 1"):
    return "\n".join([schema, *(f"[[gaps]]\n{entry}" for entry in entries)])


def entry(check, kind="notyet", reason="the driver is young", **more):
    return "\n".join(
        f"{key} = {json.dumps(value)}"
        for key, value in {"check": check, "kind": kind, "reason": reason, **more}.items()
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (gaps_file(schema=""), "has schema = None; this octavo reads schema = 1"),
        (gaps_file(schema="schema = 2"), "has schema = 2"),
        (gaps_file(schema="schema = true"), "has schema = True"),
        (gaps_file() + "\n[gap]", "unknown key 'gap'. Did you mean 'gaps'"),
        ("schema = 1\ngaps = ['ops.a']", r"expected \[\[gaps\]\] tables"),
        (gaps_file(entry("ops.a", reson="x")), "gap 1: unknown key 'reson'. Did you mean 'reason'"),
        (gaps_file("check = 'a'\nkind = 'never'"), "gap 1 has no reason"),
        (gaps_file(entry("ops.a", reason=" ")), "gap 1: reason is ' '; expected a text"),
        (gaps_file(entry("ops.a", kind="notyte")), "kind is 'notyte'. Did you mean 'notyet'"),
        (gaps_file(entry("ops.a", backend="acne")), "backend is 'acne'. Did you mean 'acme'"),
        (gaps_file("check = 1\nkind = 'never'\nreason = 'r'"), "check is 1; expected a text"),
    ],
)
def test_a_file_that_is_not_understood_is_refused(text, said):
    with pytest.raises(PluginError, match=said):
        parse_gaps(tomllib.loads(text), "conformance.toml", ["acme", "other"])


def test_a_good_file():
    text = gaps_file(entry("ops.b[*int8*]", "never", "no int8 units", backend="acme"))
    gaps = parse_gaps(tomllib.loads(text), "conformance.toml", ["acme", "other"])
    assert gaps == (Gap("ops.b[*int8*]", "never", "no int8 units", "acme"),)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"schema = 1\n" + b"#" * (1 << 18), "more than 262144 bytes"),
        (b"schema = " + b"[" * 100_000, "cannot be read: its values are nested too deep"),
        (b"schema = '\xff'", "cannot be read: 'utf-8' codec"),
        (b"schema = ", "cannot be read: Invalid value"),
    ],
)
def test_a_file_that_is_no_file_of_gaps_is_refused(tmp_path, monkeypatch, content, said):
    package = tmp_path / "octavo_hostile"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "conformance.toml").write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "octavo_hostile", raising=False)
    record = PluginRecord("hostile", "octavo-hostile", "1", "octavo_hostile.plugin", "ok")
    with pytest.raises(PluginError, match=f"conformance.toml of octavo-hostile .*{said}"):
        read_gaps(record, "hostile")


@pytest.mark.timeout(10)
def test_a_pattern_of_many_stars_is_matched_without_going_back():
    assert not matches_whole("*a" * 2_000 + "*b", "a" * 20_000)
    assert matches_whole("*a" * 2_000 + "*", "a" * 20_000)


@pytest.mark.parametrize(
    ("pattern", "text", "whole", "within"),
    [
        ("ops.[a]", "ops.[a]", True, True),
        ("ops.[a]", "ops.a", False, False),
        ("OPS", "ops.a", False, True),
        ("*", "", True, True),
        ("ab*ba", "aba", False, False),
        ("ab*ba", "abba", True, True),
        ("a*b", "xaxbx", False, True),
        ("b*a", "ab", False, False),
    ],
)
def test_a_star_is_any_text_and_all_else_itself(pattern, text, whole, within):
    assert (matches_whole(pattern, text), matches_within(pattern, text)) == (whole, within)


def table(*checks):
    return GapTable(tuple(Gap(check, "notyet", "a reason") for check in checks), "c.toml")


@pytest.mark.parametrize(
    ("checks", "said"),
    [
        (["ops.c"], "no check or case is called 'ops.c'. Did you mean 'ops.b'"),
        (["ops.b[*int16*]"], r"called 'ops.b\[\*int16\*\]'. Did you mean 'ops.b\[int4\]'"),
        (["ops.b", "ops.b[*int8*]"], r"'ops.b' and 'ops.b\[\*int8\*\]' both match"),
        (["int8"], "no check or case is called 'int8'"),  # an id from end to end
    ],
)
def test_patterns_must_fit_the_suite(checks, said):
    with pytest.raises(PluginError, match=said):
        table(*checks).check_against(CASES)


def test_brackets_stand_for_themselves():
    gaps = table("ops.b[*int8*]", "ops.a")
    gaps.check_against(CASES)
    assert gaps.gap_of("ops.b", "ops.b[int8 2:3]") is gaps.gaps[0]
    assert gaps.gap_of("ops.b", "ops.b[int4]") is None


@pytest.mark.parametrize(
    ("status", "becomes"),
    [
        ("failed", "gap"),
        ("passed", "failed"),
        ("measured", "failed"),
        ("unclaimed", "unclaimed"),
        ("blocked", "blocked"),
    ],
)
def test_what_a_gap_makes_of_a_result(status, becomes):
    judged = table("ops.a").judge(Result("ops.a", "ops.a", status, "as it was"))
    assert judged.status == becomes
    assert (judged.gap is not None) == (status in ("failed", "unclaimed"))
    assert ("delete the entry 'ops.a'" in judged.message) == (status in ("passed", "measured"))


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


def test_declared_failures_are_gaps_and_shown(site):
    gaps = gaps_file(
        entry("ops.linear[rows=2]"),
        entry("ops.linear[rows=3]", "never", "three is no number"),
        entry("ops.linear[int8]", "notimpl", "somebody must"),
    )
    install_acme(site, FAILING, gaps)
    ended = run_conform(site, "acme", "--no-performance")

    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = [" ".join(line.split()) for line in ended.stdout.splitlines()]
    assert "linear linear multiplies. 7 - 2 1" in lines
    assert "never ops.linear[rows=3] three is no number 1" in lines
    assert "notimpl ops.linear[int8] somebody must 1" in lines
    assert "0 failed, 2 gaps, 1 unclaimed" in lines[-1]


def test_a_closed_gap_fails(site):
    install_acme(site, FAILING, gaps_file(entry("ops.linear[rows=*]")))
    ended = run_conform(site, "acme", "-k", "ops.linear", "--json")

    assert ended.returncode == 1
    results = {result["id"]: result for result in json.loads(ended.stdout)["results"]}
    assert results["ops.linear[rows=2]"]["gap"]["reason"] == "the driver is young"
    closed = results["ops.linear[rows=4]"]
    assert closed["status"] == "failed"
    assert "conformance.toml of octavo-acme declares it a gap" in closed["message"]


def test_a_gap_for_nothing_ends_the_run_before_it_begins(site):
    install_acme(site, FAILING, gaps_file(entry("ops.linaer")))
    ended = run_conform(site, "acme")

    assert (ended.returncode, ended.stdout) == (1, "")
    assert "no check or case is called 'ops.linaer'. Did you mean 'ops.linear'?" in ended.stderr


def test_a_gap_of_another_backend_of_the_package_is_its_own(site):
    source = (
        "@hookimpl\ndef octavo_register_backends(register):\n"
        "    register(spec(load=load))\n    register(spec(name='other', load=load))\n"
    )
    install_acme(site, FAILING + source, gaps_file(entry("ops.linear[rows=2]", backend="other")))

    for backend, status in (("acme", "failed"), ("other", "gap")):
        ended = run_conform(site, backend, "-k", "ops.linear[rows=2]", "--json")
        assert [each["status"] for each in json.loads(ended.stdout)["results"]] == [status]
