"""SamplerRows: what each request's settings and progress make of a step's batch."""

from __future__ import annotations

import array_api_compat.numpy as xp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from octavo.ops.sampling import sample
from octavo.ops.sampling_portable import adjusted_logits
from octavo.philox import uniforms
from octavo.sampler import SamplerRows
from octavo.sampling_params import SamplingParams

VOCAB_SIZE = 40
EOS = frozenset({1, 2})


def int32(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def set_row(rows, row, prompt=(), output=(), *, bad_words=(), key=None, index=0, **params):
    rows.set_row(
        row,
        SamplingParams(**{"max_tokens": None, **params}),
        list(prompt),
        list(output),
        request_key=row + 1 if key is None else key,
        sample_index=index,
        eos_token_ids=EOS,
        bad_words_token_ids=list(bad_words),
    )


def one_row(prompt=(), output=(), **params) -> SamplerRows:
    rows = SamplerRows(4, VOCAB_SIZE, 0)
    set_row(rows, 0, prompt, output, **params)
    return rows


def adjusted(rows: SamplerRows, row: int = 0) -> np.ndarray:
    """Logits of a row whose raw logits are all 1."""
    batch = rows.build(int32(row), int32(9))
    return adjusted_logits(xp, np.ones((1, VOCAB_SIZE), np.float32), batch)[0]


def banned(rows: SamplerRows, row: int = 0) -> set[int]:
    return set(np.flatnonzero(np.isneginf(adjusted(rows, row))).tolist())


def test_settings_arrive_in_the_order_of_the_rows_asked_for():
    rows = SamplerRows(8, VOCAB_SIZE, 0)
    for row in range(8):
        set_row(
            rows,
            row,
            temperature=0.1 + row / 10,
            top_k=row,
            top_p=1 - row / 10,
            min_p=row / 10,
            logprobs=row or None,
        )
    batch = rows.build(int32(5, 2), int32(10, 20))
    np.testing.assert_allclose(batch.temperature, [0.6, 0.3], rtol=1e-6)
    np.testing.assert_allclose(batch.top_p, [0.5, 0.8], rtol=1e-6)
    np.testing.assert_allclose(batch.min_p, [0.5, 0.2], rtol=1e-6)
    assert batch.top_k.tolist() == [5, 2]
    assert batch.num_logprobs == 5
    assert rows.build(int32(0), int32(1)).num_logprobs == -1
    for name in ("temperature", "top_p", "min_p", "uniform", "repetition_penalty"):
        assert getattr(batch, name).dtype == np.float32
    assert batch.top_k.dtype == batch.seen_ids.dtype == batch.bias_rows.dtype == np.int32


def test_all_logprobs_means_the_vocabulary():
    assert one_row(logprobs=-1).build(int32(0), int32(1)).num_logprobs == VOCAB_SIZE
    assert one_row(logprobs=0).build(int32(0), int32(1)).num_logprobs == 0


@pytest.mark.parametrize(
    ("params", "plain", "all_greedy", "truncated"),
    [
        ({"temperature": 0}, True, True, False),
        ({}, True, False, False),
        ({"top_k": 5}, True, False, True),
        ({"top_p": 0.5}, True, False, True),
        ({"min_p": 0.5}, True, False, False),
        ({"top_k": VOCAB_SIZE}, True, False, False),
        ({"repetition_penalty": 1.1}, False, False, False),
        ({"presence_penalty": 0.1}, False, False, False),
        ({"frequency_penalty": 0.1}, False, False, False),
        ({"logit_bias": {3: 1}}, False, False, False),
        ({"allowed_token_ids": [3]}, False, False, False),
        ({"min_tokens": 2, "temperature": 0}, False, True, False),
        ({"bad_words": [[5]]}, False, False, False),
    ],
    ids=str,
)
def test_static_flags(params, plain, all_greedy, truncated):
    rows = one_row(**params)
    set_row(rows, 1, temperature=0)
    batch = rows.build(int32(1, 0), int32(5, 5))
    assert (batch.plain, batch.all_greedy, batch.truncated) == (plain, all_greedy, truncated)
    other = rows.build(int32(1), int32(5))
    assert (other.plain, other.all_greedy, other.truncated) == (True, True, False)
    rows.clear_row(0)
    assert rows.build(int32(1), int32(5)).plain


def test_repetition_looks_at_prompt_and_output():
    rows = one_row([3, 4, 4], [5, 4], repetition_penalty=2)
    rows.record(int32(0), int32(7))
    assert set(np.flatnonzero(adjusted(rows) == 0.5).tolist()) == {3, 4, 5, 7}


def test_presence_and_frequency_look_at_the_output_only():
    rows = one_row([3, 4, 4], [5, 4], presence_penalty=0.5, frequency_penalty=0.25)
    for token_id in (7, 5, 5):
        rows.record(int32(0), int32(token_id))
    expected = np.ones(VOCAB_SIZE)
    expected[[4, 7]] = 1 - 0.5 - 0.25
    expected[5] = 1 - 0.5 - 3 * 0.25
    np.testing.assert_allclose(adjusted(rows), expected)


def test_a_prompt_token_counts_once_it_is_in_the_output_too():
    rows = one_row([3], [], repetition_penalty=2, presence_penalty=0.25)
    assert adjusted(rows)[3] == 0.5
    rows.record(int32(0), int32(3))
    assert adjusted(rows)[3] == 0.25


@given(
    prompt=st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=20),
    output=st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=60),
    data=st.data(),
)
def test_a_resumed_row_is_as_if_it_had_never_stopped(prompt, output, data):
    params = {
        "repetition_penalty": 1.5,
        "frequency_penalty": 0.5,
        "min_tokens": 10,
        "bad_words": [[3], [4, 5], [6, 7, 8]],
    }
    straight = one_row(prompt, **params)
    for token_id in output:
        straight.record(int32(0), int32(token_id))
    resume_at = data.draw(st.integers(0, len(output)))
    resumed = one_row(prompt, output[:resume_at], **params)
    for token_id in output[resume_at:]:
        resumed.record(int32(0), int32(token_id))
    np.testing.assert_array_equal(adjusted(straight), adjusted(resumed))


