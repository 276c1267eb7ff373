"""The commands of README and of the pages on devices: they parse, and install what there is."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from octavo.cli.main import app

REPO_ROOT = Path(__file__).resolve().parents[2]
PAGES = [REPO_ROOT / "README.md", *sorted((REPO_ROOT / "docs/devices").glob("*.md"))]
_BLOCK = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`((?:octavo|pip install) [^`]*)`")


def commands(program: str) -> Iterator[list[str]]:
    """The arguments of each command of a program, as a shell would hand them over."""
    for page in PAGES:
        text = page.read_text("utf-8")
        lines = "".join(_BLOCK.findall(text)).replace("\\\n", " ").splitlines()
        for line in [*lines, *(found.replace("\n", " ") for found in _INLINE.findall(text))]:
            words = shlex.split(line.replace("…", ""), comments=True)
            while words and re.match(r"[A-Z_]+=", words[0]):
                del words[0]
            if words[:1] == [program]:
                yield words[1:]


@pytest.mark.parametrize("words", [pytest.param(w, id=" ".join(w)) for w in commands("octavo")])
def test_octavo_takes_it(words):
    group = typer.main.get_command(app)
    context = group.make_context("octavo", ["-h"], resilient_parsing=True)
    name, command, rest = group.resolve_command(context, words)
    command.make_context(name, rest, parent=context)


def installable() -> dict[str, set[str]]:
    """Each of our distributions with its extras, by name and by folder."""
    found = {}
    for file in [REPO_ROOT / "core/pyproject.toml", *REPO_ROOT.glob("backends/*/pyproject.toml")]:
        project = tomllib.loads(file.read_text("utf-8"))["project"]
        extras = set(project.get("optional-dependencies", {}))
        found[project["name"]] = extras
        found["./" + file.parent.relative_to(REPO_ROOT).as_posix()] = extras
    return found


def test_pip_installs_what_is_there():
    known = installable()
    num_ours = 0
    for words in commands("pip"):
        for word in words[1:] if words[0] == "install" else []:
            name, _, extra = word.rstrip("]").partition("[")
            is_ours = name.startswith(("octavo", "./"))
            num_ours += is_ours
            if is_ours:
                assert name in known, words
                assert not extra or extra in known[name], words
    assert num_ours > len(PAGES)
