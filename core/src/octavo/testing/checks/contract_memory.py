"""Checks of what a backend says of its memory, and of weights that it cannot take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from octavo.errors import OctavoError
from octavo.isolation import describe
from octavo.kv import KVSpec
from octavo.loading.tensors import QuantizedTensor
from octavo.testing.check import Case, Check, CheckFailure
from octavo.testing.checks.raw_backend import opened_sound

if TYPE_CHECKING:
    from octavo.testing.subject import Subject

__all__ = ["CHECKS"]

_MIB = 1 << 20
_UNKNOWN_SCHEME = "no-such-packing:Q0"
_NUM_BIG_CACHES = 3


def _run_value(subject: Subject, value: Any) -> None:
    value(subject)


def _memory_cases(subject: Subject) -> Iterable[Case]:
    yield Case("figures", _check_figures)
    try:
        with opened_sound(subject) as backend:
            is_shared = getattr(backend.memory(), "shared_with_host", False)
            host_swap = backend.caps.host_swap
    except Exception:  # noqa: BLE001 - the case above reports it
        return
    if not is_shared:  # the host's memory moves for reasons of its own
        yield Case("falls with a cache", _check_memory_falls)
        not_claimed = None if host_swap else "caps.host_swap is False"
        yield Case("swap space is the host's", _check_swap_space, not_claimed)


def _check_figures(subject: Subject) -> None:
    with opened_sound(subject) as backend:
        memory = backend.memory()
    free_bytes, total_bytes = memory.free_bytes, memory.total_bytes
    if not (_is_count(free_bytes) and _is_count(total_bytes)):
        raise CheckFailure(
            f"memory() returns free_bytes={free_bytes!r} and total_bytes={total_bytes!r}; expected "
            "whole numbers of bytes (int)."
        )
    if not 0 <= free_bytes <= total_bytes or total_bytes == 0:
        raise CheckFailure(
            f"memory() returns {free_bytes} bytes free of {total_bytes}; expected "
            "0 <= free_bytes <= total_bytes, and a device with memory."
        )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_memory_falls(subject: Subject) -> None:
    """Octavo makes caches of what is free after the weights are loaded: free has to be current.

    A pool may serve the first cache from what it holds already, so several are made.
    """
    with opened_sound(subject) as backend:
        before_bytes = backend.memory().free_bytes
        each_bytes = min(64 * _MIB, before_bytes // (4 * _NUM_BIG_CACHES))
        caps = backend.caps
        block_size, head_dim = caps.block_sizes[0], min(128, caps.max_head_dim)
        spec = KVSpec("full", 4, head_dim, caps.kv_dtypes[0])
        num_blocks = max(2, each_bytes // (spec.bytes_per_token * block_size))
        made_bytes, caches, fallen_bytes = 0, [], 0
        for _ in range(_NUM_BIG_CACHES):
            cache = backend.make_kv(spec, num_blocks, block_size)
            pair = np.array([[0, 1]], np.int32)
            caches.append(backend.copy_blocks(cache, cache, pair))  # a lazy backend begins now
            made_bytes += num_blocks * spec.bytes_per_token * block_size
            fallen_bytes = before_bytes - backend.memory().free_bytes
            if fallen_bytes >= made_bytes / 2:
                return
        raise CheckFailure(
            f"{len(caches)} caches of {made_bytes / _MIB:.1f} MiB together were made, and "
            f"memory().free_bytes fell by {fallen_bytes / _MIB:.1f} MiB. Octavo would plan with "
            "memory that is gone: ask the device each time (or say shared_with_host=True)."
        )


def _check_swap_space(subject: Subject) -> None:
    """It is as large as the host has memory to spare, which a device may not have."""
    with opened_sound(subject) as backend:
        caps = backend.caps
        block_size, spec = caps.block_sizes[0], KVSpec("full", 4, 8, caps.kv_dtypes[0])
        before_bytes = backend.memory().free_bytes
        made_bytes = min(64 * _MIB, before_bytes // 4)
        num_blocks = max(1, made_bytes // (spec.bytes_per_token * block_size))
        swap_space = backend.make_kv(spec, num_blocks, block_size, on_host=True)
        fallen_bytes = before_bytes - backend.memory().free_bytes
        del swap_space
    if fallen_bytes >= made_bytes / 2:
        raise CheckFailure(
            f"make_kv with on_host=True for {made_bytes / _MIB:.1f} MiB took "
            f"{fallen_bytes / _MIB:.1f} MiB of device memory, by what memory() says. Swap space "
            "belongs in the host's memory.",
            look="backend.make_kv, backend.memory",
        )


def _check_packed_weights(subject: Subject, _value: None) -> None:
    packed = QuantizedTensor(_UNKNOWN_SCHEME, (4, 32), np.zeros((4, 18), np.uint8))
    with opened_sound(subject) as backend:
        dtype = backend.caps.dtypes[0]
        try:
            backend.put_linear(packed, None, dtype)
        except OctavoError as error:
            if _UNKNOWN_SCHEME in str(error):
                return
            raise CheckFailure(
                f"A weight packed as {_UNKNOWN_SCHEME!r} is refused with {str(error)!r}, which "
                "does not name the packing."
            ) from error
        except Exception as error:
            raise CheckFailure(
                f"A weight packed as {_UNKNOWN_SCHEME!r}, which caps.quantization does not name, "
                f"makes put_linear raise {describe(error)}; expected octavo.api.BackendError "
                "naming the packing."
            ) from error
    raise CheckFailure(
        f"put_linear takes a weight packed as {_UNKNOWN_SCHEME!r}, which caps.quantization does "
        "not name: its packed bytes would be multiplied as if they were numbers. Raise "
        "octavo.api.BackendError naming the packing."
    )


CHECKS: tuple[Check, ...] = (
    Check(
        "contract",
        "memory",
        "free and total bytes are plausible, and free falls as memory is taken, the host's apart",
        "backend.memory",
        _run_value,
        _memory_cases,
    ),
    Check(
        "contract",
        "packed_weights",
        "a packing that the capabilities do not name is refused",
        "backend.put_linear",
        _check_packed_weights,
    ),
)
