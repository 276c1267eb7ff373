"""Log-probabilities in the shape of OpenAI's completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from octavo.outputs import Logprob
    from octavo.server.token_names import TokenNames

__all__ = ["MANY_TOKENS", "Entry", "legacy_logprobs"]

MANY_TOKENS = 2000
"""Log-probabilities of more tokens than this are written beside the event loop."""

_LOWEST = -9999.0
"""Stands for minus infinity, which JSON does not have; OpenAI's and vLLM's."""

Entry = Mapping[int, "Logprob"] | None
"""The chosen token's and the likeliest tokens' log-probabilities; None for a first token."""


def legacy_logprobs(
    token_ids: Sequence[int],
    entries: Sequence[Entry],
    offsets: Sequence[int],
    names: TokenNames,
    num_likeliest: int,
) -> dict[str, Any]:
    """``logprobs`` of a choice: four lists with one item for each token.

    ``top_logprobs`` has the chosen token and the ``num_likeliest`` likeliest (-1: all there are).
    """
    pairs = list(zip(token_ids, entries, strict=True))
    return {
        "tokens": [names[token_id] for token_id in token_ids],
        "token_logprobs": [
            None if entry is None else max(entry[token_id].logprob, _LOWEST)
            for token_id, entry in pairs
        ],
        "top_logprobs": [
            None if entry is None else _likeliest(token_id, entry, names, num_likeliest)
            for token_id, entry in pairs
        ],
        "text_offset": list(offsets),
    }


def _likeliest(
    token_id: int, entry: Mapping[int, Logprob], names: TokenNames, num_likeliest: int
) -> dict[str, float]:
    likeliest: dict[str, float] = {}
    for candidate_id, candidate in entry.items():
        rank = candidate.rank or 0
        if 0 <= num_likeliest < rank and candidate_id != token_id:
            continue
        name = names[candidate_id]
        logprob = max(candidate.logprob, _LOWEST)
        # Two tokens can have the same text; which of them is the likelier must not get lost.
        likeliest[name] = max(logprob, likeliest.get(name, logprob))
    return likeliest
