"""How much each column of a weight counts: the mean square of what it is multiplied with.

Of an error e in column j, a product sees e² times the mean square of input j. A few features of
the residual stream are hundreds of times larger than the others, in ways that follow from all the
weights before and not from any one tensor. So the model runs once, in float32 on the host, over
random tokens, which find the same features as text does. Weights are read as they are needed, so
that this takes little memory, whatever the model's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import array_api_compat.numpy as xp
import numpy as np
from numpy.typing import NDArray

from octavo.batch import GroupBatch, StepBatch
from octavo.loading.dtypes import convert
from octavo.loading.named_tensors import NamedTensors
from octavo.loading.threads import share
from octavo.ops.attention import make_plans
from octavo.ops.portable import PortableOps
from octavo.ops.storage import PortableCache

if TYPE_CHECKING:
    from octavo.kv import KVSpec
    from octavo.loading.tensors import TensorSource
    from octavo.models.base import Model
    from octavo.splits import Split

__all__ = ["measure_importance", "random_tokens"]

_NUM_SEQS, _SEQ_TOKENS = 8, 32
_WEIGHTS_PER_CHUNK = 1 << 20  # 4 MiB of float32 to a thread

Floats: TypeAlias = NDArray[np.float32]


def measure_importance(model: Model, source: TensorSource) -> dict[str, Floats]:
    """[in_features] for each weight that a model multiplies with, by its tensor's name.

    The weights that are stacked with it have the same. The output projection is not looked at.
    """
    ops = _MeasuringOps()
    specs = model.kv_specs("float32")
    token_ids = random_tokens(model)
    batch = _batch(token_ids)
    caches = tuple(_cache(spec, token_ids.shape) for spec in specs)
    plans = make_plans(batch, lambda array: array) * len(specs)
    with np.errstate(all="ignore"):  # what is infinite or missing shows when the model is used
        model.forward(ops, model.load(_Reader(source)), caches, batch, plans)
    return ops.importance


def random_tokens(model: Model) -> NDArray[np.int32]:
    """[seqs, tokens]: what the model reads, the same every time."""
    shape = (_NUM_SEQS, min(_SEQ_TOKENS, model.max_position_embeddings))
    return np.random.default_rng(0).integers(0, model.vocab_size, shape, np.int32)


def _batch(token_ids: NDArray[np.int32]) -> StepBatch:
    """Each sequence has one block of the cache."""
    num_seqs, num_tokens = token_ids.shape
    sequences = np.arange(num_seqs, dtype=np.int32)
    positions = np.tile(np.arange(num_tokens, dtype=np.int32), num_seqs)
    return StepBatch(
        token_ids=token_ids.reshape(-1),
        positions=positions,
        token_seqs=np.repeat(sequences, num_tokens),
        query_start=np.arange(0, token_ids.size + 1, num_tokens, dtype=np.int32),
        seq_lens=np.full(num_seqs, num_tokens, np.int32),
        context_lens=positions + np.int32(1),
        logits_rows=sequences,
        groups=(GroupBatch(sequences[:, None], np.arange(token_ids.size, dtype=np.int32)),),
    )


def _cache(spec: KVSpec, shape: tuple[int, ...]) -> PortableCache:
    sizes = (*shape, spec.num_kv_heads, spec.head_dim)
    return PortableCache(np.zeros(sizes, np.float32), np.zeros(sizes, np.float32))


@dataclass(frozen=True)
class _Stored:
    """Matrices of a checkpoint, one below the other, that are read when they are used."""

    tensors: NamedTensors
    names: Sequence[str]
    shapes: Sequence[tuple[int, int]]  # as stored
    bias: Floats | None = None
    transposed: bool = False

    def times(self, x: Floats) -> Floats:
        """``x @ weight.T``."""
        products = [self._product(x, *part) for part in zip(self.names, self.shapes, strict=True)]
        product = products[0] if len(products) == 1 else np.concatenate(products, axis=1)
        return product if self.bias is None else product + self.bias

    def _product(self, x: Floats, name: str, shape: tuple[int, int]) -> Floats:
        stored = self.tensors.as_stored(name, shape)
        weight = stored.T if self.transposed else stored
        product = np.empty((len(x), len(weight)), np.float32)
        num_rows = max(1, _WEIGHTS_PER_CHUNK // weight.shape[1])

        def multiply(start: int) -> None:
            rows = slice(start, start + num_rows)
            product[:, rows] = x @ _float32(weight[rows]).T

        share(multiply, range(0, len(weight), num_rows))
        self.tensors.release(name)
        return product

    def rows(self, indices: NDArray[np.int32]) -> Floats:
        """Some rows of the one matrix."""
        (name,), (shape,) = self.names, self.shapes
        rows = _float32(self.tensors.as_stored(name, shape)[indices])
        self.tensors.release(name)
        return rows


class _Reader:
    """A WeightLoader of float32 vectors, and of matrices yet to be read."""

    def __init__(self, source: TensorSource) -> None:
        self._tensors = NamedTensors(source)

    def has(self, name: str) -> bool:
        """Whether the checkpoint holds the tensor."""
        return self._tensors.has(name)

    def vector(
        self,
        name: str,
        size: int,
        *,
        offset: float = 0.0,
        split: Split | None = None,  # noqa: ARG002
    ) -> Floats:
        """A 1-D weight, whole as all others: there is one host."""
        weight: Floats = self._tensors.read(name, (size,), "float32") + np.float32(offset)
        return weight

    def embedding(self, name: str, shape: tuple[int, int]) -> Any:
        """A table, of which few rows are wanted."""
        return _Stored(self._tensors, [name], [shape])

    def tied_linear(self, embedding: Any) -> Any:
        """The table again; nobody multiplies with it here."""
        return embedding

    def linear(
        self,
        *names: str,
        in_features: int,
        out_features: Sequence[int],
        bias: bool = False,
        transposed: bool = False,
        split: Split | None = None,  # noqa: ARG002
    ) -> Any:
        """Weights stacked along the output axis."""
        shapes = [(size, in_features) for size in out_features]
        biases = [
            self._tensors.read(f"{name}.bias", (size,), "float32")
            for name, size in zip(names, out_features, strict=True)
            if bias
        ]
        return _Stored(
            self._tensors,
            [f"{name}.weight" for name in names],
            [shape[::-1] for shape in shapes] if transposed else shapes,
            np.concatenate(biases) if bias else None,
            transposed,
        )

    def linears(
        self,
        *names: str,
        in_features: int,
        out_features: Sequence[int],
        bias: bool = False,
        split: Split | None = None,  # noqa: ARG002
    ) -> tuple[Any, ...]:
        """All of them stacked."""
        return (self.linear(*names, in_features=in_features, out_features=out_features, bias=bias),)


class _MeasuringOps(PortableOps):
    """The portable ops on NumPy; ``linear`` looks at what it is given."""

    def __init__(self) -> None:
        super().__init__(xp)
        self.importance: dict[str, Floats] = {}

    def embed(self, token_ids: Any, table: Any) -> Any:
        """Rows of the embedding table."""
        return table.rows(token_ids)

    def linear(self, x: Any, weight: Any) -> Any:
        """``x @ weight.T + bias``."""
        importance = np.square(x).mean(axis=0)
        self.importance |= dict.fromkeys(weight.names, importance)
        return weight.times(x)


def _float32(stored: NDArray[Any]) -> Floats:
    if stored.dtype == np.float32:
        return stored
    weights = np.empty(stored.shape, np.float32)
    convert(stored, weights)
    return weights
