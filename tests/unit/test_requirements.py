"""constraints.txt and requirements/ say the same as the distributions' own dependencies."""

from __future__ import annotations

import re
import tomllib
from itertools import chain

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def read_requirements(path):
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in path.read_text().splitlines())
    return [Requirement(line) for line in lines if line]


def own_dependencies(repo_root, *folders):
    """Third-party dependencies of distributions, those of extras included."""
    found = []
    for folder in folders:
        project = tomllib.loads((repo_root / folder / "pyproject.toml").read_text())["project"]
        extras = project.get("optional-dependencies", {}).values()
        found += [Requirement(text) for text in chain(project["dependencies"], *extras)]
    return [requirement for requirement in found if not requirement.name.startswith("octavo")]


def exact_pins(path):
    return {
        canonicalize_name(requirement.name): str(requirement.specifier).removeprefix("==")
        for requirement in read_requirements(path)
    }


def test_constraints_are_exact_and_portable(repo_root):
    requirements = read_requirements(repo_root / "constraints.txt")
    assert requirements
    for requirement in requirements:
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", requirement
        # A local version such as 2.13.0+cpu would exclude the other builds of a release.
        assert "+" not in specifier.version, requirement
        assert requirement.url is None, requirement


@pytest.mark.parametrize("name", ["build", "test", "oracles", "lint"])
def test_everything_that_is_asked_for_is_pinned(repo_root, name):
    pins = exact_pins(repo_root / "constraints.txt")
    requirements = read_requirements(repo_root / "requirements" / f"{name}.txt")
    assert requirements
    assert [r.name for r in requirements if canonicalize_name(r.name) not in pins] == []


def test_pins_satisfy_the_dependencies(repo_root):
    pins = exact_pins(repo_root / "constraints.txt")
    folders = ("core", *(str(path.parent) for path in repo_root.glob("backends/*/pyproject.toml")))
    assert len(folders) > 2
    for dependency in own_dependencies(repo_root, *folders):
        assert dependency.specifier.contains(pins[canonicalize_name(dependency.name)])


def test_oldest_holds_exactly_the_lower_bounds(repo_root):
    lower_bounds = {
        canonicalize_name(dependency.name): specifier.version
        for dependency in own_dependencies(repo_root, "core", "backends/cpu")
        for specifier in dependency.specifier
        if specifier.operator == ">="
    }
    oldest = exact_pins(repo_root / "requirements" / "oldest.txt")
    shortened = {name: version.removesuffix(".0") for name, version in oldest.items()}
    assert shortened == {name: bound.removesuffix(".0") for name, bound in lower_bounds.items()}
