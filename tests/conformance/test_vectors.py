"""The shipped vectors are what their scripts write, and the samplers of core agree with them."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import array_api_compat.numpy as xp
import numpy as np
import pytest

from octavo.ops import sampling_numpy, sampling_portable
from octavo.testing.philox_reference import reference_draw
from octavo.testing.sampling_vectors import sampling_vectors, token_logprob_vectors
from octavo.testing.vectors import read_vectors

SCRIPTS = Path(__file__).parents[2] / "scripts"
SAMPLERS = {
    "numpy": sampling_numpy.sample,
    "portable": lambda logits, batch: sampling_portable.sample(xp, logits, batch),
}
LOOKUPS = {
    "numpy": sampling_numpy.token_logprobs,
    "portable": lambda *given: sampling_portable.token_logprobs(xp, *given),
}


@pytest.fixture
def script(monkeypatch):
    """scripts/make_sampling_vectors.py as a module."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    spec = spec_from_file_location("make_sampling_vectors", SCRIPTS / "make_sampling_vectors.py")
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_sampling_vectors_are_what_the_script_writes(script):
    assert script.PATH.read_text(encoding="utf-8") == script.vectors()


def test_the_script_refuses_what_rounding_could_decide(script):
    row = script.Row([0.0, -1.0, -3.0], top_p=0.7053845)  # 1 / (1 + e^-1 + e^-3) = 0.70538451...
    with pytest.raises(script.TooCloseError, match="too close"):
        script.expected(row, -1)


def test_the_script_imports_nothing_of_octavo(script):
    for name in ("make_sampling_vectors.py", "sampling_oracle.py"):
        assert "import octavo" not in (SCRIPTS / name).read_text(encoding="utf-8")
        assert "from octavo" not in (SCRIPTS / name).read_text(encoding="utf-8")


def test_philox_draws_follow_the_documented_layout():
    draws = read_vectors("philox")["draws"]
    assert len(draws) > 10
    for draw in draws:
        *where, uniform = draw.values()
        assert reference_draw(*where) == uniform


@pytest.mark.parametrize("sample", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize("vector", sampling_vectors(), ids=lambda vector: vector.label)
def test_core_samples_the_tokens_of_the_vectors(sample, vector):
    result = sample(vector.logits, vector.batch)
    expected = vector.expected
    assert result.valid.tolist() == [row.get("valid", True) for row in expected]
    assert result.token_ids.tolist() == [row.get("token_id", 0) for row in expected]


@pytest.mark.parametrize("look_up", LOOKUPS.values(), ids=LOOKUPS)
@pytest.mark.parametrize("vector", token_logprob_vectors(), ids=lambda vector: vector.label)
def test_core_looks_up_the_logprobs_of_the_vectors(look_up, vector):
    result = look_up(vector.logits, vector.token_ids, vector.num_logprobs)
    assert result.ranks.tolist() == [row["rank"] for row in vector.expected]
    assert result.top_ids.tolist() == [row["top_ids"] for row in vector.expected]
    expected = [float(row["logprob"]) for row in vector.expected]
    np.testing.assert_allclose(result.logprobs, expected, rtol=1e-5, atol=1e-5)
