"""Tokens without a model: a hash of what a request can see through its block tables.

A wrong block, slot, position or copy changes the answer, as it would with a model. So do a seed and
a sample index where a request samples, through the number that was drawn for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from octavo.api import SampleResult

if TYPE_CHECKING:
    from octavo.api import SamplingBatch, StepBatch

__all__ = ["TokenCache", "TokenPlan", "choose_tokens", "uniform_logprobs"]

Int32 = NDArray[np.int32]


@dataclass(frozen=True)
class TokenPlan:
    """One KV group's part of a step; all on the host."""

    batch: StepBatch
    group: int

    @property
    def slots(self) -> Int32:
        """Where each token goes."""
        return np.asarray(self.batch.groups[self.group].slots)

    @property
    def block_table(self) -> Int32:
        """[seqs, blocks]."""
        return np.asarray(self.batch.groups[self.group].block_table)


@dataclass(eq=False)
class TokenCache:
    """A layer's cache: the ids of tokens in place of their keys and values."""

    tokens: Int32  # [num_blocks, block_size]: id + 1; 0 where nothing has been written
    window: int | None
    group: int = 0  # of the plan it was last written with

    def write(self, plan: TokenPlan) -> TokenCache:
        """Store a step's tokens at the plan's slots."""
        self.tokens.reshape(-1)[plan.slots] = np.asarray(plan.batch.token_ids) + 1
        self.group = plan.group
        return self

    def visible(self, blocks: Int32, position: int) -> Int32:
        """What the token at ``position`` of a sequence sees, itself included."""
        first = 0 if self.window is None else max(0, position + 1 - self.window)
        positions = np.arange(first, position + 1)
        block_size = self.tokens.shape[1]
        seen: Int32 = self.tokens[blocks[positions // block_size], positions % block_size]
        return seen


def choose_tokens(
    caches: Sequence[TokenCache],
    plans: Sequence[TokenPlan],
    sampling: SamplingBatch,
    vocab_size: int,
) -> SampleResult:
    """One token for each row that is sampled; of each KV group, one layer is looked at."""
    batch = plans[0].batch
    layer_of_group = {cache.group: cache for cache in reversed(caches)}
    temperature, uniform = _host(sampling.temperature), _host(sampling.uniform)
    token_ids = np.zeros(len(temperature), np.int32)
    valid = np.ones(len(temperature), np.bool_)
    rows = np.asarray(batch.logits_rows)[: len(temperature)]
    banned = _banned_ids(sampling)
    for row, token in enumerate(rows.tolist()):
        position, seq = int(batch.positions[token]), int(batch.token_seqs[token])
        digest = hashlib.blake2b(position.to_bytes(8, "little"), digest_size=8)
        for group, cache in sorted(layer_of_group.items()):
            digest.update(cache.visible(plans[group].block_table[seq], position).tobytes())
        if temperature[row] > 0:
            digest.update(uniform[row].tobytes())
        number = int.from_bytes(digest.digest(), "little")
        allowed = _allowed(sampling, row, banned.get(row), vocab_size)
        if allowed is None:
            token_ids[row] = number % vocab_size
        elif len(allowed):
            token_ids[row] = allowed[number % len(allowed)]
        else:
            valid[row] = False
    result = uniform_logprobs(token_ids, sampling.num_logprobs, vocab_size)
    return SampleResult(**{**vars(result), "valid": valid})


def _banned_ids(sampling: SamplingBatch) -> dict[int, list[int]]:
    """Row → the tokens that must not come (stop tokens too early, bad words)."""
    banned: dict[int, list[int]] = {}
    values = _host(sampling.bias_values)
    for at in np.flatnonzero(np.isneginf(values)).tolist():
        row, token_id = int(_host(sampling.bias_rows)[at]), int(_host(sampling.bias_ids)[at])
        banned.setdefault(row, []).append(token_id)
    return banned


def _allowed(
    sampling: SamplingBatch, row: int, banned: list[int] | None, vocab_size: int
) -> Int32 | None:
    """The tokens to choose from; None for all of them."""
    if sampling.mask is None and banned is None:
        return None
    mask = np.ones(vocab_size, np.bool_) if sampling.mask is None else _host(sampling.mask)[row]
    mask = mask.copy()
    mask[banned or []] = False
    return np.flatnonzero(mask).astype(np.int32)


def uniform_logprobs(token_ids: Int32, num_logprobs: int, vocab_size: int) -> SampleResult:
    """Tokens, and the log-probabilities they would have if all were equally likely."""
    if num_logprobs < 0:
        return SampleResult(token_ids, None, None, None, None)
    shape = (len(token_ids), num_logprobs)
    others = (token_ids[:, None] + np.arange(num_logprobs, dtype=np.int32)) % vocab_size
    logprob = np.float32(-np.log(vocab_size))
    return SampleResult(
        token_ids=token_ids,
        logprobs=np.full(len(token_ids), logprob),
        ranks=np.ones(len(token_ids), np.int32),
        top_ids=others.astype(np.int32),
        top_logprobs=np.full(shape, logprob),
    )


def _host(array: Any) -> NDArray[Any]:
    """The contents of an array that was put."""
    host: NDArray[Any] = array.numpy()
    return host
