"""Backends that multiply wrongly: tiles, biases, sums, shared and packed weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from op_mutants import OpMutants, float32
from plain_backend import PlainBackend, PlainOps, dtype_named

MUTANTS = OpMutants()


@MUTANTS.caught_by("linear", "at feature 512 to 639 of 640.*as if the bias were missing")
class BiasOfWholeTiles(PlainOps):
    """The last, partly filled tile of 512 outputs gets no bias."""

    def linear(self, x, weight):
        if weight.bias is None:
            return super().linear(x, weight)
        bias = weight.bias.copy()
        bias[512 * (len(bias) // 512) :] *= len(bias) < 512
        return super().linear(x, replace(weight, bias=bias))


@MUTANTS.caught_by("linear", "at row 64 of 65.*never written: they are all 0", only=False)
class FewRows(PlainOps):
    """Rows beyond the 64th are never computed."""

    def linear(self, x, weight):
        return np.where(np.arange(len(x))[:, None] < 64, super().linear(x, weight), 0)


@MUTANTS.caught_by("linear", "linear is wrong in 15 of 15 elements")
class NarrowSums(PlainOps):
    """Adds up products of bfloat16 in bfloat16, 8 at a time."""

    def linear(self, x, weight):
        if x.dtype != dtype_named("bfloat16") or x.shape[1] < 1024:
            return super().linear(x, weight)
        total = np.zeros((len(x), len(weight.weight)), x.dtype)
        for first in range(0, x.shape[1], 8):
            part = slice(first, first + 8)
            total = total + (float32(x[:, part]) @ weight.weight[:, part].T).astype(x.dtype)
        return total


@MUTANTS.caught_by(
    "linear", "linear has the dtype float32; expected (float16|bfloat16)", only=False
)
class Float32Results(PlainOps):
    """The result is not rounded to the dtype of x."""

    def linear(self, x, weight):
        return super().linear(float32(x), weight)


@MUTANTS.caught_by("linear_tied", "weight made by put is wrong.*as if the bias were missing")
class BiaslessTable(PlainBackend):
    """A weight that put has made is shared, and the bias is forgotten on that path."""

    def put_linear(self, weight, bias, dtype):
        is_table = any(weight is table for table in self.tables)
        return super().put_linear(weight, None if is_table else bias, dtype)

    @property
    def tables(self):
        return self.__dict__.setdefault("_tables", [])

    def put(self, array, dtype=None):
        placed = super().put(array, dtype)
        self.tables[:] = [*self.tables[-8:], placed]
        return placed


@MUTANTS.caught_by("linear_packed", "weight packed as gguf:Q8_0 is wrong")
class LastBlockUnpacked(PlainBackend):
    """The last run of 32 codes of a row is scaled by the scale of the one before."""

    def unpack(self, packed):
        rows = packed.data.copy()
        rows[:, -34:-32] = rows[:, -68:-66]
        return super().unpack(replace(packed, data=rows))


@MUTANTS.caught_by("mlp", "as if the activation were gelu_tanh")
class OneGelu(PlainOps):
    """The fused feed-forward knows one kind of GELU."""

    def mlp(self, x, gate_up, down, activation):
        return super().mlp(x, gate_up, down, "gelu_tanh" if activation == "gelu" else activation)
