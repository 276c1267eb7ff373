"""Sampling against transformers' processors, torch's softmax, and itself on torch and JAX."""

from __future__ import annotations

import dataclasses
from functools import partial

import array_api_compat.numpy as xp
import array_api_compat.torch as torch_xp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from octavo.ops import sampling_portable
from octavo.ops.protocol import SampleResult, SamplingBatch
from octavo.ops.sampling import sample, token_logprobs
from octavo.ops.sampling_weights import steps_per_logit, weights
from octavo.sampler import SamplerRows
from octavo.sampling_params import SamplingParams
from sampling_batches import (
    ARRAY_FIELDS,
    STATIC_FIELDS,
    make_batch,
    random_batch,
    random_logits,
    stratified,
)

NUM_DRAWS = 2048


def frequencies(logits: np.ndarray, **settings) -> np.ndarray:
    """How often each token is drawn over evenly spaced uniforms."""
    rows = np.broadcast_to(logits, (NUM_DRAWS, len(logits)))
    drawn = sample(xp, rows, make_batch(NUM_DRAWS, uniform=stratified(NUM_DRAWS), **settings))
    return np.bincount(drawn.token_ids, minlength=len(logits)) / NUM_DRAWS


def warped_probabilities(logits: np.ndarray, *warpers) -> np.ndarray:
    """transformers' probabilities, in float64; in vLLM's order, min_p before top_k and top_p."""
    scores = torch.from_numpy(logits.astype(np.float64))[None]
    return LogitsProcessorList(warpers)(None, scores).softmax(dim=-1)[0].numpy()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("temperature", [0.5, 1.8])
@pytest.mark.parametrize(
    ("settings", "warpers"),
    [
        ({}, []),
        ({"top_k": 1}, [TopKLogitsWarper(1)]),
        ({"top_k": 7}, [TopKLogitsWarper(7)]),
        ({"top_p": 0.3}, [TopPLogitsWarper(0.3)]),
        ({"top_p": 0.9}, [TopPLogitsWarper(0.9)]),
        ({"top_p": 1e-6}, [TopPLogitsWarper(1e-6)]),
        ({"min_p": 0.02}, [MinPLogitsWarper(0.02)]),
        ({"min_p": 0.4}, [MinPLogitsWarper(0.4)]),
        ({"top_k": 12, "top_p": 0.8}, [TopKLogitsWarper(12), TopPLogitsWarper(0.8)]),
        (
            {"min_p": 0.05, "top_k": 30, "top_p": 0.95},
            [MinPLogitsWarper(0.05), TopKLogitsWarper(30), TopPLogitsWarper(0.95)],
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "warpers",
)
def test_warpers(seed, temperature, settings, warpers):
    logits = np.random.default_rng(seed).normal(0, 2, 64).astype(np.float32)
    found = frequencies(logits, temperature=temperature, **settings)
    exact = warped_probabilities(logits, TemperatureLogitsWarper(temperature), *warpers)
    np.testing.assert_allclose(found, exact, atol=1.5 / NUM_DRAWS)
    assert not found[exact == 0].any()
    assert found[exact > 2 / NUM_DRAWS].all()


@pytest.mark.parametrize("penalty", [0.5, 1.2, 3.0])
def test_repetition_penalty(penalty):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (6, 50)).astype(np.float32)
    history = rng.integers(0, 50, (6, 20))
    seen = [np.unique(row) for row in history]
    batch = make_batch(
        6,
        repetition_penalty=penalty,
        seen_rows=np.repeat(np.arange(6), [len(ids) for ids in seen]),
        seen_ids=np.concatenate(seen),
        seen_counts=np.zeros(sum(map(len, seen))),
    )
    expected = RepetitionPenaltyLogitsProcessor(penalty)(
        torch.from_numpy(history), torch.from_numpy(logits.copy())
    )
    found = sampling_portable.adjusted_logits(xp, logits, batch)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6)


def test_bias_and_bans():
    logits = np.random.default_rng(1).normal(0, 3, (1, 50)).astype(np.float32)
    batch = make_batch(
        1, bias_rows=[0] * 4, bias_ids=[3, 9, 20, 21], bias_values=[2.5, -7, -np.inf, -np.inf]
    )
    nothing = torch.zeros((1, 0), dtype=torch.long)
    processors = LogitsProcessorList(
        [
            SequenceBiasLogitsProcessor([[[3], 2.5], [[9], -7.0]]),
            SuppressTokensLogitsProcessor([20, 21]),
        ]
    )
    expected = processors(nothing, torch.from_numpy(logits.copy()))
    found = sampling_portable.adjusted_logits(xp, logits, batch)
    np.testing.assert_array_equal(found, expected.numpy())


