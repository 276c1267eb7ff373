"""Checks weights that stay packed: what a backend claims must equal what core would unpack."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from octavo.loading.gguf_quants import QUANT_TYPES, QuantType
from octavo.loading.tensors import QuantizedTensor
from octavo.testing import oracle
from octavo.testing.check import Case, Check, CheckFailure
from octavo.testing.feed import Feed

if TYPE_CHECKING:
    from octavo.testing.subject import Subject

__all__ = ["CHECK"]

_SCHEMES = {kind.dtype: kind for kind in QUANT_TYPES.values() if kind.is_quantized}
_OUT_FEATURES, _IN_FEATURES = 10, 512
_USUAL_WEIGHTS = (0.05, 5.0)  # the largest of a block; random scales are anything up to 65504
_BLOCKS_TO_CHOOSE_FROM = 100  # for each block that is needed


def _cases(subject: Subject) -> Iterator[Case]:
    claimed = subject.caps.quantization
    if not claimed:
        yield Case("none", unclaimed="caps.quantization is empty: weights arrive unpacked")
    for scheme in claimed:
        for has_bias in (False, True):
            yield Case(f"{scheme} with bias" if has_bias else scheme, (scheme, has_bias))


def _run(subject: Subject, case: tuple[str, bool]) -> None:
    scheme, has_bias = case
    if scheme not in _SCHEMES:
        raise CheckFailure(
            f"caps.quantization claims {scheme!r}, which no checkpoint that Octavo reads can hold; "
            f"it knows {', '.join(_SCHEMES)}."
        )
    dtype = subject.caps.dtypes[0]
    feed = Feed(subject, dtype)
    packed, weight = _random_weight(_SCHEMES[scheme], feed.rng)
    bias = feed.normal(_OUT_FEATURES) if has_bias else None
    prepared = subject.backend.put_linear(packed, bias, dtype)
    for num_rows in (1, 5):
        x = feed.normal(num_rows, _IN_FEATURES, scale=_IN_FEATURES**-0.5)
        feed.expect(
            f"linear with a weight packed as {scheme}",
            feed.get("linear", x, prepared),
            oracle.linear(x, weight, bias),
            ("the bias were missing", partial(oracle.linear, x, weight)),
        )


def _random_weight(
    kind: QuantType, rng: np.random.Generator
) -> tuple[QuantizedTensor, NDArray[np.float32]]:
    """Random codes under random scales, and the weights that core makes of them."""
    num_blocks = _OUT_FEATURES * _IN_FEATURES // kind.block_size
    shape = (num_blocks * _BLOCKS_TO_CHOOSE_FROM, kind.block_bytes)
    blocks = rng.integers(0, 256, shape).astype(np.uint8)
    weights = np.empty((len(blocks), kind.block_size), np.float32)
    with np.errstate(all="ignore"):
        kind.unpack(blocks, weights)
        largest = np.abs(weights).max(axis=1)
        usual = (largest > _USUAL_WEIGHTS[0]) & (largest < _USUAL_WEIGHTS[1])
    (chosen,) = np.nonzero(usual)
    chosen = chosen[:num_blocks]
    logical = (_OUT_FEATURES, _IN_FEATURES)
    data = blocks[chosen].reshape(_OUT_FEATURES, -1)
    return QuantizedTensor(kind.dtype, logical, data), weights[chosen].reshape(logical)


CHECK = Check(
    "ops",
    "linear_packed",
    "a weight of each scheme that is claimed counts as core would unpack it",
    "backend.put_linear, ops.linear",
    _run,
    _cases,
)
