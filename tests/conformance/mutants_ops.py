"""Backends with an elementwise op wrong: bugs that kernels have had, or are bound to have."""

from __future__ import annotations

import numpy as np
from op_mutants import OpMutants, float32
from plain_backend import PlainOps

MUTANTS = OpMutants()


@MUTANTS.caught_by("embed", r"embed is wrong in 2 of 6 rows\. Row 4")
class NarrowIds(PlainOps):
    """Token ids are narrowed to 16 bits."""

    def embed(self, token_ids, table):
        return table[token_ids.astype(np.uint16)]


@MUTANTS.caught_by("take_rows", r"take_rows is wrong in 44 of 300 rows\. Row 256")
class FirstTileOfRows(PlainOps):
    """One tile of 256 rows is taken, and no other."""

    def take_rows(self, x, rows):
        return np.where(np.arange(len(rows))[:, None] < 256, x[rows], 0).astype(x.dtype)


@MUTANTS.caught_by("take_rows", r"take_rows is wrong in \d of 7 rows\. Row 0", only=False)
class SortedRows(PlainOps):
    """Rows come back in ascending order."""

    def take_rows(self, x, rows):
        return x[np.sort(rows)]


@MUTANTS.caught_by("fill_tokens", "fill_tokens is wrong in 2 of 3 rows")
class SourcesFromZero(PlainOps):
    """A source of 1 means the second sampled token, and the last one stays."""

    def fill_tokens(self, token_ids, sampled, sources):
        last = len(sampled) - 1
        return np.where(sources > 0, sampled[np.minimum(sources, last)], token_ids)


@MUTANTS.caught_by("all_reduce", "all_reduce is wrong in 3 of 3 rows")
class SummedTwice(PlainOps):
    """One device counts itself twice."""

    def all_reduce(self, x):
        return x + x


@MUTANTS.caught_by("rms_norm", "(?s)rms_norm.*(overflow|never written|eps were|ignored|NaN)")
class HalfSquares(PlainOps):
    """Squares in the storage dtype: those of float16 end at 65504."""

    def rms_norm(self, x, weight, eps):
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            squares = float32(np.square(x)).mean(axis=-1, keepdims=True)
            return (float32(x) / np.sqrt(squares + np.float32(eps)) * weight).astype(x.dtype)


@MUTANTS.caught_by("rms_norm", "eps were added outside the root", only=False)
class EpsOutside(PlainOps):
    """Eps is added to the root."""

    def rms_norm(self, x, weight, eps):
        root = np.sqrt(np.mean(np.square(float32(x)), axis=-1, keepdims=True)) + np.float32(eps)
        return (float32(x) / root * float32(weight)).astype(x.dtype)


@MUTANTS.caught_by("add_rms_norm", "add_rms_norm has modified its argument number 2", only=False)
class FusedInPlace(PlainOps):
    """As some kernel libraries do: the sum overwrites the residual that was passed in."""

    def add_rms_norm(self, x, residual, weight, eps):
        residual += x
        return self.rms_norm(residual, weight, eps), residual


@MUTANTS.caught_by("layer_norm", "(?s)layer_norm is wrong.*ops.layer_norm")
class OnePassVariance(PlainOps):
    """The variance is the difference of two large numbers."""

    def layer_norm(self, x, weight, bias, eps):
        rows = float32(x)
        mean = rows.mean(axis=-1, keepdims=True)
        variance = (rows * rows).mean(axis=-1, keepdims=True) - mean * mean
        normed = (rows - mean) / np.sqrt(variance + np.float32(eps)) * float32(weight)
        return (normed if bias is None else normed + bias).astype(x.dtype)


@MUTANTS.caught_by("silu_mul", "silu_mul is wrong in 3 of 16 elements.*nan")
class SigmoidByExp(PlainOps):
    """exp(x) / (1 + exp(x)) is infinity over infinity from x = 89 on."""

    def silu_mul(self, gate_up):
        gate, up = np.split(float32(gate_up), 2, axis=1)
        with np.errstate(over="ignore", invalid="ignore"):
            return (gate * np.exp(gate) / (1 + np.exp(gate)) * up).astype(gate_up.dtype)


