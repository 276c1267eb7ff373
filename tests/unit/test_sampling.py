"""Sampling on NumPy: its distribution, its rules at the edges, rows that ignore each other."""

from __future__ import annotations

import array_api_compat.numpy as xp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from octavo.ops import sampling_numpy, sampling_portable
from octavo.ops.sampling import sample, token_logprobs
from octavo.philox import uniforms
from sampling_batches import make_batch, random_batch, random_logits, row_of, stratified

SAMPLERS = {
    "numpy": sampling_numpy.sample,
    "portable": lambda logits, batch: sampling_portable.sample(xp, logits, batch),
}
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)


def softmax(logits: np.ndarray) -> np.ndarray:
    exact = np.exp(logits.astype(float) - logits.max())
    return exact / exact.sum()


def same_logits(logits: np.ndarray, num_rows: int) -> np.ndarray:
    return np.broadcast_to(np.asarray(logits, np.float32), (num_rows, len(logits)))


def drawable(sampler, logits, num_draws=4096, **settings) -> list[int]:
    """The tokens that come up over evenly spaced uniforms."""
    batch = make_batch(num_draws, uniform=stratified(num_draws), **settings)
    return np.unique(sampler(same_logits(logits, num_draws), batch).token_ids).tolist()


@each_sampler
@pytest.mark.parametrize("temperature", [0.3, 0.6, 1, 1.7])
def test_evenly_spaced_uniforms_draw_each_token_by_its_probability(sampler, temperature):
    logits = np.random.default_rng(1).normal(0, 2, 60).astype(np.float32)
    num_draws = 8192
    batch = make_batch(num_draws, temperature=temperature, uniform=stratified(num_draws))
    drawn = sampler(same_logits(logits, num_draws), batch).token_ids
    expected = softmax(logits / np.float32(temperature)) * num_draws
    assert (np.abs(np.bincount(drawn, minlength=60) - expected) < 1 + 1e-4 * num_draws).all()


def test_random_draws_pass_a_chi_square_test():
    vocab_size, num_draws, num_cells = 1000, 40_000, 200
    logits = np.random.default_rng(2).normal(0, 2.5, vocab_size).astype(np.float32)
    counts = np.zeros(vocab_size)
    for start in range(0, num_draws, 1000):
        keys = np.full(1000, 5, np.uint64)
        positions = np.arange(start, start + 1000)
        batch = make_batch(1000, temperature=0.8, uniform=uniforms(keys, keys, keys, positions))
        drawn = sample(xp, same_logits(logits, 1000), batch).token_ids
        counts += np.bincount(drawn, minlength=vocab_size)
    probabilities = softmax(logits / np.float32(0.8))
    likeliest = np.argsort(-probabilities)[: num_cells - 1]
    rest = num_draws - counts[likeliest].sum()
    observed = np.append(counts[likeliest], rest)
    expected = np.append(probabilities[likeliest], 1 - probabilities[likeliest].sum()) * num_draws
    statistic = ((observed - expected) ** 2 / expected).sum()
    assert 130 < statistic < 285  # 199 degrees of freedom: 1 in 10,000 either way


@each_sampler
def test_greedy_takes_the_smallest_id_among_equals(sampler):
    logits = np.array([[1, 3, 3, 0], [2, 2, 2, 2], [0, 1, 2, 3]], np.float32)
    result = sampler(logits, make_batch(3, temperature=0))
    assert result.token_ids.tolist() == [1, 0, 3]
    assert result.token_ids.dtype == np.int32


@each_sampler
def test_top_k_of_one_is_greedy(sampler):
    logits = np.random.default_rng(3).normal(0, 0.001, (50, 300)).astype(np.float32)
    batch = make_batch(50, top_k=1, temperature=2, uniform=stratified(50))
    assert sampler(logits, batch).token_ids.tolist() == logits.argmax(axis=1).tolist()


