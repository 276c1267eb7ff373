"""The oracle of the conformance suite against loops, and against torch where it is installed."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from octavo.testing import oracle

RNG = np.random.default_rng(0)


def loop_attention(q, k, v, first_position, *, scale, window, soft_cap, causal, sinks=None):
    """One query, one head and one key at a time."""
    out = np.zeros_like(q)
    group = q.shape[1] // k.shape[1]
    for i in range(q.shape[0]):
        position = first_position + i
        seen = [
            j
            for j in range(k.shape[0])
            if not (causal and j > position) and not (window and abs(position - j) >= window)
        ]
        for head in range(q.shape[1]):
            scores = np.array([q[i, head] @ k[j, head // group] for j in seen]) * scale
            if soft_cap is not None:
                scores = soft_cap * np.tanh(scores / soft_cap)
            weights = np.exp(scores)
            total = weights.sum() + (0 if sinks is None else np.exp(sinks[head]))
            out[i, head] = sum(
                w / total * v[j, head // group] for w, j in zip(weights, seen, strict=True)
            )
    return out


@pytest.mark.parametrize("sinks", [False, True], ids=["", "sinks"])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize("soft_cap", [None, 0.7])
@pytest.mark.parametrize("window", [None, 1, 3, 50])
def test_attention_is_the_loop(window, soft_cap, causal, sinks):
    q, k, v = (RNG.standard_normal(shape) for shape in ((4, 6, 8), (9, 2, 8), (9, 2, 8)))
    settings = {
        "scale": 0.4,
        "window": window,
        "soft_cap": soft_cap,
        "causal": causal,
        "sinks": RNG.standard_normal(6) if sinks else None,
    }
    expected = loop_attention(q, k, v, 5, **settings)
    np.testing.assert_allclose(oracle.attention(q, k, v, 5, **settings), expected, atol=1e-12)


def test_attention_survives_large_scores():
    q, k = np.array([[[1e4]]]), np.array([[[1e4]], [[-1e4]]])
    v = np.array([[[2.0]], [[3.0]]])
    np.testing.assert_array_equal(oracle.attention(q, k, v, 1, scale=1.0), [[[2.0]]])
    sinks = np.array([2e8])
    np.testing.assert_array_equal(oracle.attention(q, k, v, 1, scale=1.0, sinks=sinks), [[[0.0]]])


def test_a_query_without_keys_gives_zeros():
    q, k = np.ones((2, 1, 1)), np.ones((1, 1, 1))
    np.testing.assert_array_equal(
        oracle.attention(q, k, k, -1, scale=1.0), np.array([0.0, 1.0]).reshape(2, 1, 1)
    )


def test_norms_and_linear_are_the_loops():
    x, weight, bias = (RNG.standard_normal(shape) for shape in ((2, 5), 5, 5))
    for row, rms, layer in zip(
        x,
        oracle.rms_norm(x, weight, 0.1),
        oracle.layer_norm(x, weight, bias, 0.1),
        strict=True,
    ):
        square = sum(value * value for value in row) / 5
        mean = sum(row) / 5
        variance = sum((value - mean) ** 2 for value in row) / 5
        for j in range(5):
            assert rms[j] == pytest.approx(row[j] / math.sqrt(square + 0.1) * weight[j])
            scaled = (row[j] - mean) / math.sqrt(variance + 0.1) * weight[j]
            assert layer[j] == pytest.approx(scaled + bias[j])
    matrix = RNG.standard_normal((3, 5))
    rows = [[sum(a * b for a, b in zip(row, out, strict=True)) for out in matrix] for row in x]
    np.testing.assert_allclose(oracle.linear(x, matrix), rows)
    np.testing.assert_allclose(oracle.linear(x, matrix, bias[:3]), np.array(rows) + bias[:3])


def test_activations_at_the_extremes():
    np.testing.assert_array_equal(oracle.silu([-1e5, 0.0, 1e5]), [0.0, 0.0, 1e5])
    for tanh in (True, False):
        np.testing.assert_array_equal(oracle.gelu([-1e5, 0.0, 1e5], tanh=tanh), [0.0, 0.0, 1e5])


def test_rope_turns_pairs_half_a_head_apart():
    x = np.array([[[1.0, 5.0, 0.0, 7.0, 9.0]]])
    turned = oracle.rope(x, np.array([[math.pi / 2, 0.0]]))
    np.testing.assert_allclose(turned, [[[0.0, 5.0, 1.0, 7.0, 9.0]]], atol=1e-15)


def test_rope_frequencies_by_context_length():
    frequencies = (1.0, 0.1)
    fields = {"rotary_dim": 4, "base": 100.0, "inv_freq": frequencies, "original_max_len": 10}
    dynamic = SimpleNamespace(kind="dynamic", factor=2.0, **fields)
    assert oracle.rope_frequencies(dynamic, 10) == frequencies
    stretched = (2.0 * 30 / 10 - 1.0) ** 2 * 100.0
    np.testing.assert_allclose(oracle.rope_frequencies(dynamic, 30), [1.0, stretched**-0.5])
    long = SimpleNamespace(kind="longrope", long_inv_freq=(0.5, 0.01), **fields)
    assert oracle.rope_frequencies(long, 10) == frequencies
    assert oracle.rope_frequencies(long, 11) == (0.5, 0.01)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="torch is not installed")


def test_elementwise_ops_are_torch_s(torch):
    functional = torch.nn.functional
    x, weight, bias = (torch.from_numpy(RNG.standard_normal(shape)) for shape in ((4, 7), 7, 7))
    pairs = [
        (oracle.silu(x), functional.silu(x)),
        (oracle.gelu(x, tanh=True), functional.gelu(x, approximate="tanh")),
        (oracle.gelu(x, tanh=False), functional.gelu(x)),
        (oracle.erf(x), torch.erf(x)),
        (oracle.rms_norm(x, weight, 1e-5), functional.rms_norm(x, (7,), weight, 1e-5)),
        (
            oracle.layer_norm(x, weight, bias, 0.1),
            functional.layer_norm(x, (7,), weight, bias, 0.1),
        ),
        (oracle.linear(x, x, bias[:4]), functional.linear(x, x, bias[:4])),
        (oracle.log_softmax(x), functional.log_softmax(x, dim=-1)),
    ]
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("window", [None, 4])
def test_attention_is_torch_s(torch, window):
    q, k, v = (RNG.standard_normal(shape) for shape in ((6, 8, 16), (11, 2, 16), (11, 2, 16)))
    visible = np.array(
        [
            [j <= 5 + i and (window is None or j > 5 + i - window) for j in range(11)]
            for i in range(6)
        ]
    )
    theirs = torch.nn.functional.scaled_dot_product_attention(
        *(torch.from_numpy(x).transpose(0, 1) for x in (q, k, v)),
        attn_mask=torch.from_numpy(visible),
        scale=0.3,
        enable_gqa=True,
    )
    ours = oracle.attention(q, k, v, 5, scale=0.3, window=window)
    np.testing.assert_allclose(ours, theirs.transpose(0, 1).numpy(), atol=1e-12)
