"""The rope parameters of a config.json, checked, with the frequencies they start from."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from octavo.errors import ModelLoadError
from octavo.ops.protocol import RopeSpec

if TYPE_CHECKING:
    from octavo.models.config import ConfigReader
    from octavo.ops.protocol import RopeKind

__all__ = ["RopeParameters", "flat_parameters", "float32"]

Frequencies = tuple[float, ...]


def flat_parameters(reader: ConfigReader) -> dict[str, Any]:
    """One dict of rope parameters for all layers, with the top-level fields merged in.

    They stand in ``rope_scaling`` beside ``rope_theta`` (transformers 4), or all together in
    ``rope_parameters`` (transformers 5).
    """
    field = "rope_scaling" if reader.get("rope_scaling") else "rope_parameters"
    given = reader.get(field) or {}
    if not isinstance(given, Mapping):
        raise reader.error(field, "an object")
    if any(isinstance(value, Mapping) for value in given.values()):
        raise reader.error(field, "one set of parameters for all layers in this architecture")
    parameters = {name: value for name, value in given.items() if value is not None}
    for name in ("rope_theta", "partial_rotary_factor"):
        if name not in parameters and reader.get(name) is not None:
            parameters[name] = reader.number(name)
    # Models that keep the trained length outside of the rope parameters mean it to win.
    original_max_len = reader.optional_integer("original_max_position_embeddings")
    if original_max_len is not None:
        parameters["original_max_position_embeddings"] = original_max_len
    return parameters


def float32(value: float) -> float:
    """Round to float32, as transformers' tensors do after each operation."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


class RopeParameters:
    """Rope parameters with checks, and the unscaled frequencies they start from."""

    def __init__(
        self, kind: RopeKind, parameters: Mapping[str, Any], head_dim: int, max_len: int
    ) -> None:
        self.kind = kind
        self.parameters = parameters
        self.max_len = max_len
        self.base = self.number("rope_theta", 10_000.0)
        self.rotary_dim = int(head_dim * self.number("partial_rotary_factor", 1.0))
        minimum = 4 if kind == "dynamic" else 2  # it divides by rotary_dim - 2
        if self.rotary_dim % 2 or not minimum <= self.rotary_dim <= head_dim:
            raise ModelLoadError(
                f"config.json: rotary embedding over {self.rotary_dim} of head_dim={head_dim} "
                f"features (partial_rotary_factor); expected an even number from {minimum} up."
            )

    def number(self, name: str, default: float | None = None) -> float:
        """A positive finite parameter."""
        value = self.parameters.get(name, default)
        if value is None:
            raise ModelLoadError(f"config.json: rope type {self.kind!r} needs {name!r}.")
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e30:
            raise ModelLoadError(
                f"config.json: rope parameter {name} is {value!r}; expected a number above 0."
            )
        return float(value)

    @property
    def original_max_len(self) -> int:
        """Tokens of context the model was trained with before its context was extended."""
        return int(self.number("original_max_position_embeddings", self.max_len))

    @property
    def length_factor(self) -> float:
        """How far the context was extended: ``factor``, or else the ratio of the lengths."""
        return self.number("factor", self.max_len / self.original_max_len)

    def factors(self, name: str) -> Frequencies:
        """One factor per frequency (longrope)."""
        values = self.parameters.get(name)
        half = self.rotary_dim // 2
        if not isinstance(values, list | tuple) or len(values) != half:
            raise ModelLoadError(
                f"config.json: rope parameter {name} is {values!r}; "
                f"expected a list of {half} numbers."
            )
        if not all(isinstance(value, int | float) and 0 < value < 1e30 for value in values):
            raise ModelLoadError(f"config.json: rope parameter {name} holds a factor not above 0.")
        return tuple(float32(value) for value in values)

    def periods(self) -> Frequencies:
        """The base to the power (2 i / rotary_dim): positions per radian, unscaled."""
        exponents = (float32(feature / self.rotary_dim) for feature in range(0, self.rotary_dim, 2))
        return tuple(float32(self.base**exponent) for exponent in exponents)

    def frequencies(self) -> Frequencies:
        """Radians per position, unscaled."""
        return tuple(float32(1.0 / period) for period in self.periods())

    def spec(self, inv_freq: Frequencies, **more: Any) -> RopeSpec:
        """The result; ``more`` are the fields that only some types have."""
        return RopeSpec(
            kind=self.kind, rotary_dim=self.rotary_dim, base=self.base, inv_freq=inv_freq, **more
        )