@given(output=st.lists(st.integers(3, VOCAB_SIZE - 1), max_size=80))
def test_penalties_follow_the_output(output):
    rows = one_row([], [], frequency_penalty=0.5)
    for token_id in output:
        rows.record(int32(0), int32(token_id))
    counts = np.bincount(output, minlength=VOCAB_SIZE) if output else np.zeros(VOCAB_SIZE)
    np.testing.assert_allclose(adjusted(rows), 1 - 0.5 * counts)


def test_min_tokens_bans_every_stop_token_until_there_are_enough():
    rows = one_row([1], [9], min_tokens=3, stop_token_ids=[7])
    assert banned(rows) == {1, 2, 7}
    rows.record(int32(0), int32(9))
    assert banned(rows) == {1, 2, 7}
    rows.record(int32(0), int32(9))
    assert banned(rows) == set()
    assert rows.build(int32(0), int32(5)).plain


def test_a_ban_outweighs_a_bias_and_gives_it_back():
    rows = one_row(min_tokens=1, logit_bias={1: 100, 8: -3})
    assert adjusted(rows)[[1, 2, 8]].tolist() == [-np.inf, -np.inf, -2]
    batch = rows.build(int32(0), int32(5))
    assert len(set(batch.bias_ids.tolist())) == len(batch.bias_ids)
    rows.record(int32(0), int32(9))
    assert adjusted(rows)[[1, 2, 8]].tolist() == [101, 1, -2]


def test_bad_words_are_banned_where_they_would_be_complete():
    rows = one_row([5], bad_words=[[3], [5, 6], [5, 6, 7], [6, 6]])
    steps = [({3}, 5), ({3, 6}, 6), ({3, 7, 6}, 6), ({3, 6}, 8), ({3}, 5), ({3, 6}, 0)]
    for expected, next_token in steps:
        assert banned(rows) == expected
        rows.record(int32(0), int32(next_token))
    assert banned(rows) == {3}


def test_allowed_tokens_and_masks_meet():
    rows = one_row(allowed_token_ids=[3, 5, 7])
    set_row(rows, 1)
    allows_small = np.arange(VOCAB_SIZE) < 6
    allows_all = np.ones(VOCAB_SIZE, np.bool_)
    masks = np.stack([allows_all, allows_small, allows_all])
    batch = rows.build(int32(1, 0, 0), int32(5, 5, 5), masks)
    assert batch.mask[0].all()
    assert np.flatnonzero(batch.mask[1]).tolist() == [3, 5]
    assert np.flatnonzero(batch.mask[2]).tolist() == [3, 5, 7]
    assert not batch.plain
    unmasked = rows.build(int32(1), int32(5))
    assert unmasked.mask is None
    assert unmasked.plain
    masked = rows.build(int32(1), int32(5), allows_small[None].copy())
    assert masked.mask.tolist() == [allows_small.tolist()]
    assert not masked.plain


def test_each_row_keeps_its_own_adjustments_in_a_batch():
    rows = SamplerRows(6, VOCAB_SIZE, 0)
    set_row(rows, 0, [3], [4], repetition_penalty=2)
    set_row(rows, 1)
    set_row(rows, 2, logit_bias={6: 5})
    set_row(rows, 3, [], [7, 7], frequency_penalty=1, min_tokens=9)
    order = int32(2, 3, 1, 0, 2)
    batch = rows.build(order, np.full(5, 9, np.int32))
    together = adjusted_logits(xp, np.ones((5, VOCAB_SIZE), np.float32), batch)
    for place, row in enumerate(order):
        np.testing.assert_array_equal(together[place], adjusted(rows, int(row)))


def test_a_batch_does_not_change_when_its_rows_move_on():
    rows = one_row([], [4], frequency_penalty=1)
    batch = rows.build(int32(0), int32(5))
    rows.record(int32(0), int32(4))
    assert batch.seen_counts.tolist() == [1]


def draw(rows: SamplerRows, row: int, position: int, sample_indices=None) -> float:
    batch = rows.build(int32(row), int32(position), sample_indices=sample_indices)
    return float(batch.uniform[0])


