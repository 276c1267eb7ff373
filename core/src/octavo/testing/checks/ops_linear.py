"""Checks of products with prepared weights: linear, its shared and packed weights, mlp."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octavo.testing import oracle
from octavo.testing.check import Check
from octavo.testing.checks.op_cases import op_check
from octavo.testing.checks.packed_weights import CHECK as PACKED_WEIGHTS
from octavo.testing.diagnosis import Variant
from octavo.testing.feed import Feed

__all__ = ["CHECKS"]

_EVERY_COUNT = (*range(1, 35), 47, 48, 49, 63, 64, 65)  # the rows where kernels change tiles
_QUICK_COUNTS = (1, 3, 4, 16, 17, 65)
_LONG_SUM = 8_192


def _variants(
    x: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any] | None
) -> Iterator[Variant]:
    product = oracle.linear(x, weight)
    if bias is not None:
        yield "the bias were missing", lambda: product
        yield "the bias were added twice", lambda: product + 2 * oracle.float64(bias)
    if weight.shape[0] == weight.shape[1]:
        yield "the weight were transposed", lambda: oracle.linear(x, weight.T, bias)


def _linear(
    feed: Feed, num_rows: int, in_features: int, out_features: int, *, has_bias: bool = False
) -> None:
    x = feed.normal(num_rows, in_features)
    weight = feed.normal(out_features, in_features, scale=in_features**-0.5)
    bias = feed.normal(out_features) if has_bias else None
    feed.expect(
        "linear",
        feed.get("linear", x, feed.linear(weight, bias)),
        oracle.linear(x, weight, bias),
        *_variants(x, weight, bias),
    )


def _row_counts(feed: Feed, counts: Sequence[int]) -> None:
    """One weight for all, as in a server that sees batches of any size."""
    weight, bias = feed.normal(40, 48, scale=48**-0.5), feed.normal(40)
    prepared = feed.linear(weight, bias)
    for num_rows in counts:
        x = feed.normal(num_rows, 48)
        feed.expect(
            "linear",
            feed.get("linear", x, prepared),
            oracle.linear(x, weight, bias),
            *_variants(x, weight, bias),
        )


def _long_sums(feed: Feed) -> None:
    """A running sum of positive terms stalls in a narrow dtype: 1 + 2^-9 is 1 in bfloat16."""
    x = feed.array(feed.rng.uniform(0.5, 1.5, (3, _LONG_SUM)))
    weight = feed.array(feed.rng.uniform(0, 2 / _LONG_SUM, (5, _LONG_SUM)))
    feed.expect(
        "linear",
        feed.get("linear", x, feed.linear(weight)),
        oracle.linear(x, weight),
        ("the sum were accumulated in the storage dtype", lambda: _accumulated(x, weight)),
    )


def _accumulated(x: NDArray[Any], weight: NDArray[Any]) -> NDArray[np.float64]:
    products = (oracle.float64(x)[:, None] * oracle.float64(weight)[None]).astype(x.dtype)
    total = np.zeros(products.shape[:2], x.dtype)
    for index in range(products.shape[2]):
        total = total + products[:, :, index]
    return oracle.float64(total)


def _tied(feed: Feed, vocab_size: int, hidden_size: int, *, has_bias: bool = False) -> None:
    """The embedding table, already on the device, as the weight of the output projection."""
    table = feed.normal(vocab_size, hidden_size, scale=hidden_size**-0.5)
    bias = feed.normal(vocab_size) if has_bias else None
    placed = feed.subject.put(table, feed.dtype)
    prepared = feed.subject.backend.put_linear(placed, bias, feed.dtype)
    x, ids = feed.normal(5, hidden_size), np.arange(0, vocab_size, 3, dtype=np.int32)
    feed.expect(
        "linear with a weight made by put",
        feed.get("linear", x, prepared),
        oracle.linear(x, table, bias),
        *_variants(x, table, bias),
    )
    rows = np.asarray(feed.subject.get(feed.subject.ops.embed(feed.subject.put(ids), placed)))
    feed.expect_same("embed after the table had become a weight too", rows, table[ids])


def _mlp(
    feed: Feed,
    num_rows: int,
    hidden_size: int,
    inner_size: int,
    activation: str,
    *,
    has_bias: bool = False,
) -> None:
    x = feed.normal(num_rows, hidden_size)
    gate_up = feed.normal(2 * inner_size, hidden_size, scale=2 * hidden_size**-0.5)
    down = feed.normal(hidden_size, inner_size, scale=inner_size**-0.5)
    biases = [feed.normal(len(weight)) if has_bias else None for weight in (gate_up, down)]
    projected = feed.round(oracle.linear(x, gate_up, biases[0]))
    gate, up = (oracle.float64(projected[:, half:][:, :inner_size]) for half in (0, inner_size))

    def expected(act: Callable[[Any], NDArray[np.float64]]) -> NDArray[np.float64]:
        return oracle.linear(feed.round(act(gate) * up), down, biases[1])

    functions: dict[str, Callable[[Any], NDArray[np.float64]]] = {
        "silu": oracle.silu,
        "gelu": lambda x: oracle.gelu(x, tanh=False),
        "gelu_tanh": lambda x: oracle.gelu(x, tanh=True),
    }
    feed.expect(
        "mlp",
        feed.get(
            "mlp", x, feed.linear(gate_up, biases[0]), feed.linear(down, biases[1]), activation
        ),
        expected(functions[activation]),
        *(
            (f"the activation were {other}", lambda function=function: expected(function))
            for other, function in functions.items()
            if other != activation
        ),
    )


CHECKS: tuple[Check, ...] = (
    op_check(
        "linear",
        "x @ weight.T + bias for every number of rows, accumulated in float32",
        {
            "few rows": (_row_counts, _QUICK_COUNTS),
            "every number of rows": (_row_counts, _EVERY_COUNT),
            "odd sizes": (_linear, 7, 37, 29),
            "one feature": (_linear, 2, 16, 1),
            "300x96 to 640 with bias": (lambda feed: _linear(feed, 300, 96, 640, has_bias=True),),
            "1100x8 to 5 with bias": (lambda feed: _linear(feed, 1100, 8, 5, has_bias=True),),
            "3x1061 to 1103 with bias": (lambda feed: _linear(feed, 3, 1061, 1103, has_bias=True),),
            "sums of 8192 terms": (_long_sums,),
        },
        float32_rows=[
            "every number of rows",
            "one feature",
            "1100x8 to 5 with bias",
            "3x1061 to 1103 with bias",
        ],
        full_rows=["every number of rows"],
    ),
    op_check(
        "linear_tied",
        "a table made by put serves as a weight too, and stays what it was",
        {
            "29x16": (_tied, 29, 16),
            "square": (_tied, 24, 24),
            "with bias": (lambda feed: _tied(feed, 29, 16, has_bias=True),),
        },
        look="backend.put_linear, ops.linear",
    ),
    PACKED_WEIGHTS,
    op_check(
        "mlp",
        "down(act(gate) * up) for each activation",
        {
            **{
                f"{activation} {rows}x40": (_mlp, rows, 40, 30, activation)
                for activation in ("silu", "gelu", "gelu_tanh")
                for rows in (1, 5)
            },
            "silu 300x24": (_mlp, 300, 24, 32, "silu"),
            "silu with biases": (lambda feed: _mlp(feed, 5, 40, 30, "silu", has_bias=True),),
        },
        float32_rows=[
            "silu 1x40",
            "gelu 1x40",
            "gelu_tanh 1x40",
            "silu 300x24",
            "silu with biases",
        ],
    ),
)
