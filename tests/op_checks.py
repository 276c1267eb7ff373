"""Every op against the float64 oracle: one table of cases, for any op set that can be fed NumPy."""

from dataclasses import dataclass

import numpy as np

import oracle
from octavo.ops.protocol import AttentionParams, RopeSpec
from octavo.testing.tolerances import TOLERANCES
from paged_case import DTYPES, Case, PagedStep, build

SHAPES = ((1, 64), (3, 48), (65, 24))
OPS = (
    "embed",
    "linear",
    "linear_bias",
    "rms_norm",
    "rms_norm_heads",
    "add_rms_norm",
    "layer_norm",
    "layer_norm_bias",
    "silu_mul",
    "gelu_mul",
    "gelu_mul_tanh",
    "gelu",
    "gelu_tanh",
    "soft_cap",
    "take_rows",
    "mlp_silu",
    "mlp_gelu",
    "mlp_gelu_tanh",
    "rope",
    "rope_partial",
    "all_reduce",
)


@dataclass(frozen=True)
class Subject:
    """An op set under test, and how arrays, weights, caches and plans reach it."""

    ops: object
    put: object  # NumPy -> array
    get: object  # array -> NumPy
    linear: object  # (weight, bias, dtype) -> LinearWeight
    cache: object  # (k, v) -> Cache
    read_cache: object  # Cache -> (k, v)
    plan: object  # (StepBatch, block_size) -> one plan per group
    jit: object = staticmethod(lambda function: function)


def assert_close(result, expected, dtype):
    result = np.asarray(result)
    assert result.dtype == DTYPES[dtype]
    assert result.shape == np.shape(expected)
    tolerance = TOLERANCES[dtype]
    np.testing.assert_allclose(
        result.astype(np.float64), expected, rtol=tolerance.relative, atol=tolerance.absolute
    )


def check_op(subject, op, shape, dtype):
    """Inputs stay unmodified (they are read-only) and the result keeps their dtype."""
    rng = np.random.default_rng([OPS.index(op), *shape])
    check = _CHECKS[op]
    check(_Feed(subject, rng, dtype), *shape)


class _Feed:
    """Draws inputs of one dtype, hands them to the subject and compares what comes back."""

    def __init__(self, subject, rng, dtype):
        self.subject, self.rng, self.dtype = subject, rng, dtype
        self.ops = subject.ops

    def draw(self, *shape, scale=1.0):
        array = (self.rng.standard_normal(shape) * scale).astype(DTYPES[self.dtype])
        array.flags.writeable = False
        return array

    def ids(self, count, below):
        return self.rng.integers(0, below, count).astype(np.int32)

    def linear(self, weight, bias=None):
        return self.subject.linear(weight, bias, self.dtype)

    def __call__(self, op, *args, **kwargs):
        given = [self.subject.put(a) if isinstance(a, np.ndarray) else a for a in args]
        result = getattr(self.ops, op)(*given, **kwargs)
        if isinstance(result, tuple):
            return tuple(map(self.subject.get, result))
        return self.subject.get(result)

    def rounded(self, x):
        """A float64 intermediate as the dtype would store it."""
        return np.asarray(x).astype(DTYPES[self.dtype])

    def close(self, result, expected):
        assert_close(result, expected, self.dtype)


def _embed(feed, rows, dim):
    table, ids = feed.draw(11, dim), feed.ids(rows, 11)
    np.testing.assert_array_equal(feed("embed", ids, table), table[ids])


def _linear(feed, rows, dim, *, bias=False):
    x, weight = feed.draw(rows, dim), feed.draw(40, dim, scale=dim**-0.5)
    b = feed.draw(40) if bias else None
    feed.close(feed("linear", x, feed.linear(weight, b)), oracle.linear(x, weight, b))


def _rms_norm(feed, rows, dim):
    x, weight = feed.draw(rows, dim, scale=3.0), feed.draw(dim)
    feed.close(feed("rms_norm", x, weight, 1e-5), oracle.rms_norm(x, weight, 1e-5))


def _rms_norm_heads(feed, rows, dim):
    x, weight = feed.draw(rows, 3, dim), feed.draw(dim)
    feed.close(feed("rms_norm", x, weight, 1e-6), oracle.rms_norm(x, weight, 1e-6))


