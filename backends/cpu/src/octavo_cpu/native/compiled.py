"""A function that is recorded when it is called, and replayed from then on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from octavo_cpu.native.arguments import listed, traced
from octavo_cpu.native.program import Program
from octavo_cpu.native.recording import Recording
from octavo_cpu.native.results import Results
from octavo_cpu.native.rows import NothingToRecord, Untraceable
from octavo_cpu.native.traced import Traced

if TYPE_CHECKING:
    from octavo_cpu.native.library import Context

__all__ = ["CompiledFunction"]

_LOGGER = logging.getLogger(__name__)
_MAX_RECORDINGS = 8
_MAX_IN_A_ROW = 32  # a function that is recorded at every call had better run as it is
_MAX_ERRORS = 2  # in a row while it is recorded; a single one may be memory that was short

Arrays = list[NDArray[Any]]


@dataclass
class _Recorded:
    """One recording, and what it is good for."""

    weights: Any
    caches: Any
    key: Hashable
    program: Program
    results: Results
    lengths: dict[str, int]
    """Name of a number of rows → the argument whose length it is."""

    def serves(self, weights: Any, caches: Any, key: Hashable, arrays: Arrays) -> bool:
        """Whether a call may be answered with it."""
        if weights is not self.weights or not self._knows(caches) or key != self.key:
            return False
        bound = self.program.bound
        return all(len(arrays[self.lengths[name]]) == number for name, number in bound.items())

    def _knows(self, caches: Any) -> bool:
        """The very caches, in this tuple or in another."""
        if caches is self.caches:
            return True
        if not (isinstance(caches, tuple) and isinstance(self.caches, tuple)):
            return False
        if len(caches) != len(self.caches):
            return False
        if any(one is not other for one, other in zip(caches, self.caches, strict=True)):
            return False
        self.caches = caches
        return True

    def run(self, arrays: Arrays) -> Any:
        numbers = tuple([len(arrays[index]) for index in self.lengths.values()])
        return self.results.build(self.program.run(arrays, numbers))


class CompiledFunction:
    """``function(weights, caches, *arguments)`` in one call of the kernels, where that can be.

    Weights and caches are taken for constant: others make another recording. What cannot be told
    in instructions runs as it is, op by op.
    """

    def __init__(self, context: Context, function: Callable[..., Any]) -> None:
        self._context = context
        self._function = function
        self._recorded: list[_Recorded] = []  # the last used first
        self._num_in_a_row = 0
        self._num_errors = 0
        self.is_eager = False
        """Whether the function runs as it is, for good."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """The function's result. Raises what it raises, and BackendError if memory runs out."""
        if self.is_eager or options or len(arguments) < 3 or _have_no_constants(arguments):
            return self._function(*arguments, **options)
        arrays: Arrays = []
        key = listed(arguments[2:], arrays)
        recorded = self._find(arguments[0], arguments[1], key, arrays)
        if recorded is not None:
            self._num_in_a_row = 0
            return recorded.run(arrays)
        try:
            recorded = self._record(arguments, key)
        except NothingToRecord as reason:
            self._give_up(str(reason), logging.DEBUG)
            return self._function(*arguments)
        except Untraceable as reason:
            self._give_up(str(reason))
            return self._function(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever model code does to what is no array
            result = self._function(*arguments)  # raises it again if it is the function's own
            self._num_errors += 1
            if self._num_errors == _MAX_ERRORS:
                self._give_up(f"recording it raised {type(error).__name__}: {error}")
            return result
        self._keep(recorded)
        return recorded.run(arrays)

    @property
    def programs(self) -> list[Program]:
        """What was recorded and is kept, the last used first."""
        return [recorded.program for recorded in self._recorded]

    def _find(self, weights: Any, caches: Any, key: Hashable, arrays: Arrays) -> _Recorded | None:
        for index, recorded in enumerate(self._recorded):
            if recorded.serves(weights, caches, key, arrays):
                if index:
                    self._recorded.insert(0, self._recorded.pop(index))
                return recorded
        return None

    def _keep(self, recorded: _Recorded) -> None:
        self._num_errors = 0
        self._recorded.insert(0, recorded)
        del self._recorded[_MAX_RECORDINGS:]
        self._num_in_a_row += 1
        if self._num_in_a_row > _MAX_IN_A_ROW:
            self._give_up("every call of it differs in more than its numbers of rows")

    def _give_up(self, reason: str, level: int = logging.WARNING) -> None:
        self.is_eager = True
        self._recorded.clear()
        name = getattr(self._function, "__qualname__", repr(self._function))
        _LOGGER.log(level, "%s is computed op by op, not recorded: %s.", name, reason)

    def _record(self, arguments: tuple[Any, ...], key: Hashable) -> _Recorded:
        """Call the function with symbolic arrays. Raises Untraceable, or what it raises."""
        recording = Recording()
        lengths: dict[str, int] = {}
        num_arrays = 0

        def symbolic(array: NDArray[Any], rows: str | None) -> Traced:
            nonlocal num_arrays
            index, num_arrays = num_arrays, num_arrays + 1
            if rows is not None:
                lengths.setdefault(rows, index)
            return recording.argument(index, array.shape, array.dtype, rows)

        weights, caches, *others = arguments
        returned = self._function(weights, caches, *traced(tuple(others), symbolic))
        results = Results(recording, returned)
        if not recording.code:
            raise NothingToRecord("it calls no op")
        used = {buffer.rows for buffer in recording.buffers} | set(recording.open_sizes)
        used |= set(recording.bound)
        lengths = {name: index for name, index in lengths.items() if name in used}
        program = Program(self._context, recording, results.arrays, tuple(lengths))
        return _Recorded(weights, caches, key, program, results, lengths)


def _have_no_constants(arguments: tuple[Any, ...]) -> bool:
    """A part of a step without weights and caches: sampling, which no instruction repeats."""
    return all(isinstance(constant, tuple) and not constant for constant in arguments[:2])
