"""Compiled functions, and who is told when one is compiled that should have been long ago."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from typing import Any

import jax

from octavo.api import BackendError, SamplingBatch, StepBatch

__all__ = ["Program", "compilation_is_an_error"]

_LOG = logging.getLogger(__name__)
_SHOWN_SHAPES = 8
_FEW_LOGPROBS = 32
_refusing: list[None] = []  # who is within compilation_is_an_error, of all threads


@contextlib.contextmanager
def compilation_is_an_error() -> Iterator[None]:
    """Within, a Program that serves raises BackendError in place of compiling."""
    _refusing.append(None)
    try:
        yield
    finally:
        _refusing.pop()


class Program:
    """A step or a part of one, compiled for each shape; its second argument is given away.

    While ``is_serving()``, a shape that has to be compiled is told with a warning: requests wait
    for it. Weights and caches do not change their shapes; what else is given decides.
    """

    def __init__(self, function: Callable[..., Any], is_serving: Callable[[], bool]) -> None:
        self._name = getattr(function, "__name__", "a step")
        self._jitted: Any = jax.jit(function, donate_argnums=1)
        self._is_serving = is_serving
        self._lock = threading.Lock()
        self._compiled: dict[Hashable, Future[Any]] = {}

    @property
    def num_compiled(self) -> int:
        """Shapes that there is a program for."""
        return len(self._compiled)

    def __call__(self, *arguments: Any) -> Any:
        """Run; compile first where the shapes are new."""
        arguments = tuple(map(_of_few_kinds, arguments))
        return self._of(arguments)(*arguments)

    def prepare(self, *arguments: Any) -> Any:
        """See ``octavo.api.Preparable``."""
        compiled = self._of(tuple(map(_of_few_kinds, arguments)))
        return jax.tree.map(
            lambda out, sharding: jax.ShapeDtypeStruct(out.shape, out.dtype, sharding=sharding),
            compiled.out_info,
            compiled.output_shardings,
        )

    def _of(self, arguments: tuple[Any, ...]) -> Any:
        leaves, structure = jax.tree.flatten(arguments[2:])
        key = (structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        compiled = self._compiled.get(key)
        return self._compile(key, leaves, arguments) if compiled is None else compiled.result()

    def _compile(self, key: Hashable, leaves: list[Any], arguments: tuple[Any, ...]) -> Any:
        """Once, whichever thread comes first; others wait for it."""
        if self._is_serving():
            self._tell(leaves)
        with self._lock:
            is_first = key not in self._compiled
            compiled = self._compiled.setdefault(key, Future())
        if is_first:
            try:
                compiled.set_result(self._jitted.lower(*arguments).compile())
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                del self._compiled[key]
                compiled.set_exception(error)
        return compiled.result()

    def _tell(self, leaves: list[Any]) -> None:
        shapes = ", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in leaves[:_SHOWN_SHAPES])
        more = ", …" if len(leaves) > _SHOWN_SHAPES else ""
        said = f"{self._name} is compiled while requests wait, for {shapes}{more}."
        if _refusing:
            raise BackendError(said)
        _LOG.warning("%s See token_buckets, seq_buckets and compile_at_start.", said)


def _of_few_kinds(argument: Any) -> Any:
    """Without what would make another program of it and is not needed, or is found out as it runs.

    Plans have the block tables, in a width that does not change. ``octavo_tpu.sampling`` looks at
    the rows themselves. Of log-probabilities there may be more than were asked for, and where
    logits are adjusted there always are some: they cost less than another program.
    """
    if isinstance(argument, StepBatch):
        return dataclasses.replace(argument, groups=())
    if isinstance(argument, SamplingBatch):
        least = -1 if argument.plain else 0
        num_logprobs = _rounded(max(argument.num_logprobs, least))
        return dataclasses.replace(
            argument, all_greedy=False, truncated=True, num_logprobs=num_logprobs
        )
    return argument


def _rounded(num_logprobs: int) -> int:
    if num_logprobs <= _FEW_LOGPROBS:
        return min(num_logprobs, 0) or _FEW_LOGPROBS
    return int(1 << (num_logprobs - 1).bit_length())
