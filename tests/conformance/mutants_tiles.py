"""Backends whose ops leave out what is beyond a tile, a launch or a narrow index.

There are many, so that few claim that one check alone catches them: that takes the whole suite.
"""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
from op_mutants import OpMutants
from plain_backend import PlainOps

MUTANTS = OpMutants()


def overriding(op, name, about, change):
    """PlainOps with one op whose (first) result is changed in place, named and described so."""

    def override(self, *arguments, **static):
        result = getattr(PlainOps, op)(self, *arguments, **static)
        first = np.array(result[0] if isinstance(result, tuple) else result)
        change(first)
        return (first, *result[1:]) if isinstance(result, tuple) else first

    override.__signature__ = inspect.signature(getattr(PlainOps, op))
    return type(name, (PlainOps,), {"__doc__": about, op: override})


def blank_columns(start):
    def change(result):
        result[..., start:] = 0

    return change


def blank_rows(start):
    def change(result):
        result[start:] = 0

    return change


def blank_tail(tile):
    """What is left of the last axis behind whole tiles, where there is one."""

    def change(result):
        if result.shape[-1] > tile:
            result[..., result.shape[-1] // tile * tile :] = 0

    return change


_WIDE = (
    ("rms_norm", 4096),
    ("add_rms_norm", 8192),
    ("layer_norm", 2048),
    ("silu_mul", 4096),
    ("gelu_mul", 4096),
    ("gelu", 4096),
    ("soft_cap", 4096),
    ("take_rows", 4096),
    ("embed", 4096),
    ("linear", 1024),
    ("rope", 256),
)
_TALL = ("rms_norm", "add_rms_norm", "layer_norm", "silu_mul", "gelu", "linear", "rope", "embed")


for _op, _limit in _WIDE:
    MUTANTS.caught_by(_op, "wrong", only=_op == "add_rms_norm")(
        overriding(
            _op,
            f"ColumnsBeyond{_limit}Of_{_op}",
            f"The registers of a block hold {_limit} features; {_op} leaves out more.",
            blank_columns(_limit),
        )
    )

for _op in _TALL:
    MUTANTS.caught_by(_op, "wrong", only=False)(
        overriding(
            _op,
            f"RowsBeyond1024Of_{_op}",
            f"{_op} launches 1024 blocks at most, one for each row.",
            blank_rows(1024),
        )
    )

MUTANTS.caught_by("rms_norm", "wrong", only=False)(
    overriding("rms_norm", "RmsNormInTiles", "Long rows are whole tiles of 256.", blank_tail(256))
)
MUTANTS.caught_by("linear", "wrong", only=False)(
    overriding(
        "linear", "OutputsInTiles", "Wide products are whole tiles of 512 outputs.", blank_tail(512)
    )
)


@MUTANTS.caught_by("linear", "linear is wrong", only=False)
class InputsInTiles(PlainOps):
    """Long sums are whole tiles of 256 terms."""

    def linear(self, x, weight):
        whole = x.shape[1] // 256 * 256
        if not whole or whole == x.shape[1]:
            return super().linear(x, weight)
        cut = x.copy()
        cut[:, whole:] = 0
        return super().linear(cut, weight)


@MUTANTS.caught_by("take_rows", "take_rows is wrong", only=False)
class RowsInSixteenBits(PlainOps):
    """Indices of rows travel as signed 16-bit integers."""

    def take_rows(self, x, rows):
        return super().take_rows(x, np.maximum(rows.astype(np.int16), 0))


@MUTANTS.caught_by("rope", "rope is wrong", only=False)
class RopeOf128Heads(PlainOps):
    """Heads beyond 128 are not turned."""

    def rope(self, x, cos, sin):
        turned = np.array(super().rope(x, cos, sin))
        turned[:, 128:] = x[:, 128:]
        return turned


@MUTANTS.caught_by("mlp", "mlp is wrong", only=False)
class MlpWithoutBias(PlainOps):
    """The fused feed-forward takes weights without bias for granted."""

    def mlp(self, x, gate_up, down, activation):
        return super().mlp(x, gate_up, replace(down, bias=None), activation)


@MUTANTS.caught_by("results", "rms_norm changed when rms_norm was called again")
class OneResultForAll(PlainOps):
    """rms_norm returns a scratch buffer, one for each shape, which the next call writes to."""

    def rms_norm(self, x, weight, eps):
        result = super().rms_norm(x, weight, eps)
        buffers = self.__dict__.setdefault("buffers", {})
        buffer = buffers.setdefault((result.shape, result.dtype.name), np.empty_like(result))
        buffer[...] = result
        return buffer
