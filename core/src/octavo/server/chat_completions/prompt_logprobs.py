"""Log-probabilities of a prompt, in vLLM's form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from octavo.outputs import Logprob

__all__ = ["prompt_logprobs_object"]

_LEAST = -9999.0


def prompt_logprobs_object(
    rows: Sequence[dict[int, Logprob] | None] | None,
) -> list[dict[str, Any] | None] | None:
    """For each token of the prompt its entries by token id; nothing precedes the first token."""
    if rows is None:
        return None
    return [None if row is None else _entries(row) for row in rows]


def _entries(row: dict[int, Logprob]) -> dict[str, Any]:
    return {
        str(token_id): {
            "logprob": max(entry.logprob, _LEAST),
            "rank": entry.rank,
            "decoded_token": entry.decoded_token,
        }
        for token_id, entry in row.items()
    }
