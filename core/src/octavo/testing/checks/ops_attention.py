"""Checks of the cache and of attention over it, one for each thing that a kernel may get wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from octavo.testing.check import Case, Check, CheckFailure
from octavo.testing.checks import attention_cases
from octavo.testing.checks.attention_cases import Rows
from octavo.testing.checks.attention_run import AttentionCase, attended_rows, run_attention
from octavo.testing.checks.op_cases import unclaimed_dtype
from octavo.testing.paged_step import PagedCase

if TYPE_CHECKING:
    from octavo.testing.subject import Subject

__all__ = ["CHECKS"]

# Compilers take seconds for each shape: what others of a table cover, for the most part, is left to
# the full level.
_FULL_ROWS = frozenset(
    {
        *("long, blocks in order", "a long prompt", "64 decodes", "514 decodes"),
        *("whole splits", "a key beyond whole splits"),
        *("1 heads on 1", "12 heads on 2", "14 heads on 2", "24 heads on 2", "32 heads on 1"),
        *("head_dim 160", "head_dim 192", "head_dim 256", "head_dim 512"),
        *("window as long as a sequence", "window 5, decodes", "window 129 over long sequences"),
        *("cap 0.5, decodes", "cap 0.5, heads of 128"),
        *("with a soft-cap", "of decodes in a window", "heads of 128"),
        *("dot products beyond float16 float32", "dot products beyond float16 bfloat16"),
        "scores of hundreds over long sequences",
        *("scores of dozens float32", "scores of dozens float16"),
        "another scale over long sequences float16",
        "another scale over long sequences bfloat16",
        *("values of about 1/64 in int8", "zeros in float8_e4m3fn", "zeros in float8_e5m2"),
    }
)


def _unclaimed(subject: Subject, case: AttentionCase) -> str | None:
    """Why the capabilities do not claim this; None if they do."""
    caps, paged = subject.caps, case.paged
    kv_dtype = paged.kv_dtype or case.dtype
    claims = {
        f"caps.kv_dtypes has no {kv_dtype}": kv_dtype in caps.kv_dtypes,
        f"caps.max_head_dim is {caps.max_head_dim}": paged.head_dim <= caps.max_head_dim,
        "caps.sliding_window is False": caps.sliding_window or paged.window is None,
        "caps.soft_cap is False": caps.soft_cap or paged.soft_cap is None,
        "caps.sinks is False": caps.sinks or not paged.sinks,
    }
    reasons = (reason for reason, claimed in claims.items() if not claimed)
    return unclaimed_dtype(subject, case.dtype) or next(reasons, None)


def _check(
    name: str, about: str, table: Callable[[Subject], Rows], look: str = "ops.paged_attention"
) -> Check:
    def cases(subject: Subject) -> Iterator[Case]:
        for label, case in table(subject).items():
            yield Case(label, case, _unclaimed(subject, case), quick=label not in _FULL_ROWS)

    return Check("ops", name, about, look, run_attention, cases)


def _saturation_cases(subject: Subject) -> Iterator[Case]:
    for kv_dtype in ("float8_e4m3fn", "float8_e5m2"):
        (size, *_), dtype = subject.caps.block_sizes, subject.caps.dtypes[0]
        paged = PagedCase(((9, 1), (0, 6)), block_size=size, kv_dtype=kv_dtype)
        case = AttentionCase(paged, dtype, change_v=lambda v: v.astype(np.float32) * 1e6)
        yield Case(kv_dtype, case, _unclaimed(subject, case))


def _run_saturation(subject: Subject, case: AttentionCase) -> None:
    """What cannot be held becomes the largest that can, or is held by a scale."""
    attended = attended_rows(subject, case)
    num_wrong = int((~np.isfinite(attended.astype(np.float64))).sum())
    if num_wrong:
        raise CheckFailure(
            f"Values of about 1e6, written to a cache of {case.paged.kv_dtype}, come back as NaN "
            f"or infinity in {num_wrong} of {attended.size} elements of paged_attention; expected "
            "the largest finite number of the dtype. One such outlier would spoil a request."
        )


CHECKS: tuple[Check, ...] = (
    _check(
        "paged_attention",
        "each token attends to all of its sequence, whatever stands in the batch beside it",
        attention_cases.lengths,
        "ops.paged_attention, ops.write_kv, backend.plan",
    ),
    _check(
        "block_edges",
        "sequences that end before, on and after the edge of a block, for each block size",
        attention_cases.block_edges,
        "ops.paged_attention, ops.write_kv, backend.plan",
    ),
    _check(
        "write_kv",
        "the keys and values of every KV head are stored, in each dtype",
        attention_cases.many_kv_heads,
        "ops.write_kv",
    ),
    _check(
        "attend",
        "attend is write_kv and then paged_attention, and returns the cache that holds both",
        attention_cases.attend,
        "ops.attend",
    ),
    _check(
        "rope_attend",
        "rope_attend turns q and k, writes the turned k, and attends",
        attention_cases.rope_attend,
        "ops.rope_attend",
    ),
    _check(
        "head_groups",
        "query head h reads KV head h // (heads // kv_heads)",
        attention_cases.head_groups,
    ),
    _check("head_sizes", "heads of every size up to max_head_dim", attention_cases.head_sizes),
    _check(
        "sliding_window",
        "a window of w holds the query's own key and the w - 1 before it",
        attention_cases.windows,
        "ops.paged_attention, backend.plan",
    ),
    _check(
        "attention_soft_cap",
        "scores become cap * tanh(score / cap) after the scale and before the mask",
        attention_cases.soft_caps,
    ),
    _check(
        "sinks",
        "each query head's sink joins the denominator and carries no value",
        attention_cases.sinks,
    ),
    _check(
        "non_causal",
        "without causal, a query sees the keys after it, as far as the window reaches",
        attention_cases.non_causal,
    ),
    _check(
        "large_scores",
        "the largest score is subtracted before exp, so that nothing overflows",
        attention_cases.scores,
    ),
    _check(
        "attention_dtypes",
        "scores and sums are accumulated in float32, whatever the dtype",
        attention_cases.dtypes,
    ),
    _check(
        "kv_dtypes",
        "a cache of each dtype, under each compute dtype",
        attention_cases.kv_dtypes,
        "ops.write_kv, ops.paged_attention, backend.make_kv",
    ),
    Check(
        "ops",
        "kv_saturation",
        "what does not fit into an 8-bit float saturates, and is not NaN",
        "ops.write_kv",
        _run_saturation,
        _saturation_cases,
    ),
)
