"""Products with packed weights, which are unpacked in registers: int4, int8 and float8.

A weight is ``(code - zero) * scale + offset``; a scale (and an offset) serves a group of weights
along a row. Both may be integers, with a factor for several groups. The codes are bytes:

- int8, ``zero`` 128 for signed codes: one to a byte;
- int4: each 16 bytes hold 32 weights, the first 16 in their low halves;
- fp8: e4m3 bits. NaN is not kept where the device has no such numbers.

The weight is the product's left operand, so that its tile goes from registers into the matrix unit
and few tokens take a narrow tile. Few tokens are bound by memory: then the input is split, so that
every unit has something to read, and a second kernel adds the parts in order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from octavo_torch.kernels.kernel import Kernel
from octavo_torch.kernels.quantized_cases import CASES, PACKED_CASES
from octavo_torch.kernels.target import target_of
from octavo_torch.kernels.tuning import launch_options
from octavo_torch.quantized import Codes, QuantizedLinear, multiply_unpacked, unpacked

__all__ = ["KERNELS", "multiply_packed", "quantized_matmul"]

# Where Triton converts e4m3 by instruction, by the start of the architecture's name.
_NATIVE_FP8 = ("sm89", "sm90", "sm10", "sm11", "sm12", "gfx95", "gfx12")


@triton.jit
def _code_values(codes, ZERO: tl.constexpr):
    """Codes below 2^23 as float32, less ZERO: their bits become the mantissa of 2^23 and more."""
    bits = codes.to(tl.int32) | 0x4B000000
    return bits.to(tl.float32, bitcast=True) - (8388608.0 + ZERO)


@triton.jit
def _float8_values(codes, NATIVE: tl.constexpr):
    """e4m3 as float32; where there is no such type, by its bits as the float16 of 2^-8 the size."""
    if NATIVE:
        return codes.to(tl.float8e4nv, bitcast=True).to(tl.float32)
    bits = codes.to(tl.int16)
    half = ((bits & 0x80) << 8) | ((bits & 0x7F) << 7)
    return half.to(tl.float16, bitcast=True).to(tl.float32) * 256.0


@triton.jit
def _values(
    codes, KIND: tl.constexpr, HALF: tl.constexpr, ZERO: tl.constexpr, NATIVE: tl.constexpr
):
    """A tile of codes (of int4: one half of each byte) as float32, less ZERO."""
    if KIND == "fp8":
        return _float8_values(codes, NATIVE)
    if KIND == "int4":
        codes = codes >> 4 * HALF & 15
    return _code_values(codes, ZERO)


@triton.jit
def _group_numbers(
    numbers_ptr,
    factors_ptr,
    where,  # [ROWS, NUM]
    factor_where,
    mask,
    HAS_FACTORS: tl.constexpr,
    ROWS: tl.constexpr,
    NUM: tl.constexpr,
    EACH: tl.constexpr,
):
    """Scales or offsets of groups, each EACH times: float32[ROWS, NUM * EACH]."""
    numbers = tl.load(numbers_ptr + where, mask=mask, other=0).to(tl.float32)
    if HAS_FACTORS:
        numbers *= tl.load(factors_ptr + factor_where, mask=mask, other=0.0).to(tl.float32)
    spread = tl.broadcast_to(numbers[:, :, None], (ROWS, NUM, EACH))
    return tl.reshape(spread, (ROWS, NUM * EACH))


@triton.jit(do_not_specialize=["num_rows"])
def _quantized_matmul(
    x_ptr,  # [rows, in_features], x_stride from row to row
    codes_ptr,  # uint8[out_features, in_features or half of it]
    scales_ptr,  # [out_features, in_features / GROUP]; [out_features] if GROUP is 0
    offsets_ptr,  # the same, or unused
    scale_factors_ptr,  # [out_features, in_features / FACTOR_GROUP], or unused
    offset_factors_ptr,  # the same
    bias_ptr,  # [out_features], or unused
    out_ptr,  # [rows, out_features]; float32[splits, rows, out_features] if SPLIT
    num_rows,
    out_features,
    in_features,
    x_stride,
    code_stride,  # bytes of a row
    split_steps,  # IN_TILEs that a program takes
    CODES: tl.constexpr,
    ZERO: tl.constexpr,
    GROUP: tl.constexpr,
    FACTOR_GROUP: tl.constexpr,
    HAS_FACTORS: tl.constexpr,
    HAS_OFFSETS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    NATIVE_FP8: tl.constexpr,
    SPLIT: tl.constexpr,
    OUT_TILE: tl.constexpr,
    ROW_TILE: tl.constexpr,
    IN_TILE: tl.constexpr,
):
    # Programs that share a tile of weights run side by side.
    row = tl.program_id(0) * ROW_TILE + tl.arange(0, ROW_TILE)
    out = tl.program_id(1) * OUT_TILE + tl.arange(0, OUT_TILE)
    split = tl.program_id(2)
    is_row = row < num_rows
    is_out = out < out_features
    x_rows = x_ptr + row.to(tl.int64)[None, :] * x_stride
    PER_BYTE: tl.constexpr = 2 if CODES == "int4" else 1
    BYTES: tl.constexpr = IN_TILE // PER_BYTE
    byte = tl.arange(0, BYTES)
    place = byte // 16 * 32 + byte % 16 if CODES == "int4" else byte
    code_rows = codes_ptr + out.to(tl.int64)[:, None] * code_stride
    NUM_GROUPS: tl.constexpr = 1 if GROUP == 0 else (IN_TILE + GROUP - 1) // GROUP
    group = tl.arange(0, NUM_GROUPS)
    total = tl.zeros((OUT_TILE, ROW_TILE), tl.float32)
    first = split * split_steps
    for step in range(first, tl.minimum(first + split_steps, tl.cdiv(in_features, IN_TILE))):
        start = step * IN_TILE
        column = start + place
        is_code = is_out[:, None] & (column < in_features)[None, :]
        codes = tl.load(code_rows + (start // PER_BYTE + byte)[None, :], mask=is_code, other=0)
        if GROUP > 0:
            at = start // GROUP + group
            is_group = is_out[:, None] & (at * GROUP < in_features)[None, :]
            where = out.to(tl.int64)[:, None] * (in_features // GROUP) + at[None, :]
            factor = out.to(tl.int64)[:, None] * (in_features // FACTOR_GROUP)
            factor += (at * GROUP // FACTOR_GROUP)[None, :]
            scales = _group_numbers(
                scales_ptr, scale_factors_ptr, where, factor, is_group,
                HAS_FACTORS, OUT_TILE, NUM_GROUPS, BYTES // NUM_GROUPS,
            )  # fmt: skip
            if HAS_OFFSETS:
                offsets = _group_numbers(
                    offsets_ptr, offset_factors_ptr, where, factor, is_group,
                    HAS_FACTORS, OUT_TILE, NUM_GROUPS, BYTES // NUM_GROUPS,
                )  # fmt: skip
        for half in tl.static_range(PER_BYTE):
            is_x = (column < in_features)[:, None] & is_row[None, :]
            x = tl.load(x_rows + (column + 16 * half)[:, None], mask=is_x, other=0.0)
            values = _values(codes, CODES, half, ZERO, NATIVE_FP8)
            if GROUP > 0:
                values *= scales
            if HAS_OFFSETS:
                values += offsets
            total = tl.dot(values.to(x.dtype), x, total, input_precision="ieee")
    if GROUP == 0:
        total *= tl.load(scales_ptr + out, mask=is_out, other=0.0).to(tl.float32)[:, None]
    if HAS_BIAS and not SPLIT:
        total += tl.load(bias_ptr + out, mask=is_out, other=0.0).to(tl.float32)[:, None]
    out_rows = out_ptr + (split.to(tl.int64) * num_rows + row)[None, :] * out_features
    tl.store(
        out_rows + out[:, None],
        total.to(out_ptr.dtype.element_ty),
        mask=is_out[:, None] & is_row[None, :],
    )


@triton.jit
def _add_parts(
    parts_ptr,  # float32[splits, rows, out_features]
    bias_ptr,  # [out_features], or unused
    out_ptr,  # [rows, out_features]
    num_elements,  # rows * out_features
    out_features,
    SPLITS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    TILE: tl.constexpr,
):
    element = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = element < num_elements
    total = tl.zeros((TILE,), tl.float32)
    for split in range(SPLITS):
        total += tl.load(parts_ptr + split * num_elements + element, mask=inside, other=0.0)
    if HAS_BIAS:
        total += tl.load(bias_ptr + element % out_features, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + element, total.to(out_ptr.dtype.element_ty), mask=inside)


def quantized_matmul(
    x: torch.Tensor,  # [rows, in_features]
    codes: torch.Tensor,  # uint8[out_features, in_features]; int4 half as many
    scales: torch.Tensor,  # [out_features, groups]
    offsets: torch.Tensor | None = None,  # as scales
    factors: torch.Tensor | None = None,  # [2, out_features, …]: of scales, then of offsets
    bias: torch.Tensor | None = None,  # [out_features]
    *,
    kind: Codes,
    zero: int = 0,
) -> torch.Tensor:
    """``x @ weight.T + bias`` [rows, out_features], rounded to x's dtype.

    in_features is a multiple of 16, and of 32 for int4; so is a group (or it is a whole row), and a
    power of two.
    """
    num_rows, in_features = x.shape
    out_features = codes.shape[0]
    group = in_features // scales.shape[1]
    whole_rows = scales.shape[1] == 1 and offsets is None and factors is None
    options = launch_options(
        "quantized_matmul", x.device, rows=num_rows, bits=_bits(kind), x_bytes=x.element_size()
    )
    out_tile, row_tile, in_tile = (options.pop(f"{name}_tile") for name in ("out", "row", "in"))
    waves = options.pop("split_waves")
    while in_tile % group and group % in_tile:
        in_tile //= 2
    out = x.new_empty(num_rows, out_features)
    if not num_rows:
        return out
    target = target_of(x.device)
    tiles = triton.cdiv(num_rows, row_tile), triton.cdiv(out_features, out_tile)
    steps = triton.cdiv(in_features, in_tile)
    split_steps = _split_steps(steps, tiles[0] * tiles[1], waves * target.num_units)
    splits = triton.cdiv(steps, split_steps)
    parts = x.new_empty((splits, *out.shape), dtype=torch.float32) if splits > 1 else out
    has_bias = bias is not None
    shared = (scales, scales) if factors is None else (factors[0], factors[1])
    _quantized_matmul[(*tiles, splits)](
        x, codes, scales, scales if offsets is None else offsets, *shared,
        bias if has_bias else scales, parts,
        num_rows, out_features, in_features, x.stride(0), codes.stride(0), split_steps,
        CODES=kind, ZERO=zero, GROUP=0 if whole_rows else group,
        FACTOR_GROUP=group if factors is None else in_features // factors.shape[2],
        HAS_FACTORS=factors is not None, HAS_OFFSETS=offsets is not None, HAS_BIAS=has_bias,
        NATIVE_FP8=target.arch.startswith(_NATIVE_FP8), SPLIT=splits > 1,
        OUT_TILE=out_tile, ROW_TILE=row_tile, IN_TILE=in_tile, **options,
    )  # fmt: skip
    if splits > 1:
        _add_parts[(triton.cdiv(out.numel(), 1024),)](
            parts, bias if has_bias else scales, out, out.numel(), out_features,
            SPLITS=splits, HAS_BIAS=has_bias, TILE=1024, num_warps=4,
        )  # fmt: skip
    return out


def multiply_packed(x: torch.Tensor, weight: QuantizedLinear) -> torch.Tensor:
    """``linear`` of a packed weight."""
    return quantized_matmul(
        x, weight.codes, weight.scales, weight.offsets, weight.factors, weight.bias,
        kind=weight.kind, zero=weight.zero,
    )  # fmt: skip


def _bits(kind: Codes) -> int:
    return 4 if kind == "int4" else 8


def _split_steps(steps: int, num_tiles: int, num_programs: int) -> int:
    """How many of a row's steps a program takes: all, or so few that all units have programs."""
    splits = min(max(1, num_programs // num_tiles), max(1, steps // 4), 16)
    return -(-steps // splits)


def _reference(
    x: torch.Tensor,
    codes: torch.Tensor,
    scales: torch.Tensor,
    offsets: torch.Tensor | None = None,
    factors: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    *,
    kind: Codes,
    zero: int = 0,
) -> torch.Tensor:
    weight = unpacked(codes, scales, offsets, factors, kind=kind, zero=zero)
    product = x.double() @ weight.double().T
    return (product if bias is None else product + bias.double()).to(x.dtype)


KERNELS = (
    Kernel("quantized_matmul", quantized_matmul, _reference, CASES),
    Kernel("multiply_packed", multiply_packed, multiply_unpacked, PACKED_CASES),
)
