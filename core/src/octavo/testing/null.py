"""The NULL backend: no arithmetic, only bookkeeping, to test and time everything around a model.

Its caches hold token ids instead of keys and values. With ``verify=True`` the next token is a hash
of all that the request can see *through its block tables*, so a wrong block, slot, position or copy
changes the answer; without it the next token depends on the last token and its position only, and
a step costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from octavo.backend import Capabilities, MemoryInfo
from octavo.kv import KVSpec
from octavo.ops.protocol import SampleResult, SamplingBatch

if TYPE_CHECKING:
    from octavo.batch import GroupBatch, StepBatch

__all__ = ["NullBackend", "NullModel", "expected_token"]

Int32 = NDArray[np.int32]
_MULTIPLIER = 1_000_003
_MODULUS = (1 << 31) - 1


class NullModel:
    """A model of ``windows``: one layer for each, None for full attention."""

    def __init__(
        self,
        vocab_size: int = 1000,
        max_position_embeddings: int = 1 << 20,
        windows: Sequence[int | None] = (None,),
    ) -> None:
        self.vocab_size = vocab_size
        self.max_position_embeddings = max_position_embeddings
        self.hidden_size = 1
        self.num_parameters = 0
        self.windows = tuple(windows)

    def kv_specs(self, dtype: str) -> tuple[KVSpec, ...]:
        """One spec a layer; head_dim 1 keeps a token's bytes small."""
        return tuple(
            KVSpec("full" if window is None else "sliding", 1, 1, dtype, window)
            for window in self.windows
        )

    def load(self, _loader: Any) -> None:
        """No weights."""

    def forward(self, *_arguments: Any) -> Any:
        """Never called: NullBackend.compile replaces the step."""
        raise AssertionError("the NULL backend runs no model")

    logits = forward

    def prefix_salt(self, _prompt_len: int) -> int:
        """Tokens alone decide what is cached."""
        return 0


class NullBackend:
    """Implements octavo.backend.Backend over arrays of token ids."""

    caps = Capabilities(
        dtypes=("float32",),
        kv_dtypes=("float32",),
        block_sizes=(16, 4, 1, 2, 8, 32),
        sliding_window=True,
        batch_invariant=True,
        host_swap=True,
    )
    ops: Any = None

    def __init__(self, model: NullModel, *, verify: bool = False) -> None:
        self._model = model
        self._verify = verify

    def memory(self) -> MemoryInfo:
        """Plenty."""
        return MemoryInfo(free_bytes=1 << 34, total_bytes=1 << 34)

    def put(self, array: NDArray[Any], dtype: str | None = None) -> NDArray[Any]:
        """Host and device are one."""
        return array if dtype is None else array.astype(dtype)

    def get(self, array: NDArray[Any]) -> NDArray[Any]:
        """Host and device are one."""
        return array

    def put_linear(self, *_arguments: Any) -> None:
        """No weights."""

    def make_kv(
        self, spec: KVSpec, num_blocks: int, block_size: int, *, on_host: bool = False
    ) -> Int32:
        """Token ids by slot; -1 where nothing has been written."""
        del spec, on_host
        return np.full((num_blocks, block_size), -1, np.int32)

    def copy_blocks(self, src: Int32, dst: Int32, pairs: Int32) -> Int32:
        """Copy token ids."""
        dst[pairs[:, 1]] = src[pairs[:, 0]]
        return dst

    def plan(self, batch: StepBatch, _block_size: int) -> tuple[GroupBatch, ...]:
        """The groups of the batch are all it takes."""
        return batch.groups

    def compile(self, _step: Callable[..., Any]) -> Callable[..., Any]:
        """Replace the model's step by bookkeeping."""
        return self._verified_step if self._verify else _quick_step(self._model.vocab_size)

    def close(self) -> None:
        """Nothing to release."""

    def _verified_step(
        self,
        _weights: None,
        caches: tuple[Int32, ...],
        batch: StepBatch,
        groups: Sequence[GroupBatch],
        sampling: SamplingBatch,
        prompt_targets: Int32 | None = None,
    ) -> tuple[tuple[Int32, ...], SampleResult, SampleResult | None]:
        specs = self._model.kv_specs("float32")
        layer_groups = [sorted(set(specs), key=specs.index).index(spec) for spec in specs]
        for cache, group in zip(caches, layer_groups, strict=True):
            cache.reshape(-1)[np.asarray(groups[group].slots)] = np.asarray(batch.token_ids)
        num_sampled = len(sampling.temperature)
        token_ids = np.zeros(num_sampled, np.int32)
        for row, token in enumerate(batch.logits_rows[:num_sampled].tolist()):
            position, seq = int(batch.positions[token]), int(batch.token_seqs[token])
            seen = [
                _visible(cache, groups[group].block_table[seq], position, self._model.windows[i])
                for i, (cache, group) in enumerate(zip(caches, layer_groups, strict=True))
            ]
            token_ids[row] = _hash(seen, position, self._model.vocab_size)
        return (
            caches,
            _result(token_ids),
            None if prompt_targets is None else _result(prompt_targets),
        )


def expected_token(token_ids: Sequence[int], windows: Sequence[int | None], vocab_size: int) -> int:
    """What a verifying NULL backend answers after ``token_ids``, computed without any paging."""
    tokens = np.array(token_ids, np.int32)
    seen = [tokens if window is None else tokens[-window:] for window in windows]
    return _hash(seen, len(tokens) - 1, vocab_size)


def _visible(cache: Int32, table: Int32, position: int, window: int | None) -> Int32:
    block_size = cache.shape[1]
    first = 0 if window is None else max(0, position + 1 - window)
    positions = np.arange(first, position + 1)
    seen: Int32 = cache[table[positions // block_size], positions % block_size]
    return seen


def _hash(seen: Sequence[Int32], position: int, vocab_size: int) -> int:
    value = position
    for tokens in seen:
        for token in tokens.tolist():
            value = (value * _MULTIPLIER + token + 2) % _MODULUS
    return value % vocab_size


def _quick_step(vocab_size: int) -> Callable[..., Any]:
    def step(
        _weights: None,
        caches: tuple[Int32, ...],
        batch: StepBatch,
        _groups: Sequence[GroupBatch],
        sampling: SamplingBatch,
        prompt_targets: Int32 | None = None,
    ) -> tuple[tuple[Int32, ...], SampleResult, SampleResult | None]:
        rows = batch.logits_rows[: len(sampling.temperature)]
        token_ids = (batch.token_ids[rows] * 31 + batch.positions[rows] + 7) % vocab_size
        prompt = None if prompt_targets is None else _result(prompt_targets)
        return caches, _result(token_ids.astype(np.int32)), prompt

    return step


def _result(token_ids: Int32) -> SampleResult:
    return SampleResult(
        token_ids=token_ids, logprobs=None, ranks=None, top_ids=None, top_logprobs=None
    )