def _add_rms_norm(feed, rows, dim):
    x, residual, weight = feed.draw(rows, dim), feed.draw(rows, dim), feed.draw(dim)
    normed, total = feed("add_rms_norm", x, residual, weight, 1e-5)
    expected = oracle.f64(x) + oracle.f64(residual)
    feed.close(total, expected)
    feed.close(normed, oracle.rms_norm(feed.rounded(expected), weight, 1e-5))


def _layer_norm(feed, rows, dim, *, bias=False):
    x, weight = feed.draw(rows, dim) + feed.draw(1), feed.draw(dim)
    b = feed.draw(dim) if bias else None
    feed.close(feed("layer_norm", x, weight, b, 1e-5), oracle.layer_norm(x, weight, b, 1e-5))


def _gated(op, activation, **kwargs):
    def check(feed, rows, dim):
        gate_up = feed.draw(rows, 2 * dim, scale=4.0)
        expected = activation(gate_up[:, :dim], **kwargs) * oracle.f64(gate_up[:, dim:])
        feed.close(feed(op, gate_up, **kwargs), expected)

    return check


def _gelu(*, tanh):
    def check(feed, rows, dim):
        x = feed.draw(rows, dim, scale=3.0)
        feed.close(feed("gelu", x, tanh=tanh), oracle.gelu(x, tanh=tanh))

    return check


def _soft_cap(feed, rows, dim):
    x = feed.draw(rows, dim, scale=50.0)
    feed.close(feed("soft_cap", x, 30.0), oracle.soft_cap(x, 30.0))


def _take_rows(feed, rows, dim):
    x, ids = feed.draw(rows, dim), feed.ids(7, rows)
    np.testing.assert_array_equal(feed("take_rows", x, ids), x[ids])


def _mlp(activation, function):
    def check(feed, rows, dim):
        x = feed.draw(rows, dim)
        gate_up, down = feed.draw(60, dim, scale=dim**-0.5), feed.draw(dim, 30, scale=30**-0.5)
        projected = feed.rounded(oracle.linear(x, gate_up))
        inner = feed.rounded(function(projected[:, :30]) * oracle.f64(projected[:, 30:]))
        result = feed("mlp", x, feed.linear(gate_up), feed.linear(down), activation)
        feed.close(result, oracle.linear(inner, down))

    return check


def _rope(part):
    def check(feed, rows, dim):
        half = dim // 2 // part
        x = feed.draw(rows, 3, dim)
        angles = feed.rng.uniform(-3, 3, (rows, half))
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        feed.close(feed("rope", x, cos, sin), oracle.rope(x, angles))

    return check


def _all_reduce(feed, rows, dim):
    x = feed.draw(rows, dim)
    np.testing.assert_array_equal(feed("all_reduce", x), x)


_CHECKS = {
    "embed": _embed,
    "linear": _linear,
    "linear_bias": lambda feed, rows, dim: _linear(feed, rows, dim, bias=True),
    "rms_norm": _rms_norm,
    "rms_norm_heads": _rms_norm_heads,
    "add_rms_norm": _add_rms_norm,
    "layer_norm": _layer_norm,
    "layer_norm_bias": lambda feed, rows, dim: _layer_norm(feed, rows, dim, bias=True),
    "silu_mul": _gated("silu_mul", oracle.silu),
    "gelu_mul": _gated("gelu_mul", oracle.gelu, tanh=False),
    "gelu_mul_tanh": _gated("gelu_mul", oracle.gelu, tanh=True),
    "gelu": _gelu(tanh=False),
    "gelu_tanh": _gelu(tanh=True),
    "soft_cap": _soft_cap,
    "take_rows": _take_rows,
    "mlp_silu": _mlp("silu", oracle.silu),
    "mlp_gelu": _mlp("gelu", lambda x: oracle.gelu(x, tanh=False)),
    "mlp_gelu_tanh": _mlp("gelu_tanh", lambda x: oracle.gelu(x, tanh=True)),
    "rope": _rope(1),
    "rope_partial": _rope(2),
    "all_reduce": _all_reduce,
}
assert tuple(_CHECKS) == OPS


