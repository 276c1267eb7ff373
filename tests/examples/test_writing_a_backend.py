"""docs/writing-a-backend.md, followed to the letter; where it ends, the template stands."""

from __future__ import annotations

import pytest
from walkthrough import Walk, read_blocks

pytest.importorskip("jax", reason="the backend of the document runs on jax, which is not installed")

TEMPLATE = "examples/backend-template"
PAGE = "docs/writing-a-backend.md"


@pytest.fixture(scope="module")
def blocks(repo_root):
    return read_blocks((repo_root / PAGE).read_text("utf-8"))


def variables(environment, repo_root):
    """What lets `pip install -e .` be written as a user writes it, and fetch no build backend."""
    return {
        **environment.variables,
        "COLUMNS": "120",
        "PIP_CONSTRAINT": str(repo_root / "constraints.txt"),
        "PIP_NO_BUILD_ISOLATION": "0",  # which is how pip spells no isolation
    }


def test_the_page_can_be_followed(blocks, clean_environment, repo_root, tmp_path):
    build = str(repo_root / "requirements" / "build.txt")
    with clean_environment.installed("-r", build, remove="octavo-template"):
        walk = Walk(tmp_path, variables(clean_environment, repo_root))
        for block in blocks:
            walk.follow(block)


def test_it_ends_with_the_template(blocks, repo_root):
    template = repo_root / TEMPLATE
    last = {
        block.info: block.body for block in blocks if block.info and block.language != "console"
    }
    files = [file for file in template.rglob("*.*") if file.suffix in (".py", ".toml")]
    assert len(files) >= 6
    for file in files:
        name = file.relative_to(template).as_posix()
        assert last.get(name, "") == file.read_text("utf-8"), name


def test_a_false_line_would_be_found(tmp_path):
    page = "```console\n$ echo some text\nother text\n```\n"
    with pytest.raises(AssertionError, match=r"line 1: \$ echo some text"):
        Walk(tmp_path, {}).follow(*read_blocks(page))
