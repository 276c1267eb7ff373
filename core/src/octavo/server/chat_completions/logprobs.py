"""Log-probabilities in the form of OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from octavo.server.token_names import TokenNames, token_bytes

if TYPE_CHECKING:
    from octavo.outputs import Logprob, Logprobs
    from octavo.server.chat import AnswerDelta
    from octavo.tokenizer import Tokenizer

__all__ = ["LogprobWriter"]

_LEAST = -9999.0  # JSON has no infinity; OpenAI writes this


class LogprobWriter:
    """Writes the log-probabilities of a message's tokens."""

    def __init__(self, tokenizer: Tokenizer, num_top: int, writes_token_ids: bool = False) -> None:
        """``num_top`` rivals are listed beside each; ``writes_token_ids`` calls tokens by ids."""
        self._tokenizer = tokenizer
        self._num_top = num_top
        self._names = TokenNames(tokenizer, as_ids=writes_token_ids)

    def entries(self, delta: AnswerDelta) -> list[dict[str, Any]]:
        """One entry for each token of the message; the token that ends it is none of them."""
        logprobs = delta.logprobs or []
        token_ids = delta.token_ids
        if self._ends_with_stop_token(delta):
            logprobs, token_ids = logprobs[:-1], token_ids[:-1]
        return self._entries(token_ids, logprobs)

    def _entries(self, token_ids: Sequence[int], logprobs: Logprobs) -> list[dict[str, Any]]:
        return [
            self._token(token_id, row[token_id])
            | {"top_logprobs": [self._token(top_id, top) for top_id, top in self._top(row)]}
            for token_id, row in zip(token_ids, logprobs, strict=True)
        ]

    def _top(self, row: dict[int, Logprob]) -> list[tuple[int, Logprob]]:
        ranked = sorted(row.items(), key=lambda item: item[1].rank or 0)
        return ranked[: self._num_top]

    def _token(self, token_id: int, entry: Logprob) -> dict[str, Any]:
        return {
            "token": self._names[token_id],
            "logprob": max(entry.logprob, _LEAST),
            "bytes": list(token_bytes(self._tokenizer, token_id)),
        }

    def _ends_with_stop_token(self, delta: AnswerDelta) -> bool:
        """Whether the last token is an end mark, which the text does not show."""
        if delta.finish_reason not in ("stop", "tool_calls") or not delta.token_ids:
            return False
        last = delta.token_ids[-1]
        return delta.stop_reason == last or last in self._tokenizer.special_ids
