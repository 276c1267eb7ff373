"""What touches one request's logits: its penalties, biases, bans and allowed tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from octavo.sampling_params import SamplingParams

__all__ = ["BadWords", "RowAdjustments", "SeenTokens", "TokenBias"]

_NO_IDS: frozenset[int] = frozenset()


class SeenTokens:
    """The different tokens of a request and how often each is in its output."""

    def __init__(self, prompt_token_ids: Sequence[int], output_token_ids: Sequence[int]) -> None:
        """Pass no prompt for a request whose penalties look at the output only."""
        unique_ids, counts = np.unique(np.array(output_token_ids, np.int32), return_counts=True)
        unseen_ids = np.setdiff1d(np.array(prompt_token_ids, np.int32), unique_ids)
        self._size = len(unique_ids) + len(unseen_ids)
        self._ids = np.empty(2 * self._size + 16, np.int32)
        self._counts = np.zeros_like(self._ids)
        self._ids[: self._size] = np.concatenate([unique_ids, unseen_ids])
        self._counts[: len(counts)] = counts
        self._places = {token_id: i for i, token_id in enumerate(self.ids.tolist())}

    @property
    def ids(self) -> NDArray[np.int32]:
        """i32[seen], each once."""
        return self._ids[: self._size]

    @property
    def counts(self) -> NDArray[np.int32]:
        """i32[seen], occurrences in the output; 0 = in the prompt only."""
        return self._counts[: self._size]

    def append(self, token_id: int) -> None:
        """One more token of the output."""
        place = self._places.get(token_id)
        if place is None:
            place = self._add(token_id)
        self._counts[place] += 1

    def _add(self, token_id: int) -> int:
        if self._size == len(self._ids):
            self._ids = np.concatenate([self._ids, np.empty_like(self._ids)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        place = self._places[token_id] = self._size
        self._ids[place] = token_id
        self._size += 1
        return place


class BadWords:
    """Token sequences that must not be completed; like vLLM's, they are sought in the output."""

    def __init__(self, sequences: Sequence[Sequence[int]], output_token_ids: Sequence[int]) -> None:
        self._always = frozenset(sequence[0] for sequence in sequences if len(sequence) == 1)
        self._longer = [tuple(sequence) for sequence in sequences if len(sequence) > 1]
        self._reach = max((len(sequence) - 1 for sequence in self._longer), default=0)
        self._recent = tuple(output_token_ids)[-self._reach :] if self._reach else ()

    def append(self, token_id: int) -> None:
        """One more token of the output."""
        if self._reach:
            self._recent = (*self._recent, token_id)[-self._reach :]

    def banned(self) -> frozenset[int]:
        """Tokens that would complete a sequence now."""
        completing = {
            sequence[-1]
            for sequence in self._longer
            if self._recent[1 - len(sequence) :] == sequence[:-1]
        }
        return self._always | completing if completing else self._always


class TokenBias:
    """The logit biases of one request and the tokens banned at the moment, as arrays."""

    def __init__(self, logit_bias: Mapping[int, float] | None) -> None:
        self._logit_bias = dict(logit_bias or {})
        self._banned = _NO_IDS
        self._fill()

    def __len__(self) -> int:
        return len(self.ids)

    def ban(self, token_ids: Iterable[int]) -> None:
        """Ban exactly these tokens from now on."""
        banned = frozenset(token_ids)
        if banned != self._banned:
            self._banned = banned
            self._fill()

    def _fill(self) -> None:
        biases = {**self._logit_bias, **dict.fromkeys(self._banned, -float("inf"))}
        self.ids = np.fromiter(biases.keys(), np.int32, len(biases))  # each once
        self.values = np.fromiter(biases.values(), np.float32, len(biases))


class RowAdjustments:
    """Everything that touches one row's logits, and whether it does so now."""

    def __init__(
        self,
        params: SamplingParams,
        prompt_token_ids: Sequence[int],
        output_token_ids: Sequence[int],
        eos_token_ids: frozenset[int],
        bad_words_token_ids: Sequence[Sequence[int]],
        vocab_size: int,
    ) -> None:
        self.seen: SeenTokens | None = None
        if params.repetition_penalty != 1.0:
            self.seen = SeenTokens(prompt_token_ids, output_token_ids)
        elif params.presence_penalty != 0.0 or params.frequency_penalty != 0.0:
            self.seen = SeenTokens((), output_token_ids)
        self.bias = TokenBias(params.logit_bias)
        self.allowed: NDArray[np.bool_] | None = None
        if params.allowed_token_ids is not None:
            self.allowed = np.zeros(vocab_size, np.bool_)
            self.allowed[list(params.allowed_token_ids)] = True
        self._bad_words = (
            BadWords(bad_words_token_ids, output_token_ids) if bad_words_token_ids else None
        )
        self._stop_ids = eos_token_ids.union(params.stop_token_ids)
        self._num_to_go = params.min_tokens - len(output_token_ids)
        self._ban()

    @property
    def adjusts(self) -> bool:
        """The row is not plain at this step."""
        return self.seen is not None or self.allowed is not None or len(self.bias) > 0

    @property
    def follows(self) -> bool:
        """New output can change what is adjusted."""
        return self.seen is not None or self._bad_words is not None or self._num_to_go > 0

    def append(self, token_id: int) -> None:
        """One more token of the output."""
        self._num_to_go -= 1
        if self.seen is not None:
            self.seen.append(token_id)
        if self._bad_words is not None:
            self._bad_words.append(token_id)
        self._ban()

    def _ban(self) -> None:
        banned = frozenset() if self._bad_words is None else self._bad_words.banned()
        self.bias.ban(banned | self._stop_ids if self._num_to_go > 0 else banned)
