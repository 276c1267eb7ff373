"""Attention over the paged cache: near the oracle, and the same bits however the work is cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from kernel_case import context, runnable_variants
from paged_sequences import Case, PagedSequences, expected, make_texts

from octavo.testing.comparison import expect_close
from octavo.testing.tolerances import tolerance_of
from octavo_cpu.native.instruction import Element

VARIANTS = pytest.mark.parametrize("variant", runnable_variants())
NAMES = {Element.F32: "float32", Element.BF16: "bfloat16", Element.F16: "float16"}

SHAPES = {
    "MHA": Case(heads=2, kv_heads=2),
    "GQA 3": Case(heads=6, kv_heads=2, block_size=32),
    "GQA 8": Case(heads=16, kv_heads=2, head_dim=128),
    "MQA 71": Case(heads=71, kv_heads=1, lens=(70,)),
    "MQA 100": Case(heads=100, kv_heads=1, head_dim=16, lens=(40,)),
    "head_dim 80": Case(head_dim=80, block_size=128),
    "head_dim 256": Case(head_dim=256, lens=(300,)),
    "head_dim 1": Case(head_dim=1),
    "head_dim 5": Case(head_dim=5, block_size=64),
    "window": Case(window=37, kv_heads=3),
    "wide window": Case(window=300, kv_heads=3),
    "soft-cap": Case(soft_cap=2.0),
    "sinks": Case(has_sinks=True),
    "not causal": Case(causal=False),
    "window, not causal": Case(causal=False, window=100),
    "all at once": Case(window=257, soft_cap=5.0, has_sinks=True, heads=4, kv_heads=2),
}
TYPES = [
    (Element.BF16, "bfloat16"),
    (Element.BF16, "int8"),
    (Element.BF16, "float32"),
    (Element.F32, "float32"),
    (Element.F32, "bfloat16"),
    (Element.F32, "float16"),
    (Element.F32, "int8"),
    (Element.F16, "float16"),
]
LENS = (1, 15, 256, 257, 700)


def _whole(opened, case, texts, **settings):
    """Every sequence's rows, each computed as one prompt."""
    paged = PagedSequences(opened, case, texts, **settings)
    return [paged.step([(seq, length)])[0] for seq, length in enumerate(case.lens)]


def _expect_oracle(case, texts, results, what):
    for seq, rows in enumerate(results):
        expect_close(
            f"{what}, sequence {seq}",
            rows,
            expected(case, texts, seq),
            tolerance_of(NAMES[case.element], case.kv_dtype),
            axes=("token", "head", "feature"),
        )


@VARIANTS
@pytest.mark.parametrize("case", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("types", [TYPES[0], TYPES[3]], ids=["bfloat16", "float32"])
def test_shapes(variant, case, types):
    case = replace(case, element=types[0], kv_dtype=types[1])
    texts = make_texts(case)
    with context(variant) as opened:
        _expect_oracle(case, texts, _whole(opened, case, texts), "A prompt")


@VARIANTS
@pytest.mark.parametrize("types", TYPES, ids=lambda types: f"{types[0].name}, {types[1]}")
def test_a_mixed_step_of_each_dtype(variant, types):
    case = Case(heads=6, kv_heads=2, head_dim=37, element=types[0], kv_dtype=types[1], lens=LENS)
    texts = make_texts(case)
    with context(variant) as opened:
        paged = PagedSequences(opened, case, texts)
        before = [paged.step([(seq, max(1, length - seq))])[0] for seq, length in enumerate(LENS)]
        rest = [(seq, seq) for seq in range(1, len(LENS))]  # decodes and short chunks
        after = paged.step(rest, padding=3)
        pairs = zip(before[1:], after[: len(rest)], strict=True)
        results = [before[0], *(np.concatenate(rows) for rows in pairs)]
        _expect_oracle(case, texts, results, "A mixed step")


BITWISE = [
    Case(heads=6, kv_heads=2, kv_dtype=kv_dtype, element=element, window=window, lens=(530,))
    for element, kv_dtype in TYPES
    for window in (None, 270)
]


@VARIANTS
@pytest.mark.parametrize(
    "case", BITWISE, ids=lambda case: f"{case.element.name}, {case.kv_dtype}, {case.window}"
)
def test_the_same_bits_however_a_prompt_is_cut(variant, case):
    texts = make_texts(case)
    (length,) = case.lens
    with context(variant) as opened:
        whole = _whole(opened, case, texts)[0]
        for chunks in ([100, 1, 157, 1, 1, 255, 7, 8], [500] + [1] * 30, [7, 9] * 33):
            paged = PagedSequences(opened, case, texts, seed=len(chunks), num_threads=8)
            rows = [paged.step([(0, tokens)])[0] for tokens in chunks]
            count = sum(chunks)
            assert np.concatenate(rows).tobytes() == whole[:count].tobytes()
        assert length == 530


@VARIANTS
def test_the_same_bits_alone_and_among_others(variant):
    case = Case(heads=6, kv_heads=2, lens=LENS, block_size=32, has_sinks=True)
    texts = make_texts(case)
    with context(variant) as opened, context(variant, 1) as alone, context(variant, 3) as three:
        whole = _whole(opened, case, texts)
        for among, num_threads in ((opened, 2), (alone, 1), (three, 3)):
            paged = PagedSequences(among, case, texts, seed=num_threads, num_threads=num_threads)
            some = [(seq, length // 2) for seq, length in enumerate(LENS) if length > 1]
            first = paged.step(some, padding=1)
            last = paged.step([(seq, LENS[seq] - length) for seq, length in some])
            for (seq, _), *rows in zip(some, first, last, strict=True):
                assert np.concatenate(rows).tobytes() == whole[seq].tobytes()
