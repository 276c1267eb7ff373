"""The suite is itself proven: it passes a right backend, and no mutant gets through any check."""

from __future__ import annotations

import re

import pytest
from mutant_runs import all_mutants, failures_of_all, gating_checks, run_suite
from plain_backend import DEVICE, SPEC

from octavo.testing.subject import Subject

# One fixture runs the suite on every mutant: minutes on a slow machine, charged to the first test.
pytestmark = pytest.mark.timeout(1200)

MUTANTS = all_mutants()
CHECK_IDS = [check.id for check in gating_checks()]


@pytest.fixture(scope="module")
def failures():
    return failures_of_all()


def test_plain_backend_passes():
    results = run_suite(Subject.of(SPEC, DEVICE, distribution="octavo-plain"), quick=False)
    assert [(result.id, result.message) for result in results if result.status != "passed"] == []
    assert {result.check for result in results} == set(CHECK_IDS)


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_mutant_is_caught_and_told_what_is_wrong(mutant, failures):
    """By the check it is meant for, in words that say what is wrong and where to look."""
    assert mutant.caught_by in CHECK_IDS
    found = [result for result in failures[mutant.name] if result.check == mutant.caught_by]
    assert found, f"{mutant.caught_by} lets {mutant.name!r} through: {mutant.about}"
    said = f"{found[0].message}\n{found[0].look}"
    assert re.search(mutant.says, said), said


@pytest.mark.parametrize("check_id", CHECK_IDS)
def test_no_check_can_be_spared(check_id, failures):
    """Without this check, the mutant that nothing else catches would pass the suite."""
    caught_by_it_alone = [
        name
        for name, mutant in MUTANTS.items()
        if mutant.only and {result.check for result in failures[name]} == {check_id}
    ]
    others = {
        name: sorted({result.check for result in failures[name]})
        for name, mutant in MUTANTS.items()
        if mutant.caught_by == check_id
    }
    assert caught_by_it_alone, f"no mutant is caught by {check_id} alone; those for it: {others}"


def test_only_is_true_of_each_mutant_that_says_so(failures):
    wrong = {
        name: sorted({result.check for result in failures[name]})
        for name, mutant in MUTANTS.items()
        if mutant.only and {result.check for result in failures[name]} != {mutant.caught_by}
    }
    assert wrong == {}
