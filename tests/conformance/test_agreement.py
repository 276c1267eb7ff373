"""When two runs agree: claims are taken to the last bit, ties within the tolerance are not held."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from octavo.testing.agreement import Agreement
from octavo.testing.answers import Answer
from octavo.testing.check import CheckFailure

TOLERANT, EXACT = Agreement(False, 1e-3), Agreement(True, 1e-3)
ANSWER = Answer(
    token_ids=(5, 7),
    logprobs=(-0.5, -1.0),
    likeliest=({5: -0.5, 6: -2.0}, {7: -1.0, 8: -1.001}),
    prompt_logprobs=(-3.0, -4.0),
)
NEARLY = replace(ANSWER, likeliest=({5: -0.5000001, 6: -2.0}, ANSWER.likeliest[1]))


def test_equal_answers_agree():
    EXACT.require("here", [ANSWER, ANSWER], [ANSWER, replace(ANSWER)])


def test_a_claim_is_taken_to_the_last_bit():
    TOLERANT.require("here", [ANSWER], [NEARLY])
    with pytest.raises(CheckFailure, match=r"claim caps\.batch_invariant is false.*request 1") as e:
        EXACT.require("here", [ANSWER, ANSWER], [ANSWER, NEARLY])
    assert "caps.batch_invariant" in e.value.look


@pytest.mark.parametrize("agreement", [TOLERANT, EXACT])
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prompt_logprobs": (-3.0, -4.01)}, "prompt token 2 is -4.01, not -4"),
        ({"prompt_logprobs": (-3.0, math.nan)}, "prompt token 2 is nan"),
        ({"prompt_logprobs": (-3.0,)}, "1 prompt_logprobs, not 2"),
        ({"token_ids": (6, 7)}, "token 6 at step 0, not 5, 1.5 ahead"),
        ({"token_ids": (5,)}, "1 tokens, not 2"),
        ({"error": "the backend failed"}, "it failed: the backend failed"),
        ({"likeliest": ({5: -0.5, 6: -2.1}, {})}, "token 6 at step 0 is -2.1, not -2"),
    ],
)
def test_what_differs_by_more_than_the_tolerance(agreement, changes, says):
    with pytest.raises(CheckFailure, match=f"1 of 2 .*have another answer in a storm.*{says}"):
        agreement.require("in a storm", [ANSWER, ANSWER], [replace(ANSWER, **changes), ANSWER])


def test_of_a_tie_within_the_tolerance_either_token_may_win_and_what_follows_is_free():
    expected = replace(
        ANSWER, token_ids=(5, 7, 1), likeliest=(*ANSWER.likeliest, {1: 0.0, 2: -9.0})
    )
    found = replace(
        expected, token_ids=(5, 8, 3), likeliest=(*ANSWER.likeliest, {3: -0.1, 4: -2.0})
    )
    TOLERANT.require("here", [expected], [found])
    with pytest.raises(CheckFailure, match="token 8 at step 1, not 7"):
        EXACT.require("here", [expected], [found])
