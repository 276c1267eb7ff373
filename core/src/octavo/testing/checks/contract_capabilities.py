"""Checks of capabilities: what is claimed is tried, cheaply; whether it is right, others tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from octavo.contract import contract_faults
from octavo.isolation import describe
from octavo.kv import KV_DTYPES, KVSpec
from octavo.loading.dtypes import numpy_dtype
from octavo.loading.gguf_quants import QUANT_TYPES
from octavo.loading.tensors import QuantizedTensor
from octavo.ops.protocol import AttentionParams
from octavo.testing.check import Blocked, Case, Check, CheckFailure
from octavo.testing.checks.raw_backend import ONE_TOKEN, attend_one_token, opened, opened_sound

if TYPE_CHECKING:
    from octavo.testing.subject import Subject

__all__ = ["CHECKS"]

_NEARLY = 0.05  # what 8 bits may lose of ONE_TOKEN


def _capability_cases(subject: Subject) -> Iterable[Case]:
    yield Case("fields", _check_fields)
    try:
        with opened_sound(subject) as backend:
            caps = backend.caps
    except Blocked:
        return  # nothing can be tried; others say why
    yield Case("constant", _check_constant)
    for label, check in _TRIED.items():
        yield Case(label, check)
    if caps.host_swap:
        yield Case("host_swap", _try_host_swap)
    else:
        yield Case("host_swap", unclaimed="caps.host_swap is False")
    if caps.separate_sampling:
        yield Case("separate_sampling", _try_separate_sampling)
    else:
        yield Case("separate_sampling", unclaimed="caps.separate_sampling is False")
    if caps.quantization:
        yield Case("quantization", _try_quantization)
    yield Case("what is not claimed", _note_unclaimed, quick=False)


def _run_value(subject: Subject, value: Any) -> Any:
    return value(subject)


def _check_fields(subject: Subject) -> None:
    with opened(subject) as backend:
        found = [
            fault.message
            for fault in contract_faults(backend, subject.name)
            if fault.kind == "capability"
        ]
    if found:
        raise CheckFailure("\n".join(found))


def _tried(claim: str, attempt: Callable[[], Any], look: str) -> Any:
    """What ``attempt`` returns. Raises CheckFailure saying which claim is not kept."""
    try:
        return attempt()
    except Exception as error:
        raise CheckFailure(
            f"The backend claims {claim}, but {look.partition(',')[0]} raised {describe(error)}. "
            "Claim what works: leaving a capability out is never wrong.",
            look=f"{look}, backend.caps",
        ) from error


def _check_constant(subject: Subject) -> None:
    """Octavo reads the capabilities now and then, and relies on what it read first."""
    with opened_sound(subject) as backend:
        first, ops = backend.caps, backend.ops
        spec = KVSpec("full", 1, 8, first.kv_dtypes[0])
        attend_one_token(backend, spec, first.block_sizes[0], AttentionParams(scale=1.0))
        changed = [
            name for name in vars(first) if getattr(first, name) != getattr(backend.caps, name)
        ]
        if changed:
            raise CheckFailure(
                f"Once attention has been computed, caps.{changed[0]} is "
                f"{getattr(backend.caps, changed[0])!r}; at first it was "
                f"{getattr(first, changed[0])!r}. Capabilities never change."
            )
        if backend.ops is not ops:
            raise CheckFailure(
                "backend.ops is another object each time; expected the op set, bound once at load.",
                look="backend.ops",
            )


def _try_dtypes(subject: Subject) -> None:
    """Each compute dtype can be put, named or as it is."""
    with opened_sound(subject) as backend:
        for dtype in backend.caps.dtypes:
            claim = f"{dtype} in caps.dtypes"
            ones = np.ones((2, 3), np.float32)
            _tried(claim, lambda: backend.get(backend.put(ones, dtype)), "backend.put")  # noqa: B023
            host = ones.astype(numpy_dtype(dtype))
            _tried(claim, lambda: backend.get(backend.put(host)), "backend.put")  # noqa: B023
            _tried(claim, lambda: backend.put_linear(host, None, dtype), "backend.put_linear")  # noqa: B023


def _try_kv_dtypes(subject: Subject) -> None:
    with opened_sound(subject) as backend:
        for dtype in backend.caps.kv_dtypes:
            spec = KVSpec("full", 1, 8, dtype)
            _try_attention(backend, f"{dtype} in caps.kv_dtypes", spec)


def _try_block_sizes(subject: Subject) -> None:
    with opened_sound(subject) as backend:
        for block_size in backend.caps.block_sizes:
            spec = KVSpec("full", 1, 8, backend.caps.kv_dtypes[0])
            claim = f"{block_size} in caps.block_sizes"
            _try_attention(backend, claim, spec, block_size=block_size)


def _try_head_dim(subject: Subject) -> None:
    with opened_sound(subject) as backend:
        head_dim = backend.caps.max_head_dim
        spec = KVSpec("full", 1, head_dim, backend.caps.kv_dtypes[0])
        _try_attention(backend, f"max_head_dim={head_dim}", spec)


def _try_attention_features(subject: Subject) -> None:
    with opened_sound(subject) as backend:
        caps = backend.caps
        full = KVSpec("full", 1, 8, caps.kv_dtypes[0])
        sliding = KVSpec("sliding", 1, 8, caps.kv_dtypes[0], window=4)
        if caps.sliding_window:
            params = AttentionParams(scale=1.0, window=4)
            _try_attention(backend, "sliding_window", sliding, params)
        if caps.soft_cap:
            params = AttentionParams(scale=1.0, soft_cap=30.0)
            _try_attention(backend, "soft_cap", full, params)
        if caps.sinks:
            _try_attention(backend, "sinks", full, sinks=True)


def _try_attention(
    backend: Any,
    claim: str,
    spec: KVSpec,
    params: AttentionParams | None = None,
    *,
    block_size: int | None = None,
    sinks: bool = False,
) -> None:
    """A cache for it can be made, written and read. Whether rightly is for the checks of ops."""
    params = params or AttentionParams(scale=1.0)
    size = block_size or backend.caps.block_sizes[0]
    out = _tried(
        claim,
        lambda: attend_one_token(backend, spec, size, params, sinks=sinks),
        "backend.make_kv, ops.attend, ops.write_kv, ops.paged_attention",
    )
    if out.shape != (1, 1, spec.head_dim):
        raise CheckFailure(
            f"The backend claims {claim}, but attention over such a cache returned an array of "
            f"shape {out.shape}; expected (1, 1, {spec.head_dim}).",
            look="ops.attend, ops.paged_attention",
        )


def _try_host_swap(subject: Subject) -> None:
    with opened_sound(subject) as backend:
        caps = backend.caps
        for dtype in caps.kv_dtypes:
            spec, size = KVSpec("full", 1, 8, dtype), caps.block_sizes[0]

            def swap(spec: KVSpec = spec, size: int = size) -> None:
                on_device = backend.make_kv(spec, 3, size)
                on_host = backend.make_kv(spec, 2, size, on_host=True)
                on_host = backend.copy_blocks(on_device, on_host, np.array([[1, 0]], np.int32))
                backend.copy_blocks(on_host, on_device, np.array([[0, 2]], np.int32))

            _tried(
                f"host_swap, and {dtype} in caps.kv_dtypes",
                swap,
                "backend.copy_blocks, backend.make_kv",
            )


def _try_separate_sampling(subject: Subject) -> None:
    """A function of empty weights and caches is compiled, and gives back what it is given."""
    logits = np.arange(6, dtype=np.float32).reshape(2, 3)

    def attempt() -> Any:
        with opened_sound(subject) as backend:
            part = backend.compile(lambda _weights, _caches, rows: (rows[:1], rows[1:]))
            return [backend.get(rows) for rows in part((), (), backend.put(logits))]

    found = _tried("separate_sampling", attempt, "backend.compile")
    if not np.array_equal(np.concatenate(found), logits):
        raise CheckFailure(
            f"A compiled part of a step that cuts {logits.tolist()} in two returned "
            f"{[rows.tolist() for rows in found]}. With caps.separate_sampling, compile takes any "
            "function of arrays, and not only the whole step.",
            look="backend.compile, backend.caps",
        )


def _try_quantization(subject: Subject) -> None:
    """Each scheme is taken as a checkpoint packs it; zeros are valid in all of them."""
    types = {each.dtype: each for each in QUANT_TYPES.values() if each.is_quantized}
    with opened_sound(subject) as backend:
        for scheme in backend.caps.quantization:
            if scheme not in types:
                raise CheckFailure(
                    f"caps.quantization has {scheme!r}, which is no packing that Octavo reads; "
                    f"those are {', '.join(types)}.",
                    look="backend.caps",
                )
            block_size, block_bytes = types[scheme].block_size, types[scheme].block_bytes
            data = np.zeros((4, 256 // block_size * block_bytes), np.uint8)
            packed = QuantizedTensor(scheme, (4, 256), data)
            _tried(
                f"{scheme} in caps.quantization",
                lambda: backend.put_linear(packed, None, backend.caps.dtypes[0]),  # noqa: B023
                "backend.put_linear",
            )


def _note_unclaimed(subject: Subject) -> str | None:
    """A note on what works without being claimed; not claiming is never wrong."""
    with opened_sound(subject) as backend:
        caps = backend.caps
        attempts: dict[str, tuple[Any, ...]] = {
            f"{dtype} in caps.kv_dtypes": (KVSpec("full", 1, 8, dtype), caps.block_sizes[0])
            for dtype in KV_DTYPES
            if dtype not in caps.kv_dtypes
        }
        works = [claim for claim, attempt in attempts.items() if _can(backend, *attempt)]
    return f"Works for one token, and is not claimed: {', '.join(works)}." if works else None


def _can(backend: Any, spec: KVSpec, block_size: int) -> bool:
    try:
        out = attend_one_token(backend, spec, block_size, AttentionParams(scale=1.0))
        return bool(np.all(np.abs(out - ONE_TOKEN) < _NEARLY))
    except Exception:  # noqa: BLE001 - what is not claimed may fail in any way
        return False


_TRIED: dict[str, Callable[[Subject], None]] = {
    "dtypes": _try_dtypes,
    "kv_dtypes": _try_kv_dtypes,
    "block_sizes": _try_block_sizes,
    "max_head_dim": _try_head_dim,
    "attention features": _try_attention_features,
}


CHECKS: tuple[Check, ...] = (
    Check(
        "contract",
        "capabilities",
        "the capabilities are complete, and what they claim can be done",
        "backend.caps",
        _run_value,
        _capability_cases,
    ),
)
