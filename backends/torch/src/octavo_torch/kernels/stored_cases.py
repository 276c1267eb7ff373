"""The shapes that writes to a cache are checked in."""

from __future__ import annotations

from typing import Any

import torch

from octavo_torch.caches import TorchCache
from octavo_torch.kernels.kernel import Case

__all__ = ["ROPE_CASES", "WRITE_CASES", "as_tensors", "cloned"]


def cloned(cache: TorchCache) -> TorchCache:
    """A copy, to be written to."""
    scales = (None if scale is None else scale.clone() for scale in (cache.k_scale, cache.v_scale))
    return TorchCache(cache.k.clone(), cache.v.clone(), *scales)


def as_tensors(cache: TorchCache) -> tuple[torch.Tensor, ...]:
    """What can be compared: int8 codes within one, float8 as numbers."""
    scales = [scale for scale in (cache.k_scale, cache.v_scale) if scale is not None]
    if cache.k.dtype == torch.int8:
        return (
            *(x.float() * s[..., None] for x, s in zip((cache.k, cache.v), scales, strict=True)),
        )
    return (*(x.float() for x in (cache.k, cache.v)), *scales)


def _case(
    tokens: int,
    kv_heads: int,
    head_dim: int,
    dtype: str,
    kv_dtype: str,
    *,
    half: int = 0,  # rotate, 2 * half features
    heads: int = 0,
    ahead: bool = False,
) -> Case:
    block_size = 16

    def make(device: torch.device, generator: torch.Generator) -> dict[str, Any]:
        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, device=device)

        # As a projection gives them: q, k and v of a token side by side.
        packed = normal(tokens, heads + 2 * kv_heads, head_dim).to(getattr(torch, dtype))
        packed[:1] *= 1000.0  # float8 saturates
        q, k, v = packed.split([heads, kv_heads, kv_heads], 1)
        num_blocks = -(-tokens // block_size) + 2
        shape = (num_blocks, kv_heads, block_size, head_dim)
        place = torch.randperm((num_blocks - 1) * block_size, generator=generator, device=device)
        arguments = {
            "cache": _cache(normal, shape, kv_dtype),
            "k": k,
            "v": v,
            "slots": (place[:tokens] + block_size).to(torch.int32),
        }
        if half:
            angles = normal(tokens, half) * 3
            arguments |= {"q": q, "cos": angles.cos(), "sin": angles.sin()}
        return arguments

    label = f"{tokens}x{kv_heads}x{head_dim} {dtype} kv={kv_dtype}" + f" half={half}" * bool(half)
    return Case(label, make, dtypes=(dtype, kv_dtype), ahead=ahead)


def _cache(normal: Any, shape: tuple[int, ...], dtype: str) -> TorchCache:
    k, v = (torch.zeros(shape, dtype=getattr(torch, dtype), device=normal(1).device) for _ in "kv")
    if dtype == "int8":
        return TorchCache(k, v, normal(*shape[:3]), normal(*shape[:3]))
    if dtype == "float8_e4m3fn":
        return TorchCache(k, v, normal(shape[1]).abs() + 0.5, normal(shape[1]).abs() + 0.5)
    return TorchCache(k, v)


WRITE_CASES = (
    _case(5, 2, 16, "bfloat16", "bfloat16"),
    _case(19, 3, 24, "float32", "float8_e4m3fn"),
    _case(19, 3, 24, "float32", "float8_e5m2"),
    _case(4, 3, 80, "float16", "int8"),
    _case(64, 8, 128, "bfloat16", "bfloat16", ahead=True),
    _case(64, 8, 128, "bfloat16", "float8_e4m3fn", ahead=True),
    _case(64, 8, 128, "bfloat16", "int8", ahead=True),
)
ROPE_CASES = (
    _case(5, 2, 16, "bfloat16", "bfloat16", half=8, heads=6),
    _case(4, 3, 24, "float32", "float32", half=8, heads=3),
    _case(3, 1, 80, "float16", "int8", half=16, heads=5),
    _case(3, 2, 32, "bfloat16", "float8_e5m2", half=16, heads=4),
    _case(64, 8, 128, "bfloat16", "bfloat16", half=64, heads=32, ahead=True),
    _case(64, 8, 128, "bfloat16", "int8", half=64, heads=32, ahead=True),
)
