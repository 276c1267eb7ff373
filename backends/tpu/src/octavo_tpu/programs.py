"""Compiled functions, and who is told when one is compiled that should have been long ago."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import jax

from octavo.api import BackendError, SamplingBatch, StepBatch
from octavo_tpu.packing import Packed, Packing, pack_inputs, pack_weights

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


class _Inputs(NamedTuple):
    """The packings that a shape consists of."""

    arguments: Packing  # all but what is kept apart here
    sampling: Packing
    place: int | None  # of sampling's settings among the arguments, if they are there


class Program:
    """A step or a part of one, compiled for each shape; its second argument is given away.

    While ``is_serving()``, a shape that has to be compiled is told with a warning: requests wait
    for it. Weights and caches do not change their shapes; what else is given decides. With a
    ``device``, small arrays are packed for it: see ``octavo_tpu.packing``.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        is_serving: Callable[[], bool],
        device: jax.Device | None = None,
    ) -> None:
        self._function = function
        self._name = getattr(function, "__name__", "a step")
        self._is_serving = is_serving
        self._device = device
        self._weights: tuple[Any, Packing, Packed] | None = None
        self._sampling: tuple[SamplingBatch | None, Packing, Packed] | None = None
        self._num_logprobs = {_FEW_LOGPROBS}  # that there are programs with
        self._lock = threading.Lock()
        self._compiled: dict[_Inputs, Future[Any]] = {}

    @property
    def num_compiled(self) -> int:
        """Shapes that there is a program for."""
        return len(self._compiled)

    def __call__(self, *arguments: Any) -> Any:
        """Run; compile first where the shapes are new."""
        inputs, packed = self._inputs(arguments[2:])
        weights, caches = self._packed_weights(arguments[0])[1], arguments[1]
        compiled = self._compiled.get(inputs)
        if compiled is None:
            compiled = self._compile(inputs, arguments[0], caches, packed)
        return compiled.result()(weights, caches, packed)

    def prepare(self, *arguments: Any) -> Any:
        """See ``octavo.api.Preparable``."""
        inputs, packed = self._inputs(arguments[2:])
        compiled = self._compile(inputs, arguments[0], arguments[1], packed).result()
        return jax.tree.map(
            lambda out, sharding: jax.ShapeDtypeStruct(out.shape, out.dtype, sharding=sharding),
            compiled.out_info,
            compiled.output_shardings,
        )

    def release(self) -> None:
        """See ``octavo.api.Preparable``."""
        self._weights = None

    def _inputs(self, arguments: Sequence[Any]) -> tuple[_Inputs, tuple[Packed, Packed]]:
        """What is neither weights nor caches; the settings of sampling often come again."""
        kept: list[Any] = []
        sampling, place = None, None
        for index, argument in enumerate(arguments):
            if isinstance(argument, SamplingBatch):
                sampling, place = argument, index
            elif isinstance(argument, StepBatch):
                kept.append(_without_tables(argument))
            else:
                kept.append(argument)
        packing, packed = pack_inputs(kept)
        known = self._sampling
        if known is None or known[0] is not sampling:
            more = None if sampling is None else _with_more(sampling, self._num_logprobs)
            known = (sampling, *pack_inputs(more))
            self._sampling = known
        return _Inputs(packing, known[1], place), (packed, known[2])

    def _packed_weights(self, weights: Any) -> tuple[Packing, Packed]:
        """Packed once: they are the same for every step."""
        known = self._weights
        if known is None or known[0] is not weights:
            with self._lock:
                packing = pack_weights(weights, self._device)
                known = self._weights = (weights, *packing)
        return known[1:]

    def _compile(
        self, inputs: _Inputs, weights: Any, caches: Any, packed: tuple[Packed, Packed]
    ) -> Future[Any]:
        """Once, whichever thread comes first; others wait for it."""
        with self._lock:
            is_first = inputs not in self._compiled
            compiled = self._compiled.setdefault(inputs, Future())
        if is_first:
            try:
                if self._is_serving():
                    self._tell(inputs)
                kept, packed_weights = self._packed_weights(weights)
                jitted = self._jitted(kept, inputs)
                compiled.set_result(jitted.lower(packed_weights, caches, packed).compile())
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                del self._compiled[inputs]
                compiled.set_exception(error)
        return compiled

    def _jitted(self, weights: Packing, inputs: _Inputs) -> Any:
        def run(packed_weights: Packed, caches: Any, packed: tuple[Packed, Packed]) -> Any:
            arguments = inputs.arguments.unpack(packed[0])
            if inputs.place is not None:
                arguments.insert(inputs.place, inputs.sampling.unpack(packed[1]))
            return self._function(weights.unpack(packed_weights), caches, *arguments)

        run.__name__ = run.__qualname__ = self._name
        return jax.jit(run, donate_argnums=1)

    def _tell(self, inputs: _Inputs) -> None:
        shapes = inputs.arguments.shapes() + inputs.sampling.shapes()
        shown = ", ".join(shapes[:_SHOWN_SHAPES]) + (", …" if len(shapes) > _SHOWN_SHAPES else "")
        said = f"{self._name} is compiled while requests wait, for {shown}."
        if _refusing:
            raise BackendError(said)
        _LOG.warning("%s See token_buckets, seq_buckets and compile_at_start.", said)


def _without_tables(batch: StepBatch) -> StepBatch:
    """Plans have the block tables, in a width that does not change."""
    return dataclasses.replace(batch, groups=())


def _with_more(sampling: SamplingBatch, sizes: set[int]) -> SamplingBatch:
    """For few programs: ``octavo_tpu.sampling`` looks at the rows themselves.

    Of log-probabilities there may be more than were asked for, as many as one of ``sizes``, which
    grows; and where logits are adjusted there always are some: they cost less than a program.
    """
    num_logprobs = max(sampling.num_logprobs, -1 if sampling.plain else 0)
    if num_logprobs >= 0:
        enough = [size for size in tuple(sizes) if size >= num_logprobs]
        num_logprobs = min(enough, default=1 << max(num_logprobs - 1, 0).bit_length())
        sizes.add(num_logprobs)
    return dataclasses.replace(
        sampling, all_greedy=False, truncated=True, num_logprobs=num_logprobs
    )
