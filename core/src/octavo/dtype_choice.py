"""Which of a backend's dtypes a config means."""

from __future__ import annotations

from octavo.errors import UsageError

__all__ = ["choose_cache_dtype", "choose_dtype"]


def choose_dtype(option: str, wanted: str, available: tuple[str, ...]) -> str:
    """``wanted``, or with "auto" what the backend prefers."""
    if wanted == "auto":
        return available[0]
    aliases = {"half": "float16", "float": "float32", "fp32": "float32", "fp16": "float16"}
    name = {**aliases, "bf16": "bfloat16"}.get(wanted, wanted)
    if name not in available:
        raise UsageError(
            f"{option}={wanted!r} is not one this backend has; use auto or one of "
            f"{', '.join(available)}."
        )
    return name


def choose_cache_dtype(
    wanted: str, compute_dtype: str, dtypes: tuple[str, ...], cache_dtypes: tuple[str, ...]
) -> str:
    """``wanted``, or with "auto" what is computed in: the backend's choice if it stores no such."""
    dtype = choose_dtype("dtype", compute_dtype, dtypes)
    if wanted == "auto" and dtype in cache_dtypes:
        return dtype
    return choose_dtype("kv_cache_dtype", wanted, cache_dtypes)
