"""A NULL backend whose tokens depend on the draw, the mask and all that the request can see.

It fails where it is told to, so that a replayed request can be compared to an undisturbed one.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from null_engine import VOCAB_SIZE

from octavo.ops.protocol import SampleResult
from octavo.testing.null import NullBackend, NullModel
from octavo.token_mask import TokenMask

NAN = -9  # what a slot of the cache holds in place of a token
POISON = VOCAB_SIZE - 1  # a prompt with this token makes each of its steps fail


class DrawingBackend(NullBackend):
    """Its ``fault(member)``, if set, is called before put, get, plan, copy_blocks and steps.

    Its ``spoils(token_ids)``, if set, says which tokens of a step are stored as NaN; with one layer
    of full attention, so is every token that sees one, and no token can be sampled from it.
    """

    def __init__(self, windows=(None,)):
        super().__init__(NullModel(VOCAB_SIZE, windows=windows), verify=True)
        self.fault = self.spoils = None

    def meet_fault(self, member):
        if self.fault is not None:
            self.fault(member)

    def put(self, array, dtype=None):
        self.meet_fault("put")
        return super().put(array, dtype)

    def get(self, array):
        self.meet_fault("get")
        return super().get(array)

    def plan(self, batch, block_size):
        self.meet_fault("plan")
        return super().plan(batch, block_size)

    def make_kv(self, spec, num_blocks, block_size, *, on_host=False):
        self.meet_fault("make_kv")
        return super().make_kv(spec, num_blocks, block_size, on_host=on_host)

    def copy_blocks(self, src, dst, pairs):
        if self.fault is not None:
            dst[pairs[:1, 1]] = -7  # half done when it fails
        self.meet_fault("copy_blocks")
        return super().copy_blocks(src, dst, pairs)

    def compile(self, step):
        inner = super().compile(step)

        def drawn(weights, caches, batch, plans, sampling, targets):
            self.meet_fault("step")
            caches, result, prompt = inner(weights, caches, batch, plans, sampling, targets)
            if self.fault is not None:
                self.fault("after_step")  # the caches have been written to
            if (batch.token_ids == POISON).any():
                raise ValueError("a poisoned token")
            draws = np.where(sampling.temperature > 0, sampling.uniform, 0) * VOCAB_SIZE
            ids = (result.token_ids + draws.astype(np.int32)) % POISON
            if sampling.mask is not None:
                ids = np.array([_next_allowed(*row) for row in zip(ids, sampling.mask)], np.int32)  # noqa: B905
            result = with_logprobs(ids)
            if self.spoils is not None:
                good = ~self.spread_nan(caches[0], batch)[batch.logits_rows[: len(ids)]]
                result = dataclasses.replace(result, valid=good)
            return caches, result, prompt and with_logprobs(prompt.token_ids)

        return drawn

    def spread_nan(self, cache, batch):
        """Which tokens see a NaN; they are stored as such."""
        slots, table = batch.groups[0].slots, batch.groups[0].block_table
        stored, size = cache.reshape(-1), cache.shape[1]
        stored[slots[self.spoils(batch.token_ids)]] = NAN
        bad = np.zeros(len(slots), np.bool_)
        for token, (seq, last) in enumerate(zip(batch.token_seqs, batch.positions, strict=True)):
            seen = np.arange(last + 1)
            bad[token] = (stored[table[seq][seen // size] * size + seen % size] == NAN).any()
            if bad[token]:
                stored[slots[token]] = NAN
        return bad


def _next_allowed(token_id, allowed):
    choices = np.flatnonzero(allowed)
    return choices[np.searchsorted(choices, token_id) % len(choices)]


def with_logprobs(ids):
    return SampleResult(
        token_ids=ids,
        logprobs=(-ids / 7).astype(np.float32),
        ranks=ids + 1,
        top_ids=np.stack([ids, ids + 1], axis=1),
        top_logprobs=np.stack([-ids / 7, -ids / 8], axis=1).astype(np.float32),
        valid=np.ones(len(ids), np.bool_),
    )


@dataclasses.dataclass(eq=False)
class EveryOther(TokenMask):
    """A token mask that allows even tokens, then odd ones, and so on."""

    num_accepted: int = 0

    def allowed(self):
        token_ids = np.arange(VOCAB_SIZE)
        return (token_ids % 2 == self.num_accepted % 2) & (token_ids != POISON)

    def accept(self, token_id):
        assert self.allowed()[token_id], f"{token_id} at {self.num_accepted}"
        self.num_accepted += 1

    def fork(self):
        return EveryOther(self.num_accepted)
