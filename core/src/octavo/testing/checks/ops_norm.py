"""Checks of the normalisations: rms_norm, add_rms_norm, layer_norm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octavo.testing import oracle
from octavo.testing.check import Check
from octavo.testing.checks.op_cases import op_check
from octavo.testing.diagnosis import Variant
from octavo.testing.feed import Feed

__all__ = ["CHECKS"]

_AXES = {2: ("row", "feature"), 3: ("row", "head", "feature")}


def _rms_variants(x: Any, weight: NDArray[Any], eps: float) -> Iterator[Variant]:
    """Wrong ways to normalise."""
    rows = oracle.float64(x)
    mean_square = np.mean(np.square(rows), axis=-1, keepdims=True)
    scale = oracle.float64(weight)
    yield "eps were added outside the root", lambda: rows / (np.sqrt(mean_square) + eps) * scale
    yield "eps were ignored", lambda: rows / np.sqrt(mean_square) * scale
    yield "the weight were ignored", lambda: oracle.rms_norm(x, np.ones_like(scale), eps)
    yield "1 were added to the weight", lambda: oracle.rms_norm(x, 1 + scale, eps)
    yield (
        "the sum of squares were not divided by their number",
        lambda: rows / np.sqrt(mean_square * rows.shape[-1] + eps) * scale,
    )
    yield "the mean were subtracted first", lambda: oracle.layer_norm(x, weight, None, eps)


def _rms_norm(feed: Feed, shape: tuple[int, ...], scale: float = 3.0, eps: float = 1e-5) -> None:
    x, weight = feed.normal(*shape, scale=scale), feed.normal(shape[-1])
    feed.expect(
        "rms_norm",
        feed.get("rms_norm", x, weight, eps),
        oracle.rms_norm(x, weight, eps),
        *_rms_variants(x, weight, eps),
        axes=_AXES[len(shape)],
    )


def _rms_norm_extreme(feed: Feed, *, huge: bool) -> None:
    """Rows whose squares leave the range of the dtype (of float16), but not that of float32."""
    if feed.dtype == "float16":
        _rms_norm(feed, (3, 48), scale=3e3 if huge else 1e-4, eps=1e-10)
    else:
        _rms_norm(feed, (3, 48), scale=1e12 if huge else 1e-12, eps=1e-26)


def _rms_norm_eps(feed: Feed) -> None:
    """Rows as small as eps, where its place makes a difference."""
    _rms_norm(feed, (4, 32), scale=0.1, eps=1e-2)


def _add_rms_norm(feed: Feed, num_rows: int, dim: int) -> None:
    x, residual, weight = feed.normal(num_rows, dim), feed.normal(num_rows, dim), feed.normal(dim)
    normed, total = map(feed.subject.get, feed.call("add_rms_norm", x, residual, weight, 1e-5))
    expected = oracle.float64(x) + oracle.float64(residual)
    feed.expect(
        "add_rms_norm, the second (the new residual),",
        np.asarray(total),
        expected,
        ("it were the first, normalised", lambda: oracle.rms_norm(expected, weight, 1e-5)),
        ("the residual were returned as it was", lambda: oracle.float64(residual)),
    )
    stored = feed.round(expected)
    feed.expect(
        "add_rms_norm, the first (what is normalised),",
        np.asarray(normed),
        oracle.rms_norm(stored, weight, 1e-5),
        ("the residual had not been added", lambda: oracle.rms_norm(x, weight, 1e-5)),
        *_rms_variants(stored, weight, 1e-5),
    )


def _layer_norm(
    feed: Feed, shape: tuple[int, ...], *, has_bias: bool = True, mean: float = 0.5
) -> None:
    x, weight = feed.normal(*shape, mean=mean), feed.normal(shape[-1])
    bias = feed.normal(shape[-1]) if has_bias else None
    rows = oracle.float64(x)
    unbiased = np.square(rows - rows.mean(axis=-1, keepdims=True)).sum(axis=-1, keepdims=True)
    unbiased = unbiased / (shape[-1] - 1)
    feed.expect(
        "layer_norm",
        feed.get("layer_norm", x, weight, bias, 1e-5),
        oracle.layer_norm(x, weight, bias, 1e-5),
        ("the bias were ignored", lambda: oracle.layer_norm(x, weight, None, 1e-5)),
        ("the mean were not subtracted", lambda: oracle.rms_norm(x, weight, 1e-5)),
        (
            "the variance were divided by one less than the number of features",
            lambda: (
                (rows - rows.mean(axis=-1, keepdims=True))
                / np.sqrt(unbiased + 1e-5)
                * oracle.float64(weight)
                + (0 if bias is None else oracle.float64(bias))
            ),
        ),
        axes=_AXES[len(shape)],
    )


def _layer_norm_far_from_zero(feed: Feed) -> None:
    """Where the mean is a hundred deviations, mean(x²) - mean(x)² has no digits left."""
    _layer_norm(feed, (3, 40), mean=100.0)


CHECKS: tuple[Check, ...] = (
    op_check(
        "rms_norm",
        "rows of any size are normalised in float32, eps inside the root, heads apart",
        {
            "1x64": (_rms_norm, (1, 64)),
            "300x24": (_rms_norm, (300, 24)),
            "1100x8": (_rms_norm, (1100, 8)),
            "3x8209": (_rms_norm, (3, 8209)),
            "each head of 5x3x16": (_rms_norm, (5, 3, 16)),
            "each head of 70x5x128": (_rms_norm, (70, 5, 128)),
            "eps as large as the row": (_rms_norm_eps,),
            "huge rows": (lambda feed: _rms_norm_extreme(feed, huge=True),),
            "tiny rows": (lambda feed: _rms_norm_extreme(feed, huge=False),),
        },
        float32_rows=["1x64", "300x24", "1100x8", "each head of 70x5x128"],
    ),
    op_check(
        "add_rms_norm",
        "both results are right: the normalised sum and the sum itself",
        {
            "1x64": (_add_rms_norm, 1, 64),
            "3x50": (_add_rms_norm, 3, 50),
            "300x24": (_add_rms_norm, 300, 24),
            "1100x8": (_add_rms_norm, 1100, 8),
            "3x8209": (_add_rms_norm, 3, 8209),
        },
        float32_rows=["1x64", "300x24", "1100x8"],
    ),
    op_check(
        "layer_norm",
        "mean and variance are taken in float32, also far from zero; the bias may be absent",
        {
            "1x64": (_layer_norm, (1, 64)),
            "300x24": (_layer_norm, (300, 24)),
            "1100x8": (_layer_norm, (1100, 8)),
            "3x8209": (_layer_norm, (3, 8209)),
            "without bias": (lambda feed: _layer_norm(feed, (5, 33), has_bias=False),),
            "far from zero": (_layer_norm_far_from_zero,),
        },
        float32_rows=["1x64", "300x24", "1100x8"],
    ),
)
