"""The ops again in float64 NumPy: dense, unpaged, straight from the mathematics.

It imports nothing of Octavo, so that a mistake in the ops cannot repeat itself here. Arguments are
arrays of any dtype; what comes back is float64. Nothing is padded and nothing is cached: attention
is given one whole sequence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "attention",
    "erf",
    "float64",
    "gelu",
    "layer_norm",
    "linear",
    "log_softmax",
    "rms_norm",
    "rope",
    "rope_angles",
    "rope_frequencies",
    "silu",
    "soft_cap",
    "visible_keys",
]

Float64 = NDArray[np.float64]


def float64(x: ArrayLike) -> Float64:
    """Exact: every dtype of an op fits into float64."""
    return np.asarray(x).astype(np.float64)


def linear(x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None) -> Float64:
    """``x @ weight.T + bias``; weight [out_features, in_features]."""
    y = float64(x) @ float64(weight).T
    return y if bias is None else y + float64(bias)


def rms_norm(x: ArrayLike, weight: ArrayLike, eps: float) -> Float64:
    """``x / sqrt(mean(x²) + eps) * weight`` over the last axis."""
    rows = float64(x)
    root = np.sqrt(np.mean(np.square(rows), axis=-1, keepdims=True) + eps)
    y: Float64 = rows / root * float64(weight)
    return y


def layer_norm(x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None, eps: float) -> Float64:
    """``(x - mean) / sqrt(variance + eps) * weight + bias`` over the last axis."""
    rows = float64(x)
    deviation = rows - np.mean(rows, axis=-1, keepdims=True)
    variance = np.mean(np.square(deviation), axis=-1, keepdims=True)
    y: Float64 = deviation / np.sqrt(variance + eps) * float64(weight)
    return y if bias is None else y + float64(bias)


def silu(x: ArrayLike) -> Float64:
    """``x * sigmoid(x)``, where sigmoid(x) = (1 + tanh(x / 2)) / 2."""
    values = float64(x)
    y: Float64 = values * (1 + np.tanh(values / 2)) / 2
    return y


def erf(x: ArrayLike) -> Float64:
    """The error function, as the C library has it."""
    values = float64(x)
    return np.array([math.erf(value) for value in values.flat], np.float64).reshape(values.shape)


def gelu(x: ArrayLike, *, tanh: bool) -> Float64:
    """``x * Phi(x)``; tanh: the approximation of Hendrycks and Gimpel, arXiv 1606.08415."""
    values = float64(x)
    if tanh:
        twice = 1 + np.tanh(math.sqrt(2 / math.pi) * (values + 0.044715 * values**3))
    else:
        twice = 1 + erf(values / math.sqrt(2))
    y: Float64 = values * twice / 2
    return y


def soft_cap(x: ArrayLike, cap: float) -> Float64:
    """``cap * tanh(x / cap)``."""
    y: Float64 = cap * np.tanh(float64(x) / cap)
    return y


def log_softmax(logits: ArrayLike) -> Float64:
    """Log-probabilities over the last axis; -inf where a logit is."""
    values = float64(logits)
    shifted = values - values.max(axis=-1, keepdims=True)
    y: Float64 = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return y


def rope_frequencies(spec: Any, context_len: int) -> Sequence[float]:
    """Inverse frequencies of one token, from the formulas in the docstring of RopeSpec.

    ``dynamic`` is Hugging Face's NTK scaling: base * stretch^(dim / (dim - 2)), where
    stretch = factor * length / trained length - (factor - 1).
    """
    frequencies: Sequence[float] = spec.inv_freq
    if spec.kind not in ("longrope", "dynamic") or context_len <= spec.original_max_len:
        return frequencies
    if spec.kind == "longrope":
        return spec.long_inv_freq or frequencies
    dim = spec.rotary_dim
    stretch = spec.factor * context_len / spec.original_max_len - (spec.factor - 1)
    base = spec.base * stretch ** (dim / (dim - 2))
    return [1 / base ** (i / dim) for i in range(0, dim, 2)]


def rope_angles(positions: Sequence[int], frequencies: Sequence[Sequence[float]]) -> Float64:
    """Angles [tokens, half] in radians; ``frequencies`` has a row for each token."""
    rows = [
        [position * f for f in row] for position, row in zip(positions, frequencies, strict=True)
    ]
    return np.array(rows, np.float64)


def rope(x: ArrayLike, angles: Float64) -> Float64:
    """Complex multiplication by e^(i angle), pair (j, j + half) as real and imaginary part.

    x [tokens, heads, head_dim]; angles [tokens, half].
    """
    values, half = float64(x), angles.shape[1]
    turned = (values[..., :half] + 1j * values[..., half : 2 * half]) * np.exp(1j * angles)[
        :, None, :
    ]
    return np.concatenate([turned.real, turned.imag, values[..., 2 * half :]], axis=-1)


def visible_keys(
    num_queries: int, num_keys: int, first_position: int, *, window: int | None, causal: bool
) -> NDArray[np.bool_]:
    """[queries, keys]: whether a query sees a key. Query i stands at ``first_position + i``.

    A window of w holds the query's own key and the w - 1 before it; without ``causal`` also the
    w - 1 after it.
    """
    query = first_position + np.arange(num_queries)[:, None]
    key = np.arange(num_keys)[None, :]
    visible = np.full((num_queries, num_keys), fill_value=True)
    if causal:
        visible &= key <= query
    if window is not None:
        visible &= np.abs(query - key) < window
    return visible


def attention(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    first_position: int,
    *,
    scale: float,
    window: int | None = None,
    soft_cap: float | None = None,
    causal: bool = True,
    sinks: ArrayLike | None = None,
) -> Float64:
    """One sequence, dense: q [queries, heads, dim] at first_position on; k, v [keys, kv, dim].

    Query head h reads KV head ``h // (heads // kv_heads)``. ``sinks`` [heads] join the denominator
    of the softmax and carry no value. A query that sees no key gives zeros.
    """
    q, k, v = float64(q), float64(k), float64(v)
    heads_per_kv_head = q.shape[1] // k.shape[1]
    k, v = (np.repeat(x, heads_per_kv_head, axis=1).transpose(1, 0, 2) for x in (k, v))
    scores = q.transpose(1, 0, 2) @ k.transpose(0, 2, 1) * scale  # [heads, queries, keys]
    if soft_cap is not None:
        scores = soft_cap * np.tanh(scores / soft_cap)
    visible = visible_keys(len(q), k.shape[1], first_position, window=window, causal=causal)
    scores = np.where(visible, scores, -np.inf)
    sink_scores = np.full((q.shape[1], 1, 1), -np.inf)
    if sinks is not None:
        sink_scores = float64(sinks)[:, None, None]
    top = np.maximum(scores.max(axis=-1, keepdims=True, initial=-np.inf), sink_scores)
    top = np.where(np.isfinite(top), top, 0)
    weights = np.exp(scores - top)
    total = weights.sum(axis=-1, keepdims=True) + np.exp(sink_scores - top)
    attended = weights @ v / np.where(total > 0, total, 1)
    return attended.transpose(1, 0, 2)
