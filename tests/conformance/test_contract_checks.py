"""The contract checks on backends that keep the contract, and what they say without failing."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from mutant_runs import run_suite
from plain_backend import DEVICE, SPEC, PlainBackend, PlainOps, backend_with

from octavo.api import Backend, BackendSpec, Capabilities, Ops
from octavo.contract import contract_faults
from octavo.testing.checks import CHECKS, contract
from octavo.testing.checks.contract_plugin import version_note
from octavo.testing.conform import Planned, plan_cases, run_case
from octavo.testing.subject import Subject


def results_of(subject):
    planned = plan_cases(subject, contract.CHECKS)
    return [run_case(subject, each) if isinstance(each, Planned) else each for each in planned]


@pytest.mark.parametrize("name", ["numpy", "fake"])
def test_the_backends_that_come_with_octavo_keep_the_contract(name):
    results = results_of(Subject.installed(name))
    bad = [each for each in results if each.status not in ("passed", "unclaimed")]
    assert [(each.id, each.message) for each in bad] == []
    assert any(each.id == "contract.spec[distribution]" for each in results)


def test_the_fake_device_passes_the_whole_suite():
    """Unlike the NumPy backend, it copies whatever crosses between host and device."""
    bad = [
        each
        for each in run_suite(Subject.installed("fake"), quick=True)
        if each.status not in ("passed", "unclaimed")
    ]
    assert [(each.id, each.message) for each in bad] == []


def test_every_fault_is_listed_and_not_only_the_first():
    ops = type("Ops", (PlainOps,), {"gelu": None, "linear": lambda self, x: x})
    backend = backend_with(ops=ops, plan=None)(0, {})
    found = [(fault.kind, fault.member) for fault in contract_faults(backend, "toy")]
    assert found == [("member", "plan"), ("signature", "linear"), ("member", "gelu")]
    assert list(contract_faults(PlainBackend(0, {}), "plain")) == []


def test_the_version_before_is_served_with_a_note():
    assert version_note(2, current=2) is None
    assert "api_version=1 is deprecated" in version_note(1, current=2)


def test_what_works_without_being_claimed_is_noted():
    modest = replace(PlainBackend.caps, kv_dtypes=("float32",))
    subject = Subject.of(replace(SPEC, load=backend_with(caps=modest)), DEVICE)
    (result,) = (each for each in results_of(subject) if each.id.endswith("[what is not claimed]"))
    assert result.status == "passed"
    assert "int8 in caps.kv_dtypes" in result.message


def test_a_cache_of_integers_without_scales_does_not_work():
    class UnscaledOps(PlainOps):
        def store(self, rows, scales, slots, values):
            if rows.dtype == np.int8:
                rows[slots] = values.astype(np.int8)
            else:
                super().store(rows, scales, slots, values)

    modest = replace(PlainBackend.caps, kv_dtypes=("float32",))
    load = backend_with(caps=modest, ops=UnscaledOps)
    subject = Subject.of(replace(SPEC, load=load), DEVICE)
    (result,) = (each for each in results_of(subject) if each.id.endswith("[what is not claimed]"))
    assert "float16" in result.message
    assert "int8" not in result.message


def test_one_fault_blocks_what_cannot_be_tried_and_fails_nothing_else():
    subject = Subject.of(replace(SPEC, load=backend_with(plan=None)), DEVICE)
    results = results_of(subject)
    assert {each.check for each in results if each.status == "failed"} == {"contract.members"}
    (blocked,) = (each for each in results if each.check == "contract.packed_weights")
    assert blocked.status == "blocked"
    assert "contract.members: backend 'plain' lacks plan(" in blocked.message


def test_what_to_look_at_is_named_as_authors_know_it():
    """Each `backend.x`, `ops.x`, `spec.x` exists, and no member of a backend stands by itself."""
    kinds = {"backend": Backend, "ops": Ops, "spec": BackendSpec, "caps": Capabilities}
    members = {name: _names(kind) for name, kind in kinds.items()}
    for check in CHECKS:
        named = re.findall(r"(?<![\w.])(backend|ops|spec|caps)\.(\w+)", check.look)
        assert all(member in members[owner] for owner, member in named), check.look
        alone = re.findall(r"(?<![\w.])(copy_blocks|make_kv|compile|put_linear)\b", check.look)
        assert not alone, check.look


def _names(kind):
    return {*dir(kind), *getattr(kind, "__annotations__", {})}
