"""The ops again in float64 NumPy: dense, unpaged, a loop for each sum; shares no code with octavo.

Everything is written from the mathematics, for one token or one head at a time, so that a mistake
in the vectorised ops cannot repeat itself here.
"""

import math

import numpy as np

__all__ = [
    "attention",
    "erf",
    "gelu",
    "layer_norm",
    "linear",
    "rms_norm",
    "rope",
    "rope_angles",
    "silu",
    "soft_cap",
]


def f64(x):
    return None if x is None else np.asarray(x).astype(np.float64)


def linear(x, weight, bias=None):
    y = np.einsum("ti,oi->to", f64(x), f64(weight))
    return y if bias is None else y + f64(bias)


def rms_norm(x, weight, eps):
    x = f64(x)
    return x / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + eps) * f64(weight)


def layer_norm(x, weight, bias, eps):
    x = f64(x)
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * f64(weight)
    return y if bias is None else y + f64(bias)


def silu(x):
    return f64(x) * np.vectorize(lambda v: 1 / (1 + math.exp(-v)))(f64(x))


erf = np.vectorize(math.erf, otypes=[np.float64])


def gelu(x, *, tanh):
    x = f64(x)
    if tanh:
        return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x / 2 * (1 + erf(x / math.sqrt(2)))


def soft_cap(x, cap):
    return cap * np.tanh(f64(x) / cap)


def rope_angles(positions, inv_freqs):
    """Angles [tokens, half] where ``inv_freqs`` has one row of frequencies for each token."""
    return np.array(
        [[p * f for f in row] for p, row in zip(positions, inv_freqs, strict=True)], np.float64
    )


def rope(x, angles):
    """Complex multiplication by e^(i angle), pair (j, j + half) as real and imaginary part."""
    x, half = f64(x), angles.shape[1]
    turned = (x[..., :half] + 1j * x[..., half : 2 * half]) * np.exp(1j * angles)[:, None, :]
    return np.concatenate([turned.real, turned.imag, x[..., 2 * half :]], axis=-1)


def attention(q, k, v, first_position, *, scale, window, soft_cap, causal, sinks=None):
    """One sequence, dense: q [queries, heads, dim] at first_position on; k, v [keys, kv, dim]."""
    q, k, v, sinks = f64(q), f64(k), f64(v), f64(sinks)
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
            weights = np.exp(scores - scores.max())
            total = weights.sum()
            if sinks is not None:
                total += np.exp(sinks[head] - scores.max())
            out[i, head] = sum(
                w / total * v[j, head // group] for w, j in zip(weights, seen, strict=True)
            )
    return out