def test_a_seed_gives_the_same_draws_in_any_engine_row_and_request():
    one, other = SamplerRows(4, VOCAB_SIZE, 111), SamplerRows(4, VOCAB_SIZE, 222)
    set_row(one, 0, seed=5, key=10)
    set_row(other, 3, seed=5, key=99)
    assert draw(one, 0, 7) == draw(other, 3, 7)
    expected = uniforms(np.uint64([5]), np.uint64([0]), np.uint32([0]), np.uint32([7]))
    assert draw(one, 0, 7) == expected[0]


def test_without_a_seed_draws_differ_by_engine_request_sample_and_position():
    one, other = SamplerRows(4, VOCAB_SIZE, 111), SamplerRows(4, VOCAB_SIZE, 222)
    for rows in (one, other):
        set_row(rows, 0, key=1)
        set_row(rows, 1, key=2)
        set_row(rows, 2, key=1, index=1)
    draws = {
        draw(one, 0, 7),
        draw(other, 0, 7),
        draw(one, 1, 7),
        draw(one, 2, 7),
        draw(one, 0, 8),
    }
    assert len(draws) == 5
    again = SamplerRows(4, VOCAB_SIZE, 111)
    set_row(again, 3, key=2)
    assert draw(again, 3, 7) == draw(one, 1, 7)


def test_a_row_may_repeat_with_a_sample_index_for_each_place():
    rows = SamplerRows(4, VOCAB_SIZE, 111)
    set_row(rows, 0, key=3)
    batch = rows.build(int32(0, 0, 0), int32(7, 7, 7), sample_indices=int32(0, 1, 2))
    alone = [draw(rows, 0, 7, int32(index)) for index in range(3)]
    assert batch.uniform.tolist() == alone
    set_row(rows, 1, key=3, index=2)
    assert draw(rows, 1, 7) == alone[2]


@pytest.mark.parametrize("seed", [0, -5, 2**63 - 1, -(2**63)])
def test_every_seed_can_be_drawn_from(seed):
    rows = one_row(seed=seed)
    expected = uniforms(np.uint64([seed % 2**64]), np.uint64([0]), np.uint32([0]), np.uint32([1]))
    assert draw(rows, 0, 1) == expected[0]


def test_greedy_rows_need_no_draw():
    assert draw(one_row(temperature=0), 0, 3) == 0


def test_no_rows():
    batch = SamplerRows(4, VOCAB_SIZE, 0).build(int32(), int32())
    assert batch.temperature.shape == (0,)
    assert (batch.plain, batch.all_greedy, batch.num_logprobs) == (True, True, -1)


def test_tokens_do_not_depend_on_batch_or_row():
    """From logits to tokens, with everything on: alone, and beside others in another order."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (6, VOCAB_SIZE)).astype(np.float32)

    def fill(rows: SamplerRows, row: int, number: int) -> None:
        set_row(
            rows,
            row,
            [number, 4],
            [number, 5],
            key=number,
            temperature=0.5 + number / 10,
            top_p=0.9,
            top_k=number * 3,
            repetition_penalty=1 + number / 10,
            min_tokens=4,
            seed=3 if number % 2 else None,
        )

    together = SamplerRows(6, VOCAB_SIZE, 9)
    for number in range(6):
        fill(together, 5 - number, number)
    order = np.arange(5, -1, -1, dtype=np.int32)
    expected = sample(xp, logits, together.build(order, np.full(6, 8, np.int32))).token_ids
    for number in range(6):
        alone = SamplerRows(1, VOCAB_SIZE, 9)
        fill(alone, 0, number)
        found = sample(xp, logits[number : number + 1], alone.build(int32(0), int32(8)))
        assert found.token_ids[0] == expected[number]


def test_greedy_rows_get_the_batch_they_got_before_until_one_of_them_changes():
    rows = SamplerRows(4, VOCAB_SIZE, 0)
    for row in range(3):
        set_row(rows, row, temperature=0.0)
    first = rows.build(int32(0, 1), int32(5, 6))
    assert rows.build(int32(0, 1), int32(6, 7)) is first
    assert len(rows.build(int32(0, 2, 1), int32(6, 7, 8)).temperature) == 3
    assert rows.build(int32(0, 1), int32(6, 7), np.ones((2, VOCAB_SIZE), np.bool_)).mask is not None

    rows.build(int32(0, 1), int32(7, 8))
    set_row(rows, 1, temperature=0.5)
    changed = rows.build(int32(0, 1), int32(8, 9))
    assert not changed.all_greedy
    assert changed.temperature.tolist() == [0.0, 0.5]


def test_rows_that_are_drawn_or_adjusted_are_built_anew():
    rows = one_row(temperature=1.0, seed=3)
    draws = [float(rows.build(int32(0), int32(position)).uniform[0]) for position in range(5)]
    assert len(set(draws)) == 5

    rows = one_row(temperature=0.0, presence_penalty=1.0)
    for token_id in (7, 9):
        rows.record(int32(0), int32(token_id))
        assert rows.build(int32(0), int32(5)).seen_ids.tolist()[-1] == token_id