@pytest.mark.parametrize("num_outputs", [0, 1, 2, 7, 30])
def test_bans_of_bad_words_and_min_tokens(num_outputs):
    bad_words = [[3], [1, 2], [1, 1], [2, 1, 0], [0, 1, 2, 1]]
    rng = np.random.default_rng(num_outputs)
    for _ in range(20):
        output = rng.integers(0, 4, num_outputs).tolist()
        rows = SamplerRows(1, 8, 0)
        rows.set_row(
            0,
            SamplingParams(min_tokens=5, max_tokens=None, stop_token_ids=[6]),
            [],
            [],
            request_key=1,
            sample_index=0,
            eos_token_ids=frozenset({7}),
            bad_words_token_ids=bad_words,
        )
        for token_id in output:
            rows.record(np.zeros(1, np.int32), np.array([token_id], np.int32))
        batch = rows.build(np.zeros(1, np.int32), np.full(1, num_outputs, np.int32))
        found = sampling_portable.adjusted_logits(xp, np.ones((1, 8), np.float32), batch)
        processors = LogitsProcessorList(
            [
                NoBadWordsLogitsProcessor(bad_words),
                MinNewTokensLengthLogitsProcessor(0, 5, [6, 7], device="cpu"),
            ]
        )
        expected = processors(torch.tensor([output], dtype=torch.long), torch.ones((1, 8)))
        assert found.tolist() == expected.tolist()


def test_presence_and_frequency_penalties():
    """OpenAI's formula, which vLLM follows: logit - count * frequency - (count > 0) * presence."""
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 3, (3, 30)).astype(np.float32)
    counts = rng.integers(0, 4, (3, 30))
    presence, frequency = np.array([0.5, -1.5, 2]), np.array([0.3, 1.7, -2])
    rows, ids = np.indices(counts.shape).reshape(2, -1)
    batch = make_batch(
        3,
        presence_penalty=presence,
        frequency_penalty=frequency,
        seen_rows=rows,
        seen_ids=ids,
        seen_counts=counts.ravel(),
    )
    expected = logits - counts * frequency[:, None] - (counts > 0) * presence[:, None]
    found = sampling_portable.adjusted_logits(xp, logits, batch)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_mask_bias_and_penalties_come_in_this_order():
    logits = np.array([[1, 1, 1, 1]], np.float32)
    batch = make_batch(
        1,
        repetition_penalty=2,
        presence_penalty=0.25,
        seen_rows=[0, 0],
        seen_ids=[0, 3],
        seen_counts=[1, 1],
        bias_rows=[0, 0],
        bias_ids=[0, 3],
        bias_values=[3, 3],
        mask=np.array([[True, True, True, False]]),
    )
    found = sampling_portable.adjusted_logits(xp, logits, batch)
    assert found.tolist() == [[(1 + 3) / 2 - 0.25, 1, 1, -np.inf]]


def test_logprobs_and_ranks():
    logits = np.random.default_rng(3).normal(0, 4, (20, 500)).astype(np.float32)
    ids = np.random.default_rng(4).integers(0, 500, 20).astype(np.int32)
    exact = torch.log_softmax(torch.from_numpy(logits).double(), dim=-1)
    top = exact.topk(5, dim=-1)
    chosen = exact.gather(1, torch.from_numpy(ids).long()[:, None])
    ranks = (exact >= chosen).sum(dim=-1)
    for result in (
        token_logprobs(xp, logits, ids, 5),
        sampling_portable.token_logprobs(xp, logits, ids, 5),
    ):
        np.testing.assert_allclose(result.logprobs, chosen[:, 0], atol=1e-5)
        np.testing.assert_array_equal(result.ranks, ranks)
        np.testing.assert_array_equal(result.top_ids, top.indices)
        np.testing.assert_allclose(result.top_logprobs, top.values, atol=1e-5)


def on_torch(logits: np.ndarray, batch: SamplingBatch) -> SampleResult:
    arrays = {name: torch.from_numpy(getattr(batch, name)) for name in ARRAY_FIELDS}
    return sample(torch_xp, torch.from_numpy(logits), dataclasses.replace(batch, **arrays))


