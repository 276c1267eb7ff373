"""The shapes that products with packed weights are checked in."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from octavo.api import QuantizedTensor
from octavo_torch.kernels.kernel import Case
from octavo_torch.quantized import prepare

__all__ = ["CASES", "PACKED_CASES"]


def _case(
    kind: str,
    group: int,  # 0: a whole row
    *,
    rows: int,
    out_features: int,
    in_features: int,
    dtype: str = "bfloat16",
    offsets: bool = False,
    factors: bool = False,
    bias: bool = False,
    zero: int = 0,
    ahead: bool = False,
) -> Case:
    groups = in_features // group if group else 1

    def make(device: torch.device, generator: torch.Generator) -> dict[str, Any]:
        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, device=device)

        if kind == "fp8":
            codes = normal(out_features, in_features).to(torch.float8_e4m3fn).view(torch.uint8)
        else:
            shape = (out_features, in_features // 2 if kind == "int4" else in_features)
            codes = torch.randint(
                0, 256, shape, generator=generator, device=device, dtype=torch.uint8
            )
        unit = {"int4": 5.0, "int8": 75.0, "fp8": 1.0}[kind] * in_features**0.5
        scales = (normal(out_features, groups) * 0.1 + 1) / unit
        shifts = normal(out_features, groups) / in_features**0.5
        precise = torch.float16 if group else torch.float32
        shared = None
        if factors:
            sizes = torch.tensor([1 / unit, 1 / in_features**0.5], device=device)[:, None, None]
            shared = normal(2, out_features, in_features // 256) * sizes / 32
            scales, shifts = (
                torch.randint(0, 64, scales.shape, generator=generator, device=device)
                for _ in range(2)
            )
            precise = torch.uint8
        return {
            "x": normal(rows, in_features).to(getattr(torch, dtype)),
            "codes": codes,
            "scales": scales.to(precise),
            "offsets": shifts.to(precise) if offsets else None,
            "factors": None if shared is None else shared.half(),
            "bias": normal(out_features).to(getattr(torch, dtype)) if bias else None,
            "kind": kind,
            "zero": zero,
        }

    label = f"{kind}-group{group}{'-factors' * factors}-{dtype}-{rows}x{out_features}x{in_features}"
    matrix = {"cuda": "matrix", "hip": "matrix"}
    return Case(label, make, dtypes=(dtype,), ahead=ahead, expects=matrix if ahead else {})


CASES = (
    _case("int4", 32, rows=1, out_features=70, in_features=96, offsets=True, bias=True),
    _case("int4", 128, rows=3, out_features=33, in_features=1024, zero=8),
    _case("int4", 32, rows=19, out_features=64, in_features=160, zero=8, dtype="float32"),
    _case("int8", 32, rows=5, out_features=40, in_features=96, zero=128, dtype="float16"),
    _case("int8", 16, rows=2, out_features=20, in_features=1040, zero=32, bias=True),
    _case("int8", 0, rows=67, out_features=24, in_features=48, zero=128),
    _case("int4", 32, rows=2, out_features=70, in_features=512, offsets=True, factors=True),
    _case("int8", 16, rows=3, out_features=20, in_features=768, zero=32, factors=True),
    _case("fp8", 0, rows=4, out_features=37, in_features=1088, bias=True),
    _case("fp8", 128, rows=130, out_features=24, in_features=256, dtype="float16"),
    _case("int4", 32, rows=16, out_features=4096, in_features=4096, offsets=True, ahead=True),
    _case("fp8", 0, rows=16, out_features=4096, in_features=4096, ahead=True),
    _case("int4", 32, rows=8192, out_features=4096, in_features=4096, offsets=True, ahead=True),
)


def _packed_case(scheme: str, block_size: int, block_bytes: int, *halves: int) -> Case:
    """A weight as GGUF packs it; ``halves`` are the bytes of a block's float16."""

    def make(device: torch.device, generator: torch.Generator) -> dict[str, Any]:
        rng = np.random.default_rng(0)
        out_features, in_features = 20, 512
        shape = (out_features * in_features // block_size, block_bytes)
        blocks = rng.integers(0, 256, shape, np.uint8)
        for byte in halves:
            scales = rng.standard_normal((len(blocks), 1)).astype("<f2") * np.float16(2**-12)
            blocks[:, byte : byte + 2] = scales.view(np.uint8)
        weight = QuantizedTensor(
            f"gguf:{scheme}", (out_features, in_features), blocks.reshape(out_features, -1)
        )
        bias = rng.standard_normal(out_features, np.float32)

        def put(array: np.ndarray[Any, Any], dtype: str | None = None) -> torch.Tensor:
            del dtype
            return torch.from_numpy(array.copy()).to(device)

        x = torch.randn((3, in_features), generator=generator, device=device)
        return {"x": x, "weight": prepare(weight, bias, "float32", put)}

    return Case(scheme, make, dtypes=("float32",))


PACKED_CASES = (
    _packed_case("Q4_0", 32, 18, 0),
    _packed_case("Q4_1", 32, 20, 0, 2),
    _packed_case("Q8_0", 32, 34, 0),
    _packed_case("Q4_K", 256, 144, 0, 2),
    _packed_case("Q6_K", 256, 210, 208),
)