def _tanh_by_exp(x):
    with np.errstate(over="ignore", invalid="ignore"):
        return (np.exp(2 * x) - 1) / (np.exp(2 * x) + 1)


def _gelu_by_exp(x):
    with np.errstate(over="ignore"):
        inner = np.float32(0.7978845608) * (x + np.float32(0.044715) * x * x * x)
    return x / 2 * (1 + _tanh_by_exp(inner))


@MUTANTS.caught_by("gelu_mul", "gelu_mul is wrong.*nan")
class GatedGeluByExp(PlainOps):
    """Tanh is infinity over infinity for large gates."""

    def gelu_mul(self, gate_up, *, tanh):
        if not tanh:
            return super().gelu_mul(gate_up, tanh=tanh)
        gate, up = np.split(float32(gate_up), 2, axis=1)
        return (_gelu_by_exp(gate) * up).astype(gate_up.dtype)


@MUTANTS.caught_by("gelu", "gelu is wrong.*nan")
class GeluByExp(PlainOps):
    """Tanh is infinity over infinity for large values."""

    def gelu(self, x, *, tanh):
        return _gelu_by_exp(float32(x)).astype(x.dtype) if tanh else super().gelu(x, tanh=tanh)


@MUTANTS.caught_by("gelu_mul", "It looks as if tanh=False were ignored", only=False)
class AlwaysTanh(PlainOps):
    """The flag that chooses erf is ignored."""

    def gelu_mul(self, gate_up, *, tanh):
        return super().gelu_mul(gate_up, tanh=True)


@MUTANTS.caught_by("soft_cap", "soft_cap is wrong.*nan")
class CapByExp(PlainOps):
    """Tanh is infinity over infinity far beyond the cap."""

    def soft_cap(self, x, cap):
        return (cap * _tanh_by_exp(float32(x) / np.float32(cap))).astype(x.dtype)


@MUTANTS.caught_by("rope_table", "cos of rope_table of kind default is wrong.*token")
class NarrowPositions(PlainOps):
    """float16 tells positions apart up to 2048."""

    def rope_table(self, positions, context_lens, spec):
        with np.errstate(over="ignore", invalid="ignore"):
            narrow = np.nan_to_num(positions.astype(np.float16), posinf=65504.0)
            return super().rope_table(float32(narrow), context_lens, spec)


@MUTANTS.caught_by(
    "rope_table", "kind dynamic is wrong.*as if the context length were ignored", only=False
)
class LengthIgnored(PlainOps):
    """Frequencies never change with the context length."""

    def rope_table(self, positions, context_lens, spec):
        return super().rope_table(positions, np.ones_like(context_lens), spec)


@MUTANTS.caught_by("rope", "rope is wrong.*at head 16 to 32 of 33")
class SixteenHeads(PlainOps):
    """Heads beyond a grid of sixteen are not turned."""

    def rope(self, x, cos, sin):
        return np.concatenate([super().rope(x[:, :16], cos, sin), x[:, 16:]], axis=1)


@MUTANTS.caught_by("rope", r"as if feature i were paired with i \+ head_dim / 2", only=False)
class FullRope(PlainOps):
    """Pairs i with i + head_dim / 2, whatever the part of the head that turns."""

    def rope(self, x, cos, sin):
        half, middle = cos.shape[1], x.shape[2] // 2
        turned = np.concatenate([x[..., :half], x[..., middle : middle + half]], axis=-1)
        turned = super().rope(turned, cos, sin)
        result = x.copy()
        result[..., :half], result[..., middle : middle + half] = np.split(turned, 2, axis=-1)
        return result


@MUTANTS.caught_by("rope", r"as if feature 2 i were paired with 2 i \+ 1", only=False)
class TurnedPairs(PlainOps):
    """The layout of GPT-J."""

    def rope(self, x, cos, sin):
        dim = 2 * cos.shape[1]
        order = np.concatenate([np.arange(0, dim, 2), np.arange(1, dim, 2)])
        result = x.copy()
        result[..., order] = super().rope(x[..., order], cos, sin)
        return result