@partial(jax.jit, static_argnums=2)
def _compiled(logits, arrays, static):
    batch = SamplingBatch(**arrays, **dict(zip(STATIC_FIELDS, static, strict=True)))
    return vars(sample(jnp, logits, batch))


def on_jax(logits: np.ndarray, batch: SamplingBatch) -> SampleResult:
    arrays = {name: jnp.asarray(getattr(batch, name)) for name in ARRAY_FIELDS}
    static = tuple(getattr(batch, name) for name in STATIC_FIELDS)
    return SampleResult(**_compiled(jnp.asarray(logits), arrays, static))


@pytest.mark.parametrize("sampler", [on_torch, on_jax])
@pytest.mark.parametrize("vocab_size", [50, 3000])
def test_other_namespaces_give_numpys_tokens(sampler, vocab_size):
    num_rows, num_batches = 128, 8
    for seed in range(num_batches):
        rng = np.random.default_rng(seed)
        logits = random_logits(rng, num_rows, vocab_size)
        logits[0, 3] = np.nan
        logits[1] = -np.inf
        batch = random_batch(rng, num_rows, vocab_size)
        expected, found = sample(xp, logits, batch), sampler(logits, batch)
        valid = expected.valid
        assert valid.sum() > num_rows // 2
        np.testing.assert_array_equal(np.asarray(found.valid), valid)
        np.testing.assert_array_equal(np.asarray(found.token_ids), expected.token_ids)
        assert str(found.token_ids.dtype).removeprefix("torch.") == "int32"
        ordinary = ~np.isnan(logits).any(axis=1) & np.isfinite(logits).any(axis=1)
        for name in ("ranks", "top_ids"):
            np.testing.assert_array_equal(
                np.asarray(getattr(found, name))[ordinary], getattr(expected, name)[ordinary]
            )
        np.testing.assert_allclose(
            np.asarray(found.logprobs)[ordinary], expected.logprobs[ordinary], atol=2e-5, rtol=1e-5
        )


NAMESPACES = {
    "torch": (torch_xp, torch.from_numpy, lambda function: function),
    "jax": (jnp, jnp.asarray, jax.jit),
}


@pytest.mark.parametrize("namespace", NAMESPACES.values(), ids=NAMESPACES)
def test_weights_are_the_same_to_the_last_bit(namespace):
    other_xp, put, compiled = namespace
    rng = np.random.default_rng(6)
    temperature = rng.uniform(0.01, 2, (500, 1)).astype(np.float32)
    logits = rng.normal(0, 5, (500, 300)).astype(np.float32)
    largest = logits.max(axis=1, keepdims=True)

    def weigh(xp, logits, largest, temperature):
        per_logit = steps_per_logit(xp, temperature)
        return per_logit, weights(xp, logits, largest, per_logit)

    expected = weigh(xp, logits, largest, temperature)
    found = compiled(partial(weigh, other_xp))(put(logits), put(largest), put(temperature))
    np.testing.assert_array_equal(np.asarray(found[0]), expected[0])
    np.testing.assert_array_equal(np.asarray(found[1]), expected[1])


@pytest.mark.parametrize("namespace", NAMESPACES.values(), ids=NAMESPACES)
def test_adjusted_logits_are_the_same_to_the_last_bit(namespace):
    other_xp, put, compiled = namespace
    rng = np.random.default_rng(7)
    logits = rng.normal(0, 5, (300, 200)).astype(np.float32)
    batch = random_batch(rng, 300, 200)
    expected = sampling_portable.adjusted_logits(xp, logits, batch)

    def adjust(logits, arrays):
        same = dataclasses.replace(batch, **arrays)
        return sampling_portable.adjusted_logits(other_xp, logits, same)

    arrays = {name: put(getattr(batch, name)) for name in ARRAY_FIELDS}
    found = compiled(adjust)(put(logits), arrays)
    np.testing.assert_array_equal(np.asarray(found), expected)


@pytest.mark.parametrize("sampler", [on_torch, on_jax])
def test_other_namespaces_without_truncation(sampler):
    rng = np.random.default_rng(5)
    logits = random_logits(rng, 512, 1000)
    batch = dataclasses.replace(
        make_batch(512, temperature=0.9, uniform=stratified(512), truncated=False),
        mask=np.ones((512, 1000), np.bool_),
    )
    expected, found = sample(xp, logits, batch), sampler(logits, batch)
    np.testing.assert_array_equal(np.asarray(found.token_ids), expected.token_ids)
