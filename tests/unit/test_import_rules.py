"""The dependency rules of ARCHITECTURE.md: what may import what, checked in the source and live.

Each rule is a function from a module's name and source to its violations. Every rule is fed a
module that breaks it, so that a checker that finds nothing is a checker that would find something.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import pytest

REPO_ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("core", "backends/*", "examples/*")

FRAMEWORKS = {"torch", "jax", "jaxlib", "mlx", "triton"}
ARRAY_LIBRARIES = FRAMEWORKS | {"numpy", "ml_dtypes", "array_api_compat", "array_api_extra", "cupy"}
# octavo[serve] and octavo[otel]
WEB_PACKAGES = {"fastapi", "starlette", "uvicorn", "pydantic", "prometheus_client", "httptools"}
WEB_PACKAGES |= {"uvloop", "opentelemetry"}
PLAIN_MODULES = ("octavo.request", "octavo.blocks", "octavo.scheduler")
STANDARD_LIBRARY = sys.stdlib_module_names
# Vendors' thin backends build on the shared one.
BUILD_ON_TORCH = {"octavo_cuda", "octavo_rocm", "octavo_xpu"}
# What models may import of Octavo: the op protocol and plain configuration types.
MODEL_IMPORTS = (
    "octavo.models",
    "octavo.ops.protocol",
    "octavo.kv",
    "octavo.errors",
    "octavo.spec",
)
MODEL_IMPORTS += ("octavo.splits", "octavo.suggest", "octavo.step_trees")


@dataclass(frozen=True)
class Import:
    """One imported module, with what the rules ask about it."""

    module: str  # dotted, absolute; for "from a import b" both "a" and, as a candidate, "a.b"
    names: tuple[str, ...]
    is_for_types: bool  # under "if TYPE_CHECKING"
    is_at_module_level: bool
    line: int

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]


def imports_of(source: str, module: str, *, is_package: bool = False) -> Iterator[Import]:
    """Every import statement of a module, wherever it stands, and import_module("literal")."""

    def walk(node: ast.AST, for_types: bool, top: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for branch, typed in ((child.body, True), (child.orelse, for_types)):
                    yield from walk(ast.Module(branch, []), typed, top)
                continue
            yield from statement(child, for_types, top)
            yield from walk(child, for_types, top and not inside)

    def statement(node: ast.AST, for_types: bool, top: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, (), for_types, top, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            yield Import(absolute(node), names, for_types, top, node.lineno)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("import_module", "__import__")
        ):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant):
                    yield Import(str(argument.value), (), for_types, top, node.lineno)

    def absolute(node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = module.split(".") if is_package else module.split(".")[:-1]
        parts = parts[: len(parts) - node.level + 1]
        return ".".join([*parts, *([node.module] if node.module else [])])

    yield from walk(ast.parse(source), for_types=False, top=True)


Rule = Callable[[str, str, bool], list[str]]


def complain(each: Import, module: str) -> str:
    names = f" ({', '.join(each.names)})" if each.names else ""
    return f"{module}:{each.line} imports {each.module}{names}"


def plain_modules_use_the_standard_library(module: str, source: str, is_package: bool) -> list[str]:
    """Rule 1: request, blocks and scheduler, and batch with numpy; indirectly: live, below."""
    allowed = {"octavo"} | ({"numpy"} if module == "octavo.batch" else set())
    if module not in (*PLAIN_MODULES, "octavo.batch"):
        return []
    return [
        complain(each, module)
        for each in imports_of(source, module, is_package=is_package)
        if not each.is_for_types and each.package not in STANDARD_LIBRARY | allowed
    ]


def core_imports_no_framework(module: str, source: str, is_package: bool) -> list[str]:
    """Rule 2: no torch, jax, triton or backend anywhere under octavo, not even for types."""
    if module.partition(".")[0] != "octavo":
        return []
    return [
        complain(each, module)
        for each in imports_of(source, module, is_package=is_package)
        if each.package in FRAMEWORKS or each.package.startswith("octavo_")
    ]


def models_name_no_array_library(module: str, source: str, is_package: bool) -> list[str]:
    """Rule 3: models see the op protocol and configuration types only."""
    if not module.startswith("octavo.models"):
        return []

    def is_allowed(each: Import) -> bool:
        if each.package in STANDARD_LIBRARY:
            return True
        targets = [f"{each.module}.{name}" for name in each.names] or [each.module]
        return all(
            any(f"{target}.".startswith(f"{allowed}.") for allowed in MODEL_IMPORTS)
            for target in targets
        )

    return [
        complain(each, module)
        for each in imports_of(source, module, is_package=is_package)
        if not (is_allowed(each) or (each.is_for_types and each.package == "jaxtyping"))
    ]


def backends_use_the_api(module: str, source: str, is_package: bool) -> list[str]:
    """Rule 4: of core octavo.api only, and no other backend, save vendors' on octavo_torch.

    And octavo.testing, which is public as well: the fake device takes its faults from there.
    """
    package = module.partition(".")[0]
    if not package.startswith("octavo_"):
        return []
    allowed = {package} | ({"octavo_torch"} if package in BUILD_ON_TORCH else set())
    violations = []
    for each in imports_of(source, module, is_package=is_package):
        is_core = each.package == "octavo" and each.module not in ("octavo.api", "octavo.testing")
        is_from_root = each.module == "octavo" and each.names == ("api",)
        is_backend = each.package.startswith("octavo_") and each.package not in allowed
        if (is_core and not is_from_root) or is_backend:
            violations.append(complain(each, module))
    return violations


def plugin_modules_are_light(module: str, source: str, is_package: bool) -> list[str]:
    """Rule 5: plugin.py imports octavo.api and the standard library at module level.

    Modules of its own package are allowed here and judged by what they import, live.
    """
    package, _, name = module.partition(".")
    if not package.startswith("octavo_") or name != "plugin":
        return []
    return [
        complain(each, module)
        for each in imports_of(source, module, is_package=is_package)
        if each.is_at_module_level
        and not each.is_for_types
        and each.package not in STANDARD_LIBRARY | {package}
        and each.module != "octavo.api"
    ]


def the_web_stays_in_the_server(module: str, source: str, is_package: bool) -> list[str]:
    """Rule 6: whoever does not serve needs no web framework, not even where it is imported late."""
    if module.partition(".")[0] != "octavo" or f"{module}.".startswith("octavo.server."):
        return []
    return [
        complain(each, module)
        for each in imports_of(source, module, is_package=is_package)
        if each.package in WEB_PACKAGES
    ]


RULES: dict[Rule, list[tuple[str, str]]] = {
    plain_modules_use_the_standard_library: [
        ("octavo.scheduler", "import numpy as np"),
        ("octavo.request", "def f():\n    from rich import print"),
        ("octavo.blocks", "try:\n    import xxhash\nexcept ImportError:\n    pass"),
        ("octavo.batch", "import torch"),
    ],
    core_imports_no_framework: [
        ("octavo.engine", "import torch"),
        ("octavo.engine", "def f():\n    import jax.numpy as jnp"),
        ("octavo.engine", "from triton.language import load"),
        ("octavo.engine", "from octavo_cpu import plugin"),
        ("octavo.engine", "if TYPE_CHECKING:\n    import torch"),
        ("octavo.engine", "import importlib\nimportlib.import_module('torch.nn')"),
        ("octavo.engine", "class A:\n    def f(self):\n        __import__('jaxlib')"),
    ],
    models_name_no_array_library: [
        ("octavo.models.llama", "import numpy as np"),
        ("octavo.models.llama", "from array_api_compat import array_namespace"),
        ("octavo.models.llama", "from octavo.ops.portable import PortableOps"),
        ("octavo.models.llama", "from octavo.ops import portable"),
        ("octavo.models.llama", "from ..ops import portable"),
        ("octavo.models.llama", "from octavo import engine"),
        ("octavo.models.llama", "def f():\n    import torch"),
        ("octavo.models.llama", "if TYPE_CHECKING:\n    import numpy as np"),
    ],
    backends_use_the_api: [
        ("octavo_cpu.backend", "from octavo.ops.portable import PortableOps"),
        ("octavo_cpu.backend", "import octavo.kv"),
        ("octavo_cpu.backend", "from octavo.testing.faulty import FaultyBackend"),
        ("octavo_cpu.backend", "from octavo import kv"),
        ("octavo_cpu.backend", "import octavo"),
        ("octavo_cpu.backend", "if TYPE_CHECKING:\n    from octavo.kv import KVSpec"),
        ("octavo_cpu.backend", "from octavo_torch import ops"),
        ("octavo_torch.backend", "import octavo_cuda"),
        ("octavo_cuda.backend", "from octavo_rocm.ops import x"),
    ],
    plugin_modules_are_light: [
        ("octavo_cpu.plugin", "import numpy"),
        ("octavo_cpu.plugin", "from octavo.backend import Backend"),
        ("octavo_cpu.plugin", "if True:\n    import torch"),
        ("octavo_cpu.plugin", "class A:\n    import torch"),
        ("octavo_cuda.plugin", "from octavo_torch import backend"),
    ],
    the_web_stays_in_the_server: [
        ("octavo.engine", "import pydantic"),
        ("octavo.cli.serve", "def f():\n    import uvicorn"),
        ("octavo.servers", "from fastapi import FastAPI"),
        ("octavo.engine", "if TYPE_CHECKING:\n    from starlette.requests import Request"),
    ],
}

GOOD = [
    ("octavo.scheduler", "import heapq\nfrom octavo.request import Request"),
    ("octavo.batch", "import numpy as np"),
    ("octavo.models.llama", "from octavo.ops.protocol import Ops\nfrom octavo.kv import KVSpec"),
    ("octavo.models.llama", "from . import base\nfrom .rope import scaled"),
    ("octavo.models.llama", "if TYPE_CHECKING:\n    from jaxtyping import Float"),
    (
        "octavo_cpu.backend",
        "import numpy\nfrom octavo.api import Backend\nfrom octavo_cpu import ops",
    ),
    ("octavo_cpu.backend", "from octavo import api"),
    ("octavo.server.app", "from fastapi import FastAPI"),
    ("octavo.cli.serve", "def f():\n    from octavo.server.lifecycle.run import run_server"),
    ("octavo_cpu.fake.load", "from octavo.testing import FaultyBackend"),
    ("octavo_cuda.backend", "import torch\nfrom octavo_torch.backend import TorchBackend"),
    ("octavo_cpu.plugin", "import os\nfrom octavo.api import hookimpl\ndef f():\n    import numpy"),
]


def source_modules(*folders: str) -> list[tuple[str, Path]]:
    """(dotted name, file) of every module that is shipped, and of the examples."""
    found = []
    for root in chain(*(REPO_ROOT.glob(f"{folder}/src") for folder in folders or FOLDERS)):
        for file in sorted(root.rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found.append((name, file))
    return found


def test_there_is_something_to_check():
    names = {name for name, _ in source_modules()}
    assert {*PLAIN_MODULES, "octavo.batch", "octavo.models.base", "octavo_cpu.plugin"} <= names
    assert {"octavo_template.backend", "octavo_mlx.backend"} <= names


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_tree_keeps_the_rule(rule):
    violations = []
    for name, file in source_modules():
        violations += rule(name, file.read_text("utf-8"), file.name == "__init__.py")
    assert violations == []


@pytest.mark.parametrize(
    ("rule", "module", "source"),
    [(rule, *case) for rule, cases in RULES.items() for case in cases],
    ids=lambda value: getattr(value, "__name__", None) or str(value),
)
def test_the_rule_finds_what_breaks_it(rule, module, source):
    assert rule(module, source, False)


@pytest.mark.parametrize(("module", "source"), GOOD)
def test_no_rule_objects_to_what_is_allowed(module, source):
    assert [rule(module, source, False) for rule in RULES] == [[]] * len(RULES)


def loaded_after(*modules: str) -> set[str]:
    """Names of all modules in memory once a fresh interpreter has imported some."""
    script = f"import importlib, sys\nfor m in {modules!r}: importlib.import_module(m)\n"
    script += "print('\\n'.join(sys.modules))"
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, encoding="utf-8", check=True
    )
    return set(ended.stdout.split())


def packages(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def foreign(modules: set[str]) -> set[str]:
    """Top-level packages that belong neither to Python (and its start-up) nor to Octavo."""
    at_start = packages(loaded_after())
    return packages(modules) - STANDARD_LIBRARY - at_start - {"octavo"}


def test_live_the_scheduler_needs_the_standard_library_only():
    assert foreign(loaded_after(*PLAIN_MODULES)) == set()


def test_live_batch_adds_numpy_at_most():
    assert foreign(loaded_after("octavo.batch")) <= {"numpy"}


def test_live_importing_octavo_is_light():
    loaded = loaded_after("octavo")
    assert foreign(loaded) == set()
    assert {name for name in loaded if name.startswith("octavo.")} == set()


def test_live_all_of_core_loads_no_framework_and_no_backend():
    core = [name for name, _ in source_modules() if name.startswith("octavo.")]
    loaded = packages(loaded_after(*core))
    assert not loaded & (FRAMEWORKS | {"transformers"})
    assert not {name for name in loaded if name.startswith("octavo_")}


def test_live_commands_load_no_web_framework():
    """Not even ``octavo serve``, until there is something to serve."""
    commands = [name for name, _ in source_modules() if name.startswith("octavo.cli.")]
    plan = [
        "octavo.server.config",
        "octavo.server.lifecycle.deployment",
        "octavo.server.lifecycle.model_loading",
    ]
    assert not packages(loaded_after("octavo", *commands, *plan)) & WEB_PACKAGES


def test_live_models_load_no_array_library():
    models = [name for name, _ in source_modules() if name.startswith("octavo.models")]
    assert not packages(loaded_after(*models)) & ARRAY_LIBRARIES


def test_live_every_plugin_module_is_light():
    installed = source_modules("core", "backends/*")
    plugins = [name for name, _ in installed if name.endswith(".plugin")]
    # Where there is no torch, what builds on it is not installed.
    plugins = [name for name in plugins if find_spec(name.partition(".")[0])]
    own = {name.partition(".")[0] for name in plugins}
    assert foreign(loaded_after(*plugins)) == {"pluggy"} | own


def test_live_the_checks_see_what_they_look_for():
    """The live tests would notice: an import shows up in what they read."""
    assert "numpy" in foreign(loaded_after("octavo.loading.tensors"))
    assert "pluggy" in foreign(loaded_after("octavo.api"))


def test_every_public_name_arrives_on_first_use():
    script = """
        import octavo, octavo.api
        for module in (octavo, octavo.api):
            for name in module.__all__:
                getattr(module, name)
            assert set(module.__all__) == set(dir(module))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


def test_an_unknown_name_is_an_attribute_error():
    import octavo
    from octavo import api

    for module in (octavo, api):
        with pytest.raises(AttributeError, match="no_such_name"):
            _ = module.no_such_name
