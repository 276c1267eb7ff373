"""A model as its configuration alone describes it: sizes, layers, ropes, cache needs."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from octavo.models.config import ConfigReader, DecoderConfig
from octavo.models.counting import count_parameters
from octavo.models.layers import LayerConfig, kv_spec
from octavo.models.rope import context_len, prefix_salt, resolve_rope
from octavo.models.rope_parameters import flat_parameters
from octavo.ops.protocol import AttentionParams

if TYPE_CHECKING:
    from octavo.kv import KVSpec
    from octavo.models.base import HFConfig, StepInput, WeightLoader, Weights
    from octavo.ops.protocol import Array, Cache, Ops, RopeSpec

__all__ = ["ConfiguredModel"]


class ConfiguredModel(ABC):
    """The half of ``octavo.models.base.Model`` that needs no weights.

    ``read_*`` resolve the config, once, at construction; families override what they vary.
    """

    defaults: ClassVar[Mapping[str, Any]] = {}
    """What stands for a field that config.json leaves out, as transformers has it."""

    def __init__(self, config: HFConfig) -> None:
        reader = ConfigReader(config, self.defaults)
        self.config = self.read_config(reader)
        windows = self.read_windows(reader)
        ropes = self.read_ropes(reader, windows)
        self.ropes = tuple(dict.fromkeys(rope for rope in ropes if rope is not None))
        self.layers = tuple(
            LayerConfig(
                attention=self.read_attention(reader, layer, window),
                rope=None if rope is None else self.ropes.index(rope),
            )
            for layer, (window, rope) in enumerate(zip(windows, ropes, strict=True))
        )

    def read_config(self, reader: ConfigReader) -> DecoderConfig:
        """Sizes, the norm's epsilon, the activation."""
        return DecoderConfig.read(reader)

    def read_windows(self, reader: ConfigReader) -> list[int | None]:  # noqa: ARG002
        """The attention window of each layer in tokens, None for full attention."""
        return [None] * self.config.num_layers

    def read_ropes(self, reader: ConfigReader, windows: list[int | None]) -> list[RopeSpec | None]:
        """The rotary embedding of each layer, None for a layer without positions."""
        parameters = flat_parameters(reader)
        if parameters.get("partial_rotary_factor", 1.0) != 1.0:
            raise reader.error("partial_rotary_factor", "1.0 in this architecture")
        return [self.resolve_rope(parameters)] * len(windows)

    def resolve_rope(self, parameters: Mapping[str, Any]) -> RopeSpec:
        """One set of rope parameters at this model's sizes."""
        config = self.config
        return resolve_rope(
            parameters, head_dim=config.head_dim, max_len=config.max_position_embeddings
        )

    def read_attention(
        self,
        reader: ConfigReader,  # noqa: ARG002
        layer: int,  # noqa: ARG002
        window: int | None,
    ) -> AttentionParams:
        """The static attention settings of one layer."""
        scale, soft_cap = self.config.attention_scale, self.config.attention_soft_cap
        return AttentionParams(scale=scale, window=window, soft_cap=soft_cap)

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding, padding included."""
        return self.config.vocab_size

    @property
    def hidden_size(self) -> int:
        """Features of the residual stream."""
        return self.config.hidden_size

    @property
    def max_position_embeddings(self) -> int:
        """Tokens of context the checkpoint is for, rope scaling included."""
        declared = self.config.max_position_embeddings
        return max((context_len(rope, declared) for rope in self.ropes), default=declared)

    @cached_property
    def num_parameters(self) -> int:
        """Parameters of the checkpoint; tied ones count once."""
        return count_parameters(self)

    def kv_specs(self, dtype: str) -> tuple[KVSpec, ...]:
        """The cache needs of each layer, in order."""
        num_kv_heads, head_dim = self.config.num_kv_heads, self.config.head_dim
        return tuple(
            kv_spec(layer.attention, num_kv_heads, head_dim, dtype) for layer in self.layers
        )

    def prefix_salt(self, prompt_len: int) -> int:
        """What besides the tokens changes the cached KV: rope that looks at the prompt's length."""
        return prefix_salt(self.ropes, prompt_len)

    def shard(self, num_shards: int) -> ConfiguredModel:
        """The model as one of ``num_shards`` devices computes it: fewer heads, a narrower MLP.

        What it reads is what each gets of the weights that ``load`` of the whole model has split.
        Raises UsageError where that cannot be.
        """
        shard = copy.copy(self)
        shard.config = self.config.shard(num_shards)
        shard.num_parameters = self.num_parameters
        return shard

    @abstractmethod
    def load(self, loader: WeightLoader) -> Weights:
        """Read every weight, in the order of the forward pass."""

    @abstractmethod
    def forward(
        self,
        ops: Ops,
        weights: Weights,
        caches: tuple[Cache, ...],
        batch: StepInput,
        plans: tuple[Any, ...],
    ) -> tuple[Array, tuple[Cache, ...]]:
        """Hidden states after the final norm, and the caches. The argument ``caches`` is dead."""

    @abstractmethod
    def logits(self, ops: Ops, weights: Weights, hidden: Array) -> Array:
        """[rows, hidden] → [rows, vocab]."""