@each_sampler
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"top_k": 1}, [1, 3]),  # equal logits fare alike
        ({"top_k": 2}, [1, 3]),
        ({"top_k": 3}, [1, 3, 5]),
        ({"top_k": 6}, [0, 1, 2, 3, 4, 5]),
        ({"top_k": 99}, [0, 1, 2, 3, 4, 5]),
        # Probabilities: tokens 1 and 3 0.3 each, 5 0.2, 0 0.1, 2 and 4 0.05 each.
        ({"top_p": 0.1}, [1, 3]),
        ({"top_p": 0.59}, [1, 3]),
        ({"top_p": 0.61}, [1, 3, 5]),
        ({"top_p": 0.81}, [0, 1, 3, 5]),
        ({"top_p": 0.91}, [0, 1, 2, 3, 4, 5]),
        ({"min_p": 0.1}, [0, 1, 2, 3, 4, 5]),
        ({"min_p": 0.2}, [0, 1, 3, 5]),
        ({"min_p": 0.5}, [1, 3, 5]),
        ({"min_p": 1}, [1, 3]),
        ({"top_k": 3, "top_p": 0.74}, [1, 3]),  # top_p is of what top_k kept: 0.6 / 0.8
        ({"top_k": 3, "top_p": 0.76}, [1, 3, 5]),
        ({"min_p": 0.5, "top_p": 0.74}, [1, 3]),
        ({"min_p": 0.5, "top_p": 0.76}, [1, 3, 5]),
    ],
)
def test_which_tokens_are_kept(sampler, settings, expected):
    logits = np.log([0.1, 0.3, 0.05, 0.3, 0.05, 0.2])
    assert drawable(sampler, logits, **settings) == expected


@each_sampler
def test_the_last_uniform_draws_the_last_possible_token(sampler):
    logits = np.array([[0, 0, 0, -np.inf, -np.inf]], np.float32)
    batch = make_batch(1, uniform=1 - 2.0**-24)
    assert sampler(logits, batch).token_ids.tolist() == [2]


@each_sampler
def test_rows_that_cannot_be_sampled_say_so_and_leave_the_others_alone(sampler):
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 3, (8, 100)).astype(np.float32)
    settings = {"temperature": [1, 0, 1, 0, 1, 0, 1, 1], "uniform": 0.9, "top_p": 0.9}
    expected = sampler(logits, make_batch(8, **settings)).token_ids.tolist()
    logits[0, 7] = logits[1, 7] = np.nan
    logits[2] = logits[3] = -np.inf
    logits[4, 3] = logits[5, 3] = np.inf
    logits[6, 1:] = -3.4e38
    logits[6, 0] = 100
    result = sampler(logits, make_batch(8, **settings))
    assert result.valid.tolist() == [False] * 6 + [True] * 2
    assert result.token_ids.tolist() == [0] * 6 + [0, expected[7]]


@each_sampler
def test_a_row_in_which_everything_is_masked_is_not_valid(sampler):
    mask = np.array([[True, False, True], [False, False, False]])
    logits = np.array([[0, 9, 1], [0, 9, 1]], np.float32)
    for temperature in (0, 0.01):
        result = sampler(logits, make_batch(2, mask=mask, temperature=temperature))
        assert result.valid.tolist() == [True, False]
        assert result.token_ids.tolist() == [2, 0]


@each_sampler
def test_a_masked_nan_does_no_harm(sampler):
    batch = make_batch(1, mask=np.array([[True, False, True]]), temperature=0)
    result = sampler(np.array([[0, np.nan, 1]], np.float32), batch)
    assert (result.token_ids.tolist(), result.valid.tolist()) == ([2], [True])


@each_sampler
def test_no_rows_give_no_tokens(sampler):
    result = sampler(np.zeros((0, 50), np.float32), make_batch(0, num_logprobs=2))
    assert result.token_ids.shape == (0,)
    assert result.top_ids.shape == (0, 2)


