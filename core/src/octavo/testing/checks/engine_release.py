"""An engine that is closed leaves nothing behind: no cache alive, no device memory taken."""

from __future__ import annotations

import gc
import itertools
import weakref
from typing import TYPE_CHECKING, Any

from octavo.testing.answers import generate, greedy
from octavo.testing.check import Check, CheckFailure
from octavo.testing.tiny_models import TINY_MODELS

if TYPE_CHECKING:
    from octavo.testing.subject import Subject

__all__ = ["RELEASE"]

_NUM_ENGINES = 3
_NUM_TOKENS = 4


class _Noting:
    """A backend that remembers, weakly, each cache that it made."""

    def __init__(self, backend: Any, caches: list[weakref.ref[Any]]) -> None:
        self._backend = backend
        self._caches = caches

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def make_kv(self, *arguments: Any, **options: Any) -> Any:
        cache = self._backend.make_kv(*arguments, **options)
        try:
            self._caches.append(weakref.ref(cache))
        except TypeError:  # a tuple, for example: nothing can be said of it
            return cache
        return cache


def _check_release(subject: Subject, _value: None) -> None:
    caches: list[weakref.ref[Any]] = []
    free_bytes = [subject.backend.memory().free_bytes]
    cache_bytes = 0
    for _ in range(_NUM_ENGINES):
        cache_bytes = _come_and_go(subject, caches)
        gc.collect()
        free_bytes.append(subject.backend.memory().free_bytes)
    num_alive = sum(cache() is not None for cache in caches)
    if num_alive:
        raise CheckFailure(
            f"{_NUM_ENGINES} engines were closed and nobody holds them any more, but {num_alive} "
            f"of their {len(caches)} caches are still alive: something of the backend (a list, a "
            "dict, a captured graph) refers to them."
        )
    taken = [before - after for before, after in itertools.pairwise(free_bytes)]
    shared = subject.backend.memory().shared_with_host  # others take and give there, too
    if not shared and min(taken) > cache_bytes // 2:
        raise CheckFailure(
            f"memory().free_bytes falls with each engine that is opened and closed: by {taken} "
            f"bytes, where an engine's caches take {cache_bytes}. Their memory is not given back."
        )


def _come_and_go(subject: Subject, caches: list[weakref.ref[Any]]) -> int:
    """Serve one request and close; the bytes of the caches."""
    with subject.engine(
        TINY_MODELS["llama"].config,
        wrap=lambda backend: _Noting(backend, caches),
        max_num_seqs=128,
        max_num_batched_tokens=128,
        kv_cache_memory_bytes=1 << 23,
    ) as loaded:
        generate(loaded, [[1, 2, 3]], greedy(_NUM_TOKENS))
        return loaded.plan.device_bytes


RELEASE = Check(
    section="engine",
    name="release",
    about="an engine that is closed gives its caches back",
    look="backend.close, backend.make_kv, backend.compile: what they keep in lists, dicts, graphs",
    run=_check_release,
)
