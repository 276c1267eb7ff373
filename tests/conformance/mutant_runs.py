"""Runs the suite, mostly its quick level, against every mutant, in as many processes as cores."""

from __future__ import annotations

import importlib
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from mutant import Mutant

from octavo.testing.conform import Planned, Result, all_checks, plan_cases, run_case
from octavo.testing.subject import Subject

TIME_LIMIT_S = 1000  # for all of them
_MUTANT_MODULES = sorted(path.stem for path in Path(__file__).parent.glob("mutants_*.py"))


def all_mutants() -> dict[str, Mutant]:
    """Every mutant of the modules ``mutants_*.py``, by name."""
    found = [
        mutant for module in _MUTANT_MODULES for mutant in importlib.import_module(module).MUTANTS
    ]
    names = [mutant.name for mutant in found]
    assert len(set(names)) == len(names), f"mutants share a name: {sorted(names)}"
    return {mutant.name: mutant for mutant in found}


def gating_checks():
    """Every check that can fail a backend."""
    return tuple(check for check in all_checks() if check.section != "performance")


def run_suite(subject: Subject, *, quick: bool, checks=None) -> list[Result]:
    """The results of every gating check on one subject, or of some."""
    results = []
    for planned in plan_cases(subject, checks or gating_checks(), quick=quick):
        is_planned = isinstance(planned, Planned)
        results.append(run_case(subject, planned) if is_planned else planned)
    subject.close()
    return results


def failures_of(name: str) -> list[Result]:
    """What the suite finds wrong with the mutant of that name, at the level that is to catch it.

    Where nobody claims that one check alone catches it, that check alone is run.
    """
    mutant = all_mutants()[name]
    own = [check for check in gating_checks() if check.id == mutant.caught_by]
    results = run_suite(mutant.subject(), quick=mutant.quick, checks=None if mutant.only else own)
    return [result for result in results if result.status == "failed"]


def failures_of_all() -> dict[str, list[Result]]:
    """What the suite finds wrong with each mutant."""
    names = list(all_mutants())
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=os.cpu_count(), mp_context=context) as pool:
        futures = {name: pool.submit(failures_of, name) for name in names}
        return {name: future.result(TIME_LIMIT_S) for name, future in futures.items()}