@each_sampler
def test_a_vocabulary_too_large_to_sum_exactly_is_refused(sampler):
    with pytest.raises(ValueError, match=r"vocab_size=500001.*at most 500000"):
        sampler(np.zeros((0, 500_001), np.float32), make_batch(0))


@each_sampler
def test_arguments_are_left_as_they_are(sampler):
    rng = np.random.default_rng(5)
    logits = random_logits(rng, 20, 50)
    batch = random_batch(rng, 20, 50)
    kept = logits.copy()
    logits.setflags(write=False)
    for value in vars(batch).values():
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
    sampler(logits, batch)
    np.testing.assert_array_equal(logits, kept)


@given(seed=st.integers(0, 2**32), vocab_size=st.sampled_from([1, 2, 7, 128, 129, 1000, 5000]))
def test_both_samplers_agree(seed, vocab_size):
    rng = np.random.default_rng(seed)
    num_rows = 24
    logits = random_logits(rng, num_rows, vocab_size)
    batch = random_batch(rng, num_rows, vocab_size)
    fast = SAMPLERS["numpy"](logits, batch)
    portable = SAMPLERS["portable"](logits, batch)
    for name in ("token_ids", "valid", "ranks", "top_ids"):
        np.testing.assert_array_equal(getattr(fast, name), getattr(portable, name), name)
    for name in ("logprobs", "top_logprobs"):
        np.testing.assert_allclose(
            getattr(fast, name), getattr(portable, name), rtol=1e-6, atol=1e-5, err_msg=name
        )


@each_sampler
@given(seed=st.integers(0, 2**32))
def test_a_row_gets_the_same_token_alone_and_in_any_batch(sampler, seed):
    rng = np.random.default_rng(seed)
    logits, batch = random_logits(rng, 12, 400), random_batch(rng, 12, 400)
    together = sampler(logits, batch)
    for row in rng.permutation(12):
        alone = sampler(logits[row : row + 1], row_of(batch, row))
        assert alone.token_ids[0] == together.token_ids[row]
        assert alone.ranks[0] == together.ranks[row]


def test_token_logprobs_pass_the_ids_through():
    logits = np.random.default_rng(6).normal(0, 2, (5, 40)).astype(np.float32)
    ids = np.array([3, 0, 39, 7, 7], np.int32)
    result = token_logprobs(xp, logits, ids, 4)
    expected = np.log([softmax(row)[token_id] for row, token_id in zip(logits, ids, strict=True)])
    assert result.token_ids.tolist() == ids.tolist()
    np.testing.assert_allclose(result.logprobs, expected, atol=1e-6)
    order = np.argsort(-logits, axis=1, kind="stable")
    assert result.top_ids.tolist() == order[:, :4].tolist()
    assert result.ranks.tolist() == [
        1 + row.tolist().index(i) for row, i in zip(order, ids, strict=True)
    ]


@each_sampler
def test_logprobs_are_of_the_raw_logits(sampler):
    logits = np.log(np.array([[0.5, 0.3, 0.2]], np.float32))
    batch = make_batch(
        1, temperature=0, bias_rows=[0], bias_ids=[0], bias_values=[-np.inf], num_logprobs=1
    )
    result = sampler(logits, batch)
    assert (result.token_ids.tolist(), result.ranks.tolist()) == ([1], [2])
    np.testing.assert_allclose(result.logprobs, np.log([0.3]), rtol=1e-6)
    assert result.top_ids.tolist() == [[0]]
    np.testing.assert_allclose(result.top_logprobs, np.log([[0.5]]), rtol=1e-6)


@each_sampler
def test_no_logprobs_unless_asked_for(sampler):
    logits = np.zeros((1, 3), np.float32)
    without = sampler(logits, make_batch(1))
    assert without.logprobs is without.ranks is without.top_ids is without.top_logprobs is None
    chosen_only = sampler(logits, make_batch(1, num_logprobs=0))
    assert chosen_only.logprobs.shape == (1,)
    assert chosen_only.top_ids.shape == (1, 0)
