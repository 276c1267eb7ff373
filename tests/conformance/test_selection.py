"""Which cases ``octavo conform`` chooses: by section, pattern and level."""

from __future__ import annotations

import pytest
from conform_toys import CASE_IDS, CHECKS

from octavo.errors import UsageError
from octavo.testing.isolated import ListedCase
from octavo.testing.selection import Selection

LISTED = [
    ListedCase(check, check.case_id(case), case.unclaimed, case.quick)
    for check in CHECKS
    for case in check.cases(None)
]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, CASE_IDS),
        ({"performance": False}, CASE_IDS[:-2]),
        ({"quick": True}, [*CASE_IDS[:3], *CASE_IDS[10:12]]),
        ({"quick": True, "performance": True}, [*CASE_IDS[:3], *CASE_IDS[10:]]),
        ({"sections": ("contract", "performance")}, ["contract.name", *CASE_IDS[-2:]]),
        ({"sections": ("contract",), "performance": True}, ["contract.name"]),
        ({"pattern": "ops.linear"}, CASE_IDS[1:11]),  # the check, not all ids that begin like it
        ({"pattern": "LINEAR*rows=1"}, ["ops.linear[rows=1]", "ops.linear_again[rows=1]"]),
        ({"pattern": "ops.linear[rows=9]", "quick": True}, ["ops.linear[rows=9]"]),
    ],
)
def test_what_is_chosen(options, expected):
    assert [case.id for case in LISTED] == CASE_IDS
    assert [case.id for case in Selection(**options).choose(LISTED)] == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sections": ("opps",)}, "Did you mean 'ops'"),
        ({"pattern": "ops.linaer"}, "Did you mean 'ops.linear'"),
        ({"pattern": "rows=9", "quick": True}, "'rows=9' is left to run with --quick"),
        ({"sections": ("faults",)}, "Nothing is left to run with --section faults"),
        ({"sections": ("performance",), "performance": False}, "--no-performance"),
    ],
)
def test_a_choice_of_nothing_is_an_error(options, said):
    with pytest.raises(UsageError, match=said):
        Selection(**options).choose(LISTED)


def test_a_check_whose_cases_cannot_be_listed_is_something_to_run():
    selection = Selection(pattern="linear_again")

    assert selection.choose(LISTED[:3], ["ops.linear_again"]) == []
