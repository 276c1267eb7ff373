"""Checks of the ops that move rows: embed, take_rows, fill_tokens, all_reduce."""

from __future__ import annotations

import numpy as np

from octavo.testing.check import Check
from octavo.testing.checks.op_cases import op_check
from octavo.testing.feed import Feed

__all__ = ["CHECKS"]

_LARGE_VOCABULARY = 70_000  # more than 16 bits can tell apart; real ones reach 260,000


def _embed(feed: Feed, token_ids: tuple[int, ...], vocab_size: int, hidden_size: int) -> None:
    table, ids = feed.normal(vocab_size, hidden_size), np.array(token_ids, np.int32)
    feed.expect_same("embed", feed.get("embed", ids, table), table[ids])


def _take_rows(feed: Feed, rows: tuple[int, ...], num_rows: int, dim: int) -> None:
    x, indices = feed.normal(num_rows, dim), np.array(rows, np.int32)
    feed.expect_same("take_rows", feed.get("take_rows", x, indices), x[indices])


def _fill_tokens(feed: Feed, sources: tuple[int, ...], num_sampled: int) -> None:
    known = feed.rng.integers(0, _LARGE_VOCABULARY, len(sources)).astype(np.int32)
    sampled = feed.rng.integers(0, _LARGE_VOCABULARY, num_sampled).astype(np.int32)
    wanted = [sampled[s - 1] if s else token for s, token in zip(sources, known, strict=True)]
    filled = feed.get("fill_tokens", known, sampled, np.array(sources, np.int32))
    feed.expect_same("fill_tokens", filled, np.array(wanted, np.int32))


def _all_reduce(feed: Feed, *shape: int) -> None:
    x = feed.normal(*shape)
    feed.expect_same("all_reduce", feed.get("all_reduce", x), x)


_FILLS = {
    "all": (_fill_tokens, (1, 2, 3), 3),
    "none": (_fill_tokens, (0, 0), 2),
    "some, in any order and not each": (_fill_tokens, (5, 0, 1, 0, 3, 0), 6),
    "one of one": (_fill_tokens, (1,), 1),
    "1100 of 300": (_fill_tokens, tuple(7 * i % 301 for i in range(1100)), 300),
}

CHECKS: tuple[Check, ...] = (
    op_check(
        "embed",
        "each token gets its own row of the table, whatever the size of the vocabulary",
        {
            "first, last and repeated ids": (_embed, (10, 0, 3, 3, 10), 11, 24),
            "ids beyond 16 bits": (
                _embed,
                (0, 32_767, 32_768, 65_535, 65_536, _LARGE_VOCABULARY - 1),
                _LARGE_VOCABULARY,
                4,
            ),
            "300 ids, last to first": (_embed, tuple(range(299, -1, -1)), 300, 8),
            "1100 ids": (_embed, tuple(7 * i % 300 for i in range(1100)), 300, 8),
            "rows of 5003": (_embed, (3, 0, 4, 3), 5, 5003),
        },
        float32_rows=["ids beyond 16 bits", "300 ids, last to first", "1100 ids", "rows of 5003"],
    ),
    op_check(
        "take_rows",
        "rows come in the order asked for, repeated where asked for twice",
        {
            "in order": (_take_rows, (0, 2, 6), 7, 20),
            "in any order and repeated": (_take_rows, (6, 0, 5, 5, 0, 6, 1), 7, 33),
            "one of one": (_take_rows, (0,), 1, 16),
            "300, last to first": (_take_rows, tuple(range(299, -1, -1)), 300, 8),
            "the last of many": (_take_rows, (33_000, 5, 32_768, 32_767), 33_001, 4),
            "1100 of 300": (_take_rows, tuple(7 * i % 300 for i in range(1100)), 300, 8),
            "rows of 5003": (_take_rows, (3, 0, 4, 3), 5, 5003),
        },
        float32_rows=["300, last to first", "the last of many", "1100 of 300", "rows of 5003"],
    ),
    op_check(
        "fill_tokens",
        "a token comes from what was sampled before where its source says so, else as it is",
        _FILLS,
        float32_rows=_FILLS,
    ),
    op_check(
        "all_reduce",
        "on one device it is the identity",
        {"3x20": (_all_reduce, 3, 20), "2x3x4": (_all_reduce, 2, 3, 4)},
    ),
)
