"""Every relative link of every Markdown page leads to a file, and to a heading that is there."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO_ROOT = Path(__file__).resolve().parents[2]
NOT_OURS = {".git", ".venv", "models", "shared", "node_modules"}

_FENCE = re.compile(r"^ {0,3}(```|~~~).*?^ {0,3}\1", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
_REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s+(\S+)", re.MULTILINE)
_HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
_HAS_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def pages(root: Path) -> Iterator[Path]:
    """Markdown files of the checkout; what git ignores is not ours."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0 and listed.stdout:
        yield from (root / name for name in listed.stdout.splitlines() if (root / name).is_file())
        return
    for page in root.rglob("*.md"):  # an unpacked archive
        if not NOT_OURS & set(page.relative_to(root).parts):
            yield page


def links(text: str) -> list[str]:
    """Targets of all links but those in code."""
    prose = re.sub(r"`[^`\n]*`", "", _FENCE.sub("", text))
    return [*_INLINE.findall(prose), *_REFERENCE.findall(prose)]


def anchors(text: str) -> set[str]:
    """What a page's headings are called in links, as GitHub and most others call them."""
    found: set[str] = set()
    for heading in _HEADING.findall(_FENCE.sub("", text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        copies = (f"{slug}-{number}" for number in range(1, len(found) + 2))
        found.add(slug if slug not in found else next(each for each in copies if each not in found))
    return found


def dead_links(page: Path, root: Path) -> list[str]:
    """Each link of a page that leads nowhere, and why."""
    wrong = []
    for link in links(page.read_text(encoding="utf-8")):
        if _HAS_SCHEME.match(link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.is_relative_to(root):
            wrong.append(f"{link}: leaves the repository")
        elif not target.exists():
            wrong.append(f"{link}: no such file")
        elif anchor and anchor not in anchors(target.read_text(encoding="utf-8")):
            wrong.append(f"{link}: no such heading")
    return wrong


@pytest.mark.parametrize("page", [str(page.relative_to(REPO_ROOT)) for page in pages(REPO_ROOT)])
def test_links_lead_somewhere(page):
    assert dead_links(REPO_ROOT / page, REPO_ROOT) == []


def test_dead_links_are_found(tmp_path):
    (tmp_path / "other.md").write_text("# One `two`, three\n\n## Again\n\n## Again\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Here\n[a](other.md) [b](#here) [c](other.md#one-two-three) [d](other.md#again-1)\n"
        "[e](https://example.org/x#y) `[f](code.md)`\n```\n[g](code.md)\n# No heading\n```\n"
        "[h](missing.md) [i](#no-heading) [j](other.md#four) [k](../outside.md)\n\n"
        "[l]: missing-too.md\n"
    )
    assert dead_links(page, tmp_path) == [
        "missing.md: no such file",
        "#no-heading: no such heading",
        "other.md#four: no such heading",
        "../outside.md: leaves the repository",
        "missing-too.md: no such file",
    ]
