"""The steps that attention is checked over: a table for each thing that a kernel may get wrong."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from octavo.testing.checks.attention_run import AttentionCase
from octavo.testing.paged_step import DTYPES, PagedCase

if TYPE_CHECKING:
    from octavo.testing.subject import Subject

__all__ = [
    "KV_DTYPES",
    "Rows",
    "attend",
    "block_edges",
    "dtypes",
    "head_groups",
    "head_sizes",
    "kv_dtypes",
    "lengths",
    "many_kv_heads",
    "non_causal",
    "rope_attend",
    "scores",
    "sinks",
    "soft_caps",
    "windows",
]

Rows: TypeAlias = Mapping[str, AttentionCase]
Seqs: TypeAlias = tuple[tuple[int, int], ...]  # (tokens in the cache, tokens in this step) of each

KV_DTYPES = (*DTYPES, "float8_e4m3fn", "float8_e5m2", "int8")
_MIXED: Seqs = ((9, 1), (3, 4), (0, 6))  # a decode, a chunk of a prompt, a whole prompt
# Kernels of another kind may serve what is long: as many keys as fill a power of two, or one more.
_LONG: Seqs = ((700, 1), (255, 1), (140, 20))
_DECODES: Seqs = ((21, 1), (6, 1), (190, 1))  # kernels for steps without a prompt are others
_WHOLE_SPLITS: Seqs = ((127, 1), (255, 1), (511, 1), (1023, 1), (320, 64))
_ONE_KEY_MORE: Seqs = ((128, 1), (256, 1), (512, 1), (1024, 1), (321, 64))


def _block_size(subject: Subject) -> int:
    """A claimed size; 4 where possible, as small blocks have more edges."""
    sizes = subject.caps.block_sizes
    return min((size for size in sizes if size >= 4), default=max(sizes))


def _paged(subject: Subject, seqs: Seqs, **settings: Any) -> PagedCase:
    return PagedCase(seqs, **{"block_size": _block_size(subject), **settings})


def lengths(subject: Subject) -> Rows:
    """Sequences of any length, prefill beside decode, tables in and out of order, padding."""
    long = ((1100, 1), (1, 1), (40, 5))
    cases = {
        "one token": _paged(subject, ((0, 1),)),
        "one prompt": _paged(subject, ((0, 13),)),
        "odd lengths": _paged(subject, ((33, 1), (2, 37), (0, 33), (1, 1))),
        "prefill beside decode": _paged(subject, ((0, 9), (7, 1), (5, 3), (30, 1))),
        **{
            f"{count} decodes": _paged(
                subject, tuple((i % 13, 1) for i in range(count)), heads=2, kv_heads=1, head_dim=8
            )
            for count in (64, 514)  # full tiles, and some that are not
        },
        "decodes beside a long prompt": _paged(
            subject, ((30, 1), (0, 520), (9, 1), (0, 1)), heads=2, kv_heads=1, head_dim=8
        ),
        "whole splits": _paged(subject, _WHOLE_SPLITS, heads=2, kv_heads=1),
        "a key beyond whole splits": _paged(subject, _ONE_KEY_MORE, heads=2, kv_heads=1),
        "24 decodes": _paged(subject, tuple((37 * i % 211, 1) for i in range(24))),
        "long": _paged(subject, long, heads=4, kv_heads=2),
        "very long": _paged(subject, ((8300, 1),), heads=2, kv_heads=1),
        "long, blocks in order": _paged(subject, long, shuffled=False),
        "a long prompt": _paged(subject, ((129, 131),), heads=4, kv_heads=1),
        "block ids beyond 32767": _paged(
            subject, _MIXED, heads=2, kv_heads=1, head_dim=8, spare_blocks=66_000
        ),
        "padded tokens and sequences": _paged(subject, _MIXED, padded_tokens=3, padded_seqs=2),
    }
    return {label: AttentionCase(case) for label, case in cases.items()}


def many_kv_heads(subject: Subject) -> Rows:
    """As of models without grouped queries."""
    rows = {}
    for dtype in DTYPES:
        case = _paged(subject, _MIXED, heads=12, kv_heads=12)
        rows[f"12 KV heads {dtype}"] = AttentionCase(case, dtype)
    rows["65 KV heads float32"] = AttentionCase(_paged(subject, _MIXED, heads=65, kv_heads=65))
    return rows


def head_groups(subject: Subject) -> Rows:
    """Query heads for each KV head, as in models: few are powers of two; and many heads."""
    heads = (
        *((4, 4), (9, 3), (8, 2), (16, 2), (32, 2), (8, 1)),
        *((1, 1), (10, 2), (12, 2), (14, 2), (24, 2), (32, 1), (136, 8)),
    )
    return {
        f"{queries} heads on {kv_heads}": AttentionCase(
            _paged(subject, _MIXED, heads=queries, kv_heads=kv_heads)
        )
        for queries, kv_heads in heads
    }


def head_sizes(subject: Subject) -> Rows:
    """Those of the models there are; 72 is a multiple of 8 only, 80 of 16, 96 and 160 of 32."""
    return {
        f"head_dim {head_dim}": AttentionCase(
            _paged(subject, ((9, 1), (3, 4)), heads=4, head_dim=head_dim)
        )
        for head_dim in (64, 72, 80, 96, 128, 160, 192, 256, 512)
    }


def block_edges(subject: Subject) -> Rows:
    """For each claimed block size, sequences that end just before, on and just after an edge."""
    rows = {}
    for size in sorted(subject.caps.block_sizes):
        decodes = ((size - 1, 1), (size, 1), (2 * size - 1, 1), (3 * size, 1))
        prompts = ((0, size), (0, size + 1), (size - 1, 2), (size, size))
        for label, seqs in (("decodes", decodes), ("prompts", prompts)):
            case = PagedCase(seqs, heads=2, kv_heads=1, block_size=size)
            rows[f"{label} in blocks of {size}"] = AttentionCase(case)
    return rows


def windows(subject: Subject) -> Rows:
    """One key, a few, more than there are; what lies behind has been given back."""
    size = _block_size(subject)
    seqs = ((45, 30), (21, 1), (0, 11))
    sizes = {
        "1": 1,
        "5": 5,
        "a block": size,
        "a block and one": size + 1,
        "as long as a sequence": 22,
        "longer than the sequence": 100,
    }
    rows = {
        f"window {label}": AttentionCase(_paged(subject, seqs, window=window))
        for label, window in sizes.items()
    }
    rows["window 5, decodes"] = AttentionCase(_paged(subject, _DECODES, window=5))
    for window in (64, 129):  # of several tiles, and shorter than a chunk, or longer
        case = _paged(subject, ((90, 150), (300, 1), (64, 1), (256, 1)), window=window)
        rows[f"window {window} over long sequences"] = AttentionCase(
            replace(case, heads=2, kv_heads=1)
        )
    return rows


def soft_caps(subject: Subject) -> Rows:
    """Caps about as large as the scores, so that they make a difference."""
    seqs = ((21, 1), (6, 6))
    cases = {
        "cap 0.5": _paged(subject, seqs, soft_cap=0.5),
        "cap 2": _paged(subject, seqs, soft_cap=2.0),
        "cap 1, window 7": _paged(subject, seqs, soft_cap=1.0, window=7),
        "cap 0.5 over long sequences": _paged(subject, _LONG, soft_cap=0.5),
        "cap 0.5, decodes": _paged(subject, _DECODES, soft_cap=0.5),
        "cap 0.5, heads of 128": _paged(subject, seqs, soft_cap=0.5, head_dim=128),
        "cap far below the scores": _paged(subject, seqs, soft_cap=0.5, scale=20.0),
    }
    return {label: AttentionCase(case) for label, case in cases.items()}


def sinks(subject: Subject) -> Rows:
    """One sink for each query head."""
    seqs = ((21, 1), (6, 6), (0, 1))
    cases = {
        "6 heads on 2": _paged(subject, seqs, sinks=True),
        "8 heads on 1": _paged(subject, seqs, sinks=True, heads=8, kv_heads=1),
        "with a window": _paged(subject, seqs, sinks=True, window=7),
        "with a soft-cap": _paged(subject, seqs, sinks=True, soft_cap=0.5),
        "over long sequences": _paged(subject, _LONG, sinks=True),
        "of decodes": _paged(subject, _DECODES, sinks=True),
        "of decodes in a window": _paged(subject, _DECODES, sinks=True, window=7),
        "heads of 128": _paged(subject, seqs, sinks=True, head_dim=128),
        "with a window and a soft-cap": _paged(
            subject, seqs, sinks=True, window=7, soft_cap=2.0, padded_tokens=1, padded_seqs=1
        ),
    }
    return {label: AttentionCase(case) for label, case in cases.items()}


def non_causal(subject: Subject) -> Rows:
    """Whole prompts that see all of themselves, as an encoder does."""
    seqs = ((0, 13), (0, 1), (0, 40))
    return {
        "all keys": AttentionCase(_paged(subject, seqs, causal=False)),
        "window 4": AttentionCase(_paged(subject, seqs, causal=False, window=4)),
    }


def _whole_numbers(step: float) -> Any:
    """Numbers whose products and sums are exact, so that large scores are."""
    return lambda values: np.rint(values.astype(np.float32) * 4) * step


def _all_equal(number: float) -> Any:
    return lambda values: np.full_like(values, number)


def scores(subject: Subject) -> Rows:
    """Scores of hundreds, of either sign: exp(89) is beyond float32, and exp(-104) is 0.

    Also dot products that only the scale brings back into the range of float16.
    """
    whole_q, whole_k = _whole_numbers(16.0), _whole_numbers(0.25)
    rows = {}
    for dtype in DTYPES:
        rows[f"scores of hundreds {dtype}"] = AttentionCase(
            _paged(subject, _MIXED), dtype, change_q=whole_q, change_k=whole_k
        )
        rows[f"dot products beyond float16 {dtype}"] = AttentionCase(
            _paged(subject, _MIXED, scale=2.0**-16),
            dtype,
            change_q=_whole_numbers(64.0),
            change_k=_whole_numbers(16.0),
        )
    rows["scores of hundreds over long sequences"] = AttentionCase(
        _paged(subject, ((700, 1), (140, 20)), heads=2, kv_heads=1),
        change_q=whole_q,
        change_k=whole_k,
    )
    for score in (-256, -131_072):  # the second is beyond float16, and beyond a mask of -10000
        rows[f"every score {score}"] = AttentionCase(
            _paged(subject, _MIXED, padded_tokens=1, padded_seqs=1),
            change_q=_all_equal(score / 4),
            change_k=np.ones_like,
        )
    return rows


def _about_one(values: NDArray[Any]) -> NDArray[Any]:
    return 1 + values.astype(np.float32) / 8


def dtypes(subject: Subject) -> Rows:
    """Sums of hundreds of values about 1: a running sum in a narrow dtype stalls."""
    rows = {}
    for dtype in DTYPES:
        rows[f"401 keys {dtype}"] = AttentionCase(
            _paged(subject, ((400, 1),), heads=4), dtype, change_v=_about_one
        )
        rows[f"mixed {dtype}"] = AttentionCase(_paged(subject, _MIXED), dtype)
        # In a narrow dtype, scores of dozens are rounded by so much that the weights are off.
        rows[f"scores of dozens {dtype}"] = AttentionCase(
            _paged(subject, ((40, 1), (9, 14)), scale=4.0), dtype
        )
        rows[f"another scale over long sequences {dtype}"] = AttentionCase(
            _paged(subject, ((700, 1), (140, 20)), heads=2, kv_heads=1, head_dim=128, scale=0.2),
            dtype,
        )
    rows["values beyond float16 bfloat16"] = AttentionCase(
        _paged(subject, _MIXED), "bfloat16", change_v=_times(2.0**17), unit=2.0**17
    )
    return rows


def _times(factor: float) -> Any:
    return lambda values: values.astype(np.float32) * factor


def kv_dtypes(subject: Subject) -> Rows:
    """Each cache dtype under each compute dtype; those of eight bits with values of other sizes.

    Of what is about 100, some is beyond 240, where one 8-bit float ends, and nothing beyond 448,
    where float8_e4m3fn does. What is about 1/64 is below the least normal number of that.
    """
    size = subject.caps.block_sizes[0]  # scales may tile in blocks of the usual size alone
    paged = functools.partial(PagedCase, ((40, 1), (0, 21)), block_size=size)
    rows = {
        f"{kv_dtype} under {dtype}": AttentionCase(paged(kv_dtype=kv_dtype), dtype)
        for kv_dtype in KV_DTYPES
        for dtype in DTYPES
        if kv_dtype != dtype
    }
    for kv_dtype in KV_DTYPES[len(DTYPES) :]:
        case = AttentionCase(paged(kv_dtype=kv_dtype))
        for about, factor in (("100", 100.0), ("1/64", 1 / 64)):
            rows[f"values of about {about} in {kv_dtype}"] = replace(
                case, change_v=_times(factor), unit=factor
            )
        rows[f"zeros in {kv_dtype}"] = replace(case, change_k=np.zeros_like, change_v=np.zeros_like)
    return rows


def attend(subject: Subject) -> Rows:
    """The composite, with all that it passes on."""
    seqs = ((21, 1), (6, 6), (0, 9))
    cases = {
        "mixed": _paged(subject, seqs),
        "with sinks": _paged(subject, seqs, heads=4, kv_heads=4, sinks=True),
        "with a window and a soft-cap": _paged(subject, seqs, window=7, soft_cap=2.0),
        "one decode": _paged(subject, ((12, 1),)),
    }
    return {label: AttentionCase(case, op="attend") for label, case in cases.items()}


def rope_attend(subject: Subject) -> Rows:
    """The composite with rotation: of whole heads, of a part of them, and of GQA's."""
    seqs = ((21, 1), (6, 6), (0, 9))
    cases = {
        "mixed": (_paged(subject, seqs), 16),
        "a part of each head": (_paged(subject, seqs, window=7), 12),
        "one KV head": (_paged(subject, seqs, heads=4, kv_heads=1, soft_cap=2.0), 16),
        "decodes and padding": (
            _paged(subject, ((12, 1), (3, 1)), padded_tokens=2, padded_seqs=1),
            16,
        ),
    }
    return {
        f"{label} {dtype}": AttentionCase(case, dtype, op="rope_attend", rotary_dim=rotary_dim)
        for label, (case, rotary_dim) in cases.items()
        for dtype in DTYPES
    }
