"""The shell of a decoder: embedding, layers threaded with caches, final norm, output projection."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from octavo.models.configured import ConfiguredModel
from octavo.models.layers import DecoderWeights, LayerStep, LayerWeights

if TYPE_CHECKING:
    from octavo.models.base import StepInput, WeightLoader
    from octavo.ops.protocol import Array, Cache, LinearWeight, Ops

__all__ = ["Decoder"]


class Decoder(ConfiguredModel):
    """What families of the Llama kind share; a subclass says how a layer loads and computes."""

    def load(self, loader: WeightLoader) -> DecoderWeights:
        """Read every weight, in the order of the forward pass."""
        config = self.config
        shape = (config.vocab_size, config.hidden_size)
        embedding = loader.embedding("model.embed_tokens.weight", shape)
        return DecoderWeights(
            embedding=embedding,
            layers=tuple(
                self.load_layer(loader, f"model.layers.{layer}")
                for layer in range(config.num_layers)
            ),
            norm=self.load_norm(loader, "model.norm", config.hidden_size),
            head=self.load_head(loader, embedding),
        )

    def load_head(self, loader: WeightLoader, embedding: Array) -> LinearWeight:
        """The output projection: the embedding again where they are tied."""
        config = self.config
        if config.tied_embeddings:
            return loader.tied_linear(embedding)
        return loader.linear(
            "lm_head", in_features=config.hidden_size, out_features=[config.vocab_size]
        )

    def load_norm(self, loader: WeightLoader, name: str, size: int) -> Array:
        """The weight of one norm."""
        return loader.vector(f"{name}.weight", size)

    @abstractmethod
    def load_layer(self, loader: WeightLoader, name: str) -> LayerWeights:
        """The weights of one layer; ``name`` is its prefix in the checkpoint."""

    def embed(self, ops: Ops, weights: DecoderWeights, batch: StepInput) -> Array:
        """[tokens, hidden]: what the first layer reads."""
        return ops.embed(batch.token_ids, weights.embedding)

    @abstractmethod
    def block(
        self, ops: Ops, weights: LayerWeights, step: LayerStep, x: Array, residual: Array | None
    ) -> tuple[Array, Array, Cache]:
        """One layer: (its output yet to be added, the residual stream so far, the cache).

        The layer's input is ``x + residual``, or ``x`` alone in the first layer, where residual is
        None. The sum is left to the next norm, which adds and normalises in one op.
        """

    def forward(
        self,
        ops: Ops,
        weights: DecoderWeights,
        caches: tuple[Cache, ...],
        batch: StepInput,
        plans: tuple[Any, ...],
    ) -> tuple[Array, tuple[Cache, ...]]:
        """Hidden states after the final norm, and the caches. The argument ``caches`` is dead."""
        tables = [ops.rope_table(batch.positions, batch.context_lens, rope) for rope in self.ropes]
        x, residual = self.embed(ops, weights, batch), None
        updated = []
        for layer, layer_weights, cache, plan in zip(
            self.layers, weights.layers, caches, plans, strict=True
        ):
            rope = None if layer.rope is None else tables[layer.rope]
            step = LayerStep(layer.attention, rope, cache, plan)
            x, residual, new_cache = self.block(ops, layer_weights, step, x, residual)
            updated.append(new_cache)
        return self.norm(ops, x, residual, weights.norm)[0], tuple(updated)

    def norm(
        self, ops: Ops, x: Array, residual: Array | None, weight: Array
    ) -> tuple[Array, Array]:
        """(normalised sum, sum) of ``x`` and ``residual``, which is None before the first layer."""
        if residual is None:
            return ops.rms_norm(x, weight, self.config.norm_eps), x
        return ops.add_rms_norm(x, residual, weight, self.config.norm_eps)

    def logits(self, ops: Ops, weights: DecoderWeights, hidden: Array) -> Array:
        """[rows, hidden] → [rows, vocab]."""
        return ops.linear(hidden, weights.head)
