"""The vectors that the conformance suite ships are what transformers computes today."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from octavo.testing.family_vectors import family_vectors
from octavo.testing.tiny_models import TINY_MODELS


@pytest.fixture(scope="module")
def script(repo_root):
    path = repo_root / "scripts" / "make_family_vectors.py"
    spec = importlib.util.spec_from_file_location("make_family_vectors", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_is_one_for_each_tiny_model():
    assert list(family_vectors()) == list(TINY_MODELS)


@pytest.mark.parametrize("name", TINY_MODELS)
def test_transformers_computes_the_same(script, name):
    stored = family_vectors()[name]
    fresh = script.compute(name, stored.seed)
    assert fresh is not None, "an answer has come close to a tie, or repeats itself"
    assert fresh.prompt == stored.prompt
    np.testing.assert_allclose(fresh.prompt_logprobs, stored.prompt_logprobs, rtol=0, atol=1e-6)
    for field in ("answer", "after_prefix"):
        ours, theirs = getattr(fresh, field), getattr(stored, field)
        assert [token.token_id for token in ours] == [token.token_id for token in theirs]
        for number in ("logprob", "margin"):
            np.testing.assert_allclose(
                [getattr(token, number) for token in ours],
                [getattr(token, number) for token in theirs],
                rtol=0,
                atol=1e-6,
            )


@pytest.mark.parametrize("name", TINY_MODELS)
def test_no_answer_is_near_a_tie(name):
    vector = family_vectors()[name]
    assert min(token.margin for token in (*vector.answer, *vector.after_prefix)) > 1e-2
    assert vector.after_prefix[-1] == vector.answer[0]
