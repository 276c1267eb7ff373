"""What a model is to the engine: config in, weights loaded, one forward pass over a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from octavo.kv import KVSpec
    from octavo.ops.protocol import Array, Cache, LinearWeight, Ops
    from octavo.splits import Split

__all__ = ["Model", "StepInput", "WeightLoader", "Weights"]

Weights = Any
"""A ``@step_tree`` of arrays, LinearWeights and tuples of the same; each model has its own."""

HFConfig = Mapping[str, Any]
"""config.json as a mapping."""


class StepInput(Protocol):
    """What a model reads of a StepBatch (on the device)."""

    @property
    def token_ids(self) -> Array:
        """i32[tokens]."""
        ...

    @property
    def positions(self) -> Array:
        """i32[tokens]: the position of each token in its sequence."""
        ...

    @property
    def context_lens(self) -> Array:
        """i32[tokens]: max(position + 1, prompt length)."""
        ...

    @property
    def logits_rows(self) -> Array:
        """i32[rows]: the tokens whose logits are wanted."""
        ...


class WeightLoader(Protocol):
    """Reads named tensors of a checkpoint and puts them on the device; tensors keep HF names.

    Every method checks the shape it is told to expect and raises ModelLoadError naming the tensor.
    Sizes are those of the whole model. ``split`` says how a weight divides where several devices
    share the model (``octavo.splits``); without it each of them has all of it.
    """

    def has(self, name: str) -> bool:
        """Whether the checkpoint holds the tensor."""
        ...

    def vector(
        self, name: str, size: int, *, offset: float = 0.0, split: Split | None = None
    ) -> Array:
        """A 1-D weight in the compute dtype, plus ``offset`` (Gemma stores norms minus 1).

        With ``split`` it is the weight of an ``rms_norm`` over features that are divided.
        """
        ...

    def embedding(self, name: str, shape: tuple[int, int]) -> Array:
        """A 2-D table in the compute dtype."""
        ...

    def linear(
        self,
        *names: str,
        in_features: int,
        out_features: Sequence[int],
        bias: bool = False,
        transposed: bool = False,
        split: Split | None = None,
    ) -> LinearWeight:
        """Each ``NAME.weight``, stacked along the output axis, with ``NAME.bias`` if asked.

        ``out_features`` has one entry per name. ``transposed`` reads [in, out] storage (GPT-2).
        ``split`` is of the stacked weight.
        """
        ...

    def linears(
        self,
        *names: str,
        in_features: int,
        out_features: Sequence[int],
        bias: bool = False,
        split: Split | None = None,
    ) -> tuple[LinearWeight, ...]:
        """``linear`` of all names, or of each: what is packed in unlike formats cannot be stacked.

        One weight or as many as there are names.
        """
        ...

    def tied_linear(self, embedding: Array) -> LinearWeight:
        """The embedding table as an output projection, shared where the backend can."""
        ...


class Model(Protocol):
    """One architecture at one configuration, written once for all devices."""

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding, padding included."""
        ...

    @property
    def max_position_embeddings(self) -> int:
        """Tokens of context the checkpoint is for, rope scaling included."""
        ...

    @property
    def hidden_size(self) -> int:
        """Features of the residual stream."""
        ...

    @property
    def num_parameters(self) -> int:
        """Parameters of the checkpoint; tied ones count once."""
        ...

    def kv_specs(self, dtype: str) -> tuple[KVSpec, ...]:
        """The cache needs of each layer, in order."""
        ...

    def load(self, loader: WeightLoader) -> Weights:
        """Read every weight; the order of the calls is the order of the forward pass."""
        ...

    def forward(
        self,
        ops: Ops,
        weights: Weights,
        caches: tuple[Cache, ...],
        batch: StepInput,
        plans: tuple[Any, ...],
    ) -> tuple[Array, tuple[Cache, ...]]:
        """Hidden states [tokens, hidden_size] after the final norm, and the caches.

        ``caches`` and ``plans`` have one entry per layer; the argument ``caches`` is dead after.
        """
        ...

    def logits(self, ops: Ops, weights: Weights, hidden: Array) -> Array:
        """[rows, hidden_size] → [rows, vocab_size] in the compute dtype; ``sample`` widens them."""
        ...

    def prefix_salt(self, prompt_len: int) -> int:
        """What besides the tokens changes the cached KV: 0 unless rope looks at the prompt."""
        ...
