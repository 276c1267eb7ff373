"""What the checks of paging share: their tables over dtypes, and how they compare two readings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from octavo.testing.check import Case, Check, CheckFailure
from octavo.testing.manual_cache import CacheShape, Floats
from octavo.testing.paged_step import DTYPES
from octavo.testing.tolerances import tolerance_of

if TYPE_CHECKING:
    from octavo.testing.subject import Subject

__all__ = [
    "Scenario",
    "first_blocks",
    "paging_check",
    "require_exact",
    "require_same",
    "require_stored",
]

Scenario = Callable[["Subject", CacheShape], None]
_SMALLEST_BLOCK = 4  # where there is a choice: small blocks have many edges
_OTHER_BLOCKS = range(2, 33)


@dataclass(frozen=True)
class _Run:
    """One row of a table: what to do, with caches of what shape."""

    scenario: Scenario
    shape: CacheShape


def paging_check(
    name: str,
    about: str,
    look: str,
    scenarios: Mapping[str, Scenario],
    unclaimed: Callable[[Subject], str | None] = lambda _subject: None,
    *,
    large: Mapping[str, Scenario] | None = None,
) -> Check:
    """A check over scenarios; at the full level in other block sizes and dtypes too.

    Those that are ``large`` run at the full level alone, in caches of one shape.
    """

    def cases(subject: Subject) -> Iterator[Case]:
        refusal = unclaimed(subject)
        first, *others = _shapes(subject)
        for label, scenario in scenarios.items():
            yield Case(label, _Run(scenario, first), refusal)
        for label, scenario in (large or {}).items():
            yield Case(label, _Run(scenario, first), refusal, quick=False)
        for shape in others:
            suffix = f"block_size={shape.block_size} {shape.dtype} kv={shape.kv_dtype}"
            for label, scenario in scenarios.items():
                yield Case(f"{label} {suffix}", _Run(scenario, shape), refusal, quick=False)

    def run(subject: Subject, case: _Run) -> None:
        case.scenario(subject, case.shape)

    return Check("paging", name, about, look, run, cases)


def _shapes(subject: Subject) -> list[CacheShape]:
    """What is preferred, in small blocks; then everything else that is claimed, one at a time."""
    caps = subject.caps
    enough = [size for size in caps.block_sizes if size >= _SMALLEST_BLOCK]
    first = CacheShape(
        min(enough) if enough else max(caps.block_sizes), caps.dtypes[0], caps.kv_dtypes[0]
    )
    sizes = [size for size in caps.block_sizes if size in _OTHER_BLOCKS]
    return [
        first,
        *(replace(first, block_size=size) for size in sizes if size != first.block_size),
        *(replace(first, dtype=dtype) for dtype in caps.dtypes[1:]),
        *(replace(first, kv_dtype=kv_dtype) for kv_dtype in caps.kv_dtypes[1:]),
    ]


def first_blocks(start: int, count: int) -> tuple[int, ...]:
    """``count`` blocks one after the other."""
    return tuple(range(start, start + count))


def require_exact(what: str, found: Sequence[Floats], expected: Sequence[Floats]) -> None:
    """Raise CheckFailure unless every sequence reads the same bit for bit."""
    for seq, (result, wanted) in enumerate(zip(found, expected, strict=True)):
        _require_numbers(what, seq, result)
        wrong = np.flatnonzero((result != wanted).any(axis=(1, 2)))
        if len(wrong):
            raise CheckFailure(_difference(what, seq, wrong, result, wanted))


def require_same(
    subject: Subject,
    shape: CacheShape,
    what: str,
    found: Sequence[Floats],
    expected: Sequence[Floats],
) -> None:
    """Raise CheckFailure unless every sequence reads the same.

    Bit for bit where caps.batch_invariant is claimed, else within the dtypes' tolerance.
    """
    bounds = tolerance_of(shape.dtype, shape.kv_dtype)
    for seq, (result, wanted) in enumerate(zip(found, expected, strict=True)):
        _require_numbers(what, seq, result)
        values, target = result.astype(np.float64), wanted.astype(np.float64)
        allowed = bounds.absolute + bounds.relative * np.abs(target)
        wrong = np.flatnonzero((np.abs(values - target) > allowed).any(axis=(1, 2)))
        if len(wrong):
            raise CheckFailure(_difference(what, seq, wrong, result, wanted))
        inexact = np.flatnonzero((result != wanted).any(axis=(1, 2)))
        if subject.caps.batch_invariant and len(inexact):
            raise CheckFailure(
                "caps.batch_invariant is claimed, but "
                + _difference(f"to the last bit, {what}", seq, inexact, result, wanted),
                look="caps.batch_invariant, ops.paged_attention",
            )


def require_stored(
    subject: Subject,
    shape: CacheShape,
    what: str,
    found: Sequence[Floats],
    expected: Sequence[Floats],
) -> None:
    """Raise CheckFailure unless values looked up are the same, written in other steps.

    Bit for bit in a cache that stores them as they are; one of fewer bits may scale a block by what
    came first.
    """
    if shape.kv_dtype in DTYPES:
        require_exact(what, found, expected)
    else:
        require_same(subject, shape, what, found, expected)


def _require_numbers(what: str, seq: int, result: Floats) -> None:
    lost = np.flatnonzero(~np.isfinite(result.astype(np.float64)).all(axis=(1, 2)))
    if len(lost):
        raise CheckFailure(
            f"{what}: NaN or infinity in the attention of sequence {seq}, tokens {lost.tolist()}. "
            "It comes from a slot that was not written, or that belongs to nobody, or from a "
            "padded token; a weight of zero does not keep NaN out."
        )


def _difference(
    what: str, seq: int, wrong: NDArray[np.intp], result: Floats, wanted: Floats
) -> str:
    token = int(wrong[0])
    return (
        f"{what}: sequence {seq} reads otherwise at tokens {wrong.tolist()}. Token {token} starts "
        f"{result[token, 0, :3].tolist()}; expected {wanted[token, 0, :3].tolist()}."
    )
