"""docs/structured-output.md is what happens: its Python runs, and so do its commands."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def page(repo_root):
    return (repo_root / "docs" / "structured-output.md").read_text("utf-8")


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_the_python_runs_as_it_stands(page, smollm2_path, tmp_path):
    (tmp_path / "models").symlink_to(smollm2_path.parent)
    script = "\n".join(blocks(page.partition("\n## Over HTTP")[0], "python"))
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    age, country, number, total = ended.stdout.splitlines()
    assert 0 <= int(age) <= 120
    assert country == " France"
    assert re.fullmatch(r" \d{3}-\d{4}", number)
    assert re.fullmatch(r" [0-9]{1,3}\.", total)


FORMS = (r" (yes|no)\n", r" [12]\d{3}-[01]\d-[0-3]\d\n", r"\[\s*([12]\s*(,\s*[12]\s*){0,2})?\]\n")


@pytest.mark.parametrize("number", range(3))
def test_each_command_runs_as_it_stands(page, smollm2_path, number):
    [_, commands] = blocks(page, "bash")
    command = shlex.split(
        commands.splitlines()[number].replace("MODEL", shlex.quote(str(smollm2_path)))
    )
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "octavo.cli.main",
            *command[1:],
            "--max-tokens",
            "200",
            "--seed",
            "1",
        ],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    assert re.fullmatch(FORMS[number], ended.stdout)


def test_the_limits_are_those_in_force(page):
    from octavo.structured import limits

    assert f"{limits.MAX_TEXT_BYTES >> 10} KiB for a schema" in page
    assert f"{limits.MAX_REGEX_LENGTH >> 10} KiB for a regular" in page
    assert f"{limits.MAX_CHOICES:,} choices" in page
    assert f"{limits.MAX_GBNF_RULES:,}\n  rules of GBNF" in page