def rope_specs():
    """One of each kind; what a step works out itself is in ``rope_frequencies``."""
    base, dim = 10_000.0, 16
    plain = tuple(base ** (-i / dim) for i in range(0, dim, 2))
    long = tuple(f / (1.5 + i) for i, f in enumerate(plain))
    return {
        "default": RopeSpec("default", dim, base, plain),
        "yarn": RopeSpec("yarn", dim, base, plain, attention_factor=1.25),
        "dynamic": RopeSpec("dynamic", dim, base, plain, factor=4.0, original_max_len=32),
        "longrope": RopeSpec(
            "longrope",
            dim,
            base,
            plain,
            attention_factor=1.19,
            original_max_len=32,
            long_inv_freq=long,
        ),
    }


def rope_frequencies(spec, context_len):
    """Inverse frequencies of one token, from the formulas in the docstring of RopeSpec."""
    if context_len <= spec.original_max_len:
        return spec.inv_freq
    if spec.kind == "longrope":
        return spec.long_inv_freq
    if spec.kind == "dynamic":
        dim = spec.rotary_dim
        stretch = spec.factor * context_len / spec.original_max_len - (spec.factor - 1)
        base = spec.base * stretch ** (dim / (dim - 2))
        return tuple(1 / base ** (i / dim) for i in range(0, dim, 2))
    return spec.inv_freq


def check_rope_table(subject, kind):
    spec = rope_specs()[kind]
    positions = np.array([0, 1, 31, 32, 33, 500, 4], np.int32)
    context_lens = np.array([1, 32, 32, 33, 100, 501, 40], np.int32)
    table = subject.ops.rope_table(subject.put(positions), subject.put(context_lens), spec)
    frequencies = [rope_frequencies(spec, int(length)) for length in context_lens]
    angles = oracle.rope_angles(positions.tolist(), frequencies)
    for result, expected in zip(
        map(subject.get, table), (np.cos(angles), np.sin(angles)), strict=True
    ):
        assert result.dtype == np.float32
        # float32 angles of up to 500 radians are off by half a unit in the last place: 3e-5.
        np.testing.assert_allclose(result, expected * spec.attention_factor, atol=5e-5)


def expected_attention(step: PagedStep, case: Case):
    """Dense float64 attention of every token that is no padding."""
    rows = []
    for seq, (k, v) in enumerate(step.dense):
        start, end = step.batch.query_start[seq : seq + 2]
        rows.append(
            oracle.attention(
                step.q[start:end],
                k,
                v,
                case.seqs[seq][0],
                scale=case.head_dim**-0.5,
                window=case.window,
                soft_cap=case.soft_cap,
                causal=case.causal,
                sinks=step.sinks,
            )
        )
    return np.concatenate(rows)


def check_attend(subject, case, dtype):
    """Attention equals the oracle, and the cache holds what it held and what was written."""
    step = build(case, dtype)
    params = AttentionParams(case.head_dim**-0.5, case.window, case.soft_cap, case.causal)
    (plan,) = subject.plan(step.batch, case.block_size)

    def attend(q, k, v, cache, plan, sinks):
        return subject.ops.attend(q, k, v, cache, plan, params, sinks)

    attended, cache = subject.jit(attend)(
        subject.put(step.q),
        subject.put(step.k),
        subject.put(step.v),
        subject.cache(step.k_cache.copy(), step.v_cache.copy()),
        plan,
        None if step.sinks is None else subject.put(step.sinks),
    )
    expected = expected_attention(step, case)
    attended = subject.get(attended)
    assert attended.shape == step.q.shape
    assert_close(attended[: len(expected)], expected, dtype)
    _check_cache(subject.read_cache(cache), step, case)


def _check_cache(stored, step, case):
    slots = step.batch.groups[0].slots[: len(step.q) - case.padded_tokens]
    for after, before, new in zip(
        stored, (step.k_cache, step.v_cache), (step.k, step.v), strict=True
    ):
        wanted = before.copy().reshape(-1, *before.shape[2:])
        wanted[slots] = new[: len(slots)].astype(before.dtype)
        wanted = wanted.reshape(before.shape)
        # Block 0 is where padding goes; what lies there is nobody's business.
        np.testing.assert_array_equal(
            np.asarray(after)[1:].astype(np.float32), wanted[1:].astype(np.float32)
        )
