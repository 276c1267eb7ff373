"""Products with packed weights, against core's own decoders and float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_case import DTYPES, context, run, runnable_variants
from numpy.typing import NDArray

from octavo.loading.gguf_quants import QUANT_TYPES, QuantType
from octavo.testing.tolerances import TOLERANCES
from octavo_cpu.native.instruction import Element, Opcode, Scheme
from octavo_cpu.native.library import Context, PackedLinear

pytestmark = pytest.mark.parametrize("variant", runnable_variants())

QUANTS = {quant.name: quant for quant in QUANT_TYPES.values() if quant.name in Scheme.__members__}
PACKED = [Scheme.Q4_0, Scheme.Q4_1, Scheme.Q8_0, Scheme.Q4_K, Scheme.Q6_K]
DTYPE_NAMES = {Element.F32: "float32", Element.BF16: "bfloat16", Element.F16: "float16"}
# Where the halves of a block's scales stand; their exponents must be sensible.
HALVES = {"Q4_0": (0,), "Q4_1": (0, 2), "Q8_0": (0,), "Q4_K": (0, 2), "Q6_K": (208,)}


def random_blocks(
    quant: QuantType, out_features: int, in_features: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Rows of blocks with every bit pattern of codes; weights come out at about unit size."""
    count = out_features * in_features // quant.block_size
    blocks = rng.integers(0, 256, (count, quant.block_bytes), np.uint8)
    for byte in HALVES[quant.name]:
        halves = rng.uniform(-1, 1, count).astype("<f2")
        blocks[:, byte : byte + 2] = halves[:, None].view(np.uint8)
    weights = np.empty((count, quant.block_size), np.float32)
    quant.unpack(blocks, weights)
    unit = np.float32(np.sqrt(np.mean(np.square(weights, dtype=np.float64))))
    for byte in HALVES[quant.name]:
        scaled = blocks[:, byte : byte + 2].copy().view("<f2").astype(np.float32) / unit
        blocks[:, byte : byte + 2] = scaled.astype("<f2").view(np.uint8)
    return blocks.reshape(out_features, -1)


def decoded(quant: QuantType, rows: NDArray[np.uint8], in_features: int) -> NDArray[np.float64]:
    """What core makes of the blocks: float64[out_features, in_features]."""
    weights = np.empty((rows.size // quant.block_bytes, quant.block_size), np.float32)
    quant.unpack(rows.reshape(-1, quant.block_bytes), weights)
    return weights.reshape(len(rows), in_features).astype(np.float64)


def multiply(
    opened: Context, element: Element, x: NDArray[Any], weight: PackedLinear
) -> NDArray[Any]:
    """``x @ weight.T``; rows of ``x`` may be strided."""
    out = np.zeros((len(x), weight.out_features), x.dtype)
    sizes = [len(x), x.strides[0] // x.itemsize, weight.in_features, weight.out_features]
    run(opened, Opcode.LINEAR, element, [x, weight, out], sizes)
    return out


@pytest.mark.parametrize("scheme", PACKED)
@pytest.mark.parametrize("element", DTYPE_NAMES)
def test_product_is_that_of_the_decoded_weight(
    variant: str, scheme: Scheme, element: Element
) -> None:
    rng, quant = np.random.default_rng(int(scheme)), QUANTS[scheme.name]
    for out_features, in_features, has_bias in [(150, 512, True), (64, 768, False), (5, 256, True)]:
        rows = random_blocks(quant, out_features, in_features, rng)
        bias = rng.standard_normal(out_features).astype(np.float32) if has_bias else None
        x = rng.standard_normal((101, in_features + 32)).astype(DTYPES[element])[:, :in_features]
        with context(variant) as opened:
            weight = opened.pack(scheme, rows, out_features, in_features, bias)
            result = multiply(opened, element, x, weight)
        expected = x.astype(np.float64) @ decoded(quant, rows, in_features).T
        expected += 0 if bias is None else bias
        bounds = TOLERANCES[DTYPE_NAMES[element]].scaled(float(np.sqrt(in_features)))
        error = np.abs(result.astype(np.float64) - expected)
        assert np.all(error <= bounds.absolute + bounds.relative * np.abs(expected))


@pytest.mark.parametrize("scheme", PACKED)
@pytest.mark.parametrize("element", DTYPE_NAMES)
def test_row_is_the_same_to_the_bit_in_any_batch_on_any_threads(
    variant: str, scheme: Scheme, element: Element
) -> None:
    rng, quant = np.random.default_rng(7), QUANTS[scheme.name]
    rows = random_blocks(quant, 300, 768, rng)
    x = rng.standard_normal((203, 768)).astype(DTYPES[element])
    bits = []
    for num_threads in (1, 3):
        with context(variant, num_threads) as opened:
            weight = opened.pack(scheme, rows, 300, 768, None)
            whole = multiply(opened, element, x, weight)
            alone = [multiply(opened, element, x[i : i + 1], weight) for i in range(0, 203, 9)]
            cuts = np.split(np.arange(203), [1, 3, 7, 12, 23, 101])
            parts = [multiply(opened, element, x[cut], weight) for cut in cuts]
            bits += [whole.tobytes(), np.concatenate(parts).tobytes()]
            assert np.concatenate(alone).tobytes() == np.ascontiguousarray(whole[::9]).tobytes()
    assert len(set(bits)) == 1


@pytest.mark.parametrize("scheme", PACKED)
def test_packed_weight_is_not_inflated(variant: str, scheme: Scheme) -> None:
    rng, quant = np.random.default_rng(1), QUANTS[scheme.name]
    rows = random_blocks(quant, 128, 1024, rng)
    with context(variant) as opened:
        weight = opened.pack(scheme, rows, 128, 1024, None)
        assert weight.nbytes <= rows.nbytes * (1.03 if scheme is Scheme.Q4_K else 1)
