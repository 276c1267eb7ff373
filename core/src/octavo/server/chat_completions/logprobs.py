"""Log-probabilities in the form of OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from octavo.outputs import Logprob, Logprobs
    from octavo.server.chat import AnswerDelta
    from octavo.tokenizer import Tokenizer

__all__ = ["LogprobWriter"]

_LEAST = -9999.0  # JSON has no infinity; OpenAI writes this


@dataclass(frozen=True)
class LogprobWriter:
    """Writes the log-probabilities of a message's tokens."""

    tokenizer: Tokenizer
    num_top: int
    writes_token_ids: bool = False

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
        return ranked[: self.num_top]

    def _token(self, token_id: int, entry: Logprob) -> dict[str, Any]:
        text = entry.decoded_token or ""
        return {
            "token": f"token_id:{token_id}" if self.writes_token_ids else text,
            "logprob": max(entry.logprob, _LEAST),
            "bytes": list(self._bytes(token_id, text)),
        }

    def _bytes(self, token_id: int, text: str) -> bytes:
        pieces = self.tokenizer.pieces
        return text.encode("utf-8", "replace") if pieces is None else pieces[token_id]

    def _ends_with_stop_token(self, delta: AnswerDelta) -> bool:
        """Whether the last token is an end mark, which the text does not show."""
        if delta.finish_reason not in ("stop", "tool_calls") or not delta.token_ids:
            return False
        last = delta.token_ids[-1]
        return delta.stop_reason == last or last in self.tokenizer.special_ids
