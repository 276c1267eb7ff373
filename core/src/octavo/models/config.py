"""config.json read field by field: typed, bounded, with an error that names field and value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from octavo.errors import ModelLoadError, UsageError
from octavo.splits import Part, Split

if TYPE_CHECKING:
    from octavo.models.base import HFConfig
    from octavo.ops.protocol import Activation

__all__ = ["ACTIVATIONS", "MAX_LAYERS", "ConfigReader", "DecoderConfig"]

ACTIVATIONS: Mapping[str, Activation] = {
    "silu": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",  # the same formula, written out
}
"""Hugging Face's name → the op protocol's."""

_MAX_COUNT = 1 << 30  # no real size comes near; a hostile one stops here and not in an allocation
MAX_LAYERS = 4096


class ConfigReader:
    """The fields of a config.json; a family's ``defaults`` stand in for those that are absent.

    Every method raises ModelLoadError where the field is missing or cannot be used.
    """

    def __init__(self, config: HFConfig, defaults: Mapping[str, Any]) -> None:
        self.config = config
        self.defaults = defaults

    def get(self, field: str) -> Any:
        """The field as it stands, or its default; None where neither exists."""
        return self.config[field] if field in self.config else self.defaults.get(field)

    def error(self, field: str, expected: str) -> ModelLoadError:
        """An error about this field's value, to be raised."""
        return ModelLoadError(f"config.json: {field} is {self.get(field)!r}; expected {expected}.")

    def _required(self, field: str, expected: str) -> Any:
        value = self.get(field)
        if value is None:
            value = self.defaults.get(field)
        if value is None:
            raise ModelLoadError(f"config.json has no {field!r}; expected {expected}.")
        return value

    def integer(self, field: str, *, minimum: int = 1, maximum: int = _MAX_COUNT) -> int:
        """A whole number within bounds."""
        expected = f"a whole number from {minimum} to {maximum}"
        value = self._required(field, expected)
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
            raise self.error(field, expected)
        return value

    def optional_integer(self, field: str) -> int | None:
        """A positive whole number, or None where the field is null or absent."""
        return None if self.get(field) is None else self.integer(field)

    def number(self, field: str) -> float:
        """A finite number above zero."""
        expected = "a finite number above 0"
        value = self._required(field, expected)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.error(field, expected)
        if not 0 < value < math.inf:
            raise self.error(field, expected)
        return float(value)

    def optional_number(self, field: str) -> float | None:
        """A finite number above zero, or None where the field is null or absent."""
        return None if self.get(field) is None else self.number(field)

    def flag(self, field: str) -> bool:
        """True or false; absent or null is the default, or else false."""
        value = self.get(field)
        if value is None:
            value = self.defaults.get(field, False)
        if not isinstance(value, bool):
            raise self.error(field, "true or false")
        return value

    def activation(self, field: str) -> Activation:
        """An activation of the feed-forward part, as the op protocol names it."""
        known = ", ".join(sorted(ACTIVATIONS))
        value = self._required(field, f"one of {known}")
        if not isinstance(value, str) or value not in ACTIVATIONS:
            raise self.error(field, f"one of {known}")
        return ACTIVATIONS[value]

    def per_layer(self, field: str, num_layers: int) -> list[Any] | None:
        """A list with an entry for each layer (more are cut off), or None where absent or null."""
        value = self.get(field)
        if value is None:
            return None
        if not isinstance(value, list | tuple) or len(value) < num_layers:
            raise self.error(field, f"a list with an entry for each of the {num_layers} layers")
        return list(value[:num_layers])

    def refuse(self, field: str, why: str) -> None:
        """Raise where the flag ``field`` is set: a feature this family does not have here."""
        if self.flag(field):
            raise self.error(field, f"false: {why}")


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes and switches of a decoder of the Llama kind, whatever the family calls them."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position_embeddings: int
    norm_eps: float
    activation: Activation
    tied_embeddings: bool
    attention_scale: float  # of query times key
    attention_soft_cap: float | None = None
    logits_soft_cap: float | None = None
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False

    @classmethod
    def read(cls, reader: ConfigReader, *, activation_field: str = "hidden_act") -> DecoderConfig:
        """Read and check the fields that all such families share."""
        attention_bias = reader.flag("attention_bias")
        num_heads = reader.integer("num_attention_heads")
        num_kv_heads = reader.optional_integer("num_key_value_heads") or num_heads
        if num_heads % num_kv_heads:
            raise ModelLoadError(
                f"config.json: num_attention_heads is {num_heads}; expected a multiple of "
                f"num_key_value_heads, which is {num_kv_heads}."
            )
        head_dim = _read_head_dim(reader, num_heads)
        return cls(
            vocab_size=reader.integer("vocab_size"),
            hidden_size=reader.integer("hidden_size"),
            intermediate_size=reader.integer("intermediate_size"),
            num_layers=reader.integer("num_hidden_layers", maximum=MAX_LAYERS),
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            max_position_embeddings=reader.integer("max_position_embeddings"),
            norm_eps=reader.number("rms_norm_eps"),
            activation=reader.activation(activation_field),
            tied_embeddings=reader.flag("tie_word_embeddings"),
            attention_scale=head_dim**-0.5,
            qkv_bias=attention_bias,
            output_bias=attention_bias,
            mlp_bias=reader.flag("mlp_bias"),
        )

    @property
    def q_features(self) -> int:
        """Features of all query heads."""
        return self.num_heads * self.head_dim

    @property
    def kv_features(self) -> int:
        """Features of all key heads, or of all value heads."""
        return self.num_kv_heads * self.head_dim

    @property
    def q_split(self) -> Split:
        """Query heads, each of them whole."""
        return Split("out", (Part(self.q_features, self.num_heads),))

    @property
    def kv_split(self) -> Split:
        """Key heads or value heads; devices share one where there are more devices than heads."""
        return Split("out", (Part(self.kv_features, self.num_kv_heads),))

    @property
    def qkv_split(self) -> Split:
        """Query, key and value heads, in this order."""
        return Split("out", self.q_split.parts + 2 * self.kv_split.parts)

    @property
    def output_split(self) -> Split:
        """What the attention's output projection reads: the features of the query heads."""
        return Split("in", self.q_split.parts)

    @property
    def gate_up_split(self) -> Split:
        """Gate and up, feature by feature."""
        return Split("out", 2 * self.down_split.parts)

    @property
    def up_split(self) -> Split:
        """Up alone, in families without a gate."""
        return Split("out", self.down_split.parts)

    @property
    def down_split(self) -> Split:
        """What the projection behind them reads."""
        return Split("in", (Part(self.intermediate_size, self.intermediate_size),))

    def shard(self, num_shards: int) -> DecoderConfig:
        """The sizes of what one of ``num_shards`` devices has; raises UsageError naming what goes.

        Each has whole heads. Where there are fewer KV heads than devices, several keep the same.
        """
        if not self._can_shard(num_shards):
            possible = [size for size in range(1, self.num_heads + 1) if self._can_shard(size)]
            raise UsageError(
                f"tensor_parallel_size={num_shards}: this model's {self.num_heads} heads, "
                f"{self.num_kv_heads} KV heads and {self.intermediate_size} features between "
                f"gate and down do not divide so; use one of {', '.join(map(str, possible))}."
            )
        return replace(
            self,
            num_heads=self.num_heads // num_shards,
            num_kv_heads=max(1, self.num_kv_heads // num_shards),
            intermediate_size=self.intermediate_size // num_shards,
        )

    def _can_shard(self, num_shards: int) -> bool:
        few, many = sorted((self.num_kv_heads, num_shards))
        return not (
            self.num_heads % num_shards or self.intermediate_size % num_shards or many % few
        )


def _read_head_dim(reader: ConfigReader, num_heads: int) -> int:
    head_dim = reader.optional_integer("head_dim")
    if head_dim is not None:
        return head_dim
    hidden_size = reader.integer("hidden_size")
    if hidden_size % num_heads:
        raise reader.error("hidden_size", f"a multiple of num_attention_heads, {num_heads}")
    return hidden_size // num_heads
