"""Triton kernels compiled for GPUs that are not here, and held to their budgets."""

from __future__ import annotations

import dataclasses
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")
pytest.importorskip("octavo_torch", reason="octavo-torch is not installed")

from triton.runtime.jit import JITFunction

from octavo_torch.kernels.ahead import TARGETS, compile_case
from octavo_torch.kernels.catalog import all_kernels

BUDGETS = tomllib.loads(Path(__file__).with_name("budgets.toml").read_text("utf-8"))
# What is another number in each step, under the names that kernels have for it.
OF_A_STEP = {"num_rows", "num_tokens", "num_entries", "num_seqs", "table_stride", "num_splits"}
QUICK_TARGETS = ("sm90", "gfx942")
CASES = [
    pytest.param(
        kernel.name,
        case.label,
        target,
        id=f"{kernel.name}[{case.label}]-{target}",
        marks=() if target in QUICK_TARGETS else pytest.mark.slow,
    )
    for kernel in all_kernels().values()
    for case in kernel.cases
    for target in TARGETS
    if case.ahead
]


def exceptions_for(kernel, case, target):
    return [
        each
        for each in BUDGETS["exceptions"]
        if (each["kernel"], each["case"], each["target"]) == (kernel, case, target)
    ]


def expected_in(kernel, case, target):
    """What the budgets want to find in a case's code."""
    return {
        each["contains"]
        for each in BUDGETS["expects"]
        if each["kernel"] == kernel and each.get("case", case) == case and target in each["targets"]
    }


@pytest.fixture(autouse=True)
def compiler(monkeypatch, tmp_path):
    """A cache of its own, and a choice that Triton asks for."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


@pytest.mark.parametrize(("name", "label", "target_name"), CASES)
def test_kernel_compiles_within_its_budget(name, label, target_name):
    kernel, target = all_kernels()[name], TARGETS[target_name]
    case = next(each for each in kernel.cases if each.label == label)
    builds = compile_case(kernel, case, target)
    assert builds
    exceptions = exceptions_for(name, label, target_name)
    allowed = max([BUDGETS["spills"], *(each["spills"] for each in exceptions)])
    spills = max(build.spills for build in builds)
    assert spills <= allowed, f"{spills} spills, {allowed} are allowed: {builds}"
    if exceptions:
        assert spills > BUDGETS["spills"], "the exception is not needed any more"
    for build in builds:
        assert build.shared_bytes <= target.shared_bytes, build
        assert not (case.exact and build.fused), build
    matrix = frozenset().union(*(build.matrix_instructions for build in builds))
    loads = frozenset().union(*(build.tile_loads for build in builds))
    if target.vendor in case.expects:
        wanted = case.expects[target.vendor]
        assert matrix if wanted == "matrix" else any(wanted in each for each in matrix), builds
    assert expected_in(name, label, target_name) <= matrix | loads, builds


def test_every_entry_of_the_budgets_is_for_something_that_is_compiled():
    known = {tuple(case.values) for case in CASES}
    for each in BUDGETS["exceptions"]:
        assert (each["kernel"], each["case"], each["target"]) in known
        assert each["reason"]
    for each in BUDGETS["expects"]:
        for target in each["targets"]:
            assert any(
                (each["kernel"], each.get("case", case), target) == (kernel, case, name)
                for kernel, case, name in known
            )


@pytest.mark.parametrize("name", ["attention_prefill", "attention_decode"])
def test_attention_is_compiled_once_for_batches_of_all_sizes(name, tmp_path):
    """Triton compiles anew for integers that are 1 or multiples of 16, unless it is told not to."""
    kernel = all_kernels()[name]
    case = next(each for each in kernel.cases if each.ahead)

    def batch_of(num_seqs, num_blocks):
        def make(device, generator):
            arguments = case.make(device, generator)
            plan = dataclasses.replace(
                arguments["plan"],
                block_table=torch.zeros((num_seqs, num_blocks), dtype=torch.int32),
                query_start=torch.arange(num_seqs + 1, dtype=torch.int32),
                seq_lens=torch.ones(num_seqs, dtype=torch.int32),
                num_seqs=num_seqs,
                max_seq_len=1,
            )
            return arguments | {"plan": plan}

        return dataclasses.replace(case, make=make)

    for size in ((1, 1), (5, 7), (16, 16)):
        compile_case(kernel, batch_of(*size), TARGETS["sm90"])
    assert len(list(tmp_path.glob(f"*/_{name}.cubin"))) == 1


def test_nothing_is_compiled_anew_for_the_size_of_a_step():
    modules = {import_module(kernel.launch.__module__) for kernel in all_kernels().values()}
    specialized = {
        f"{function.__name__}: {param.name}"
        for module in modules
        for function in vars(module).values()
        if isinstance(function, JITFunction)
        for param in function.params
        if param.name in OF_A_STEP and not param.do_not_specialize
    }
    assert not specialized
