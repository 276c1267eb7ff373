"""The hook by which a request may restrict its next token; structured output is built on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["MaskBatch", "TokenMask", "allowed_tokens"]


class TokenMask(ABC):
    """State of one answer: which tokens may come next.

    It advances with the answer's tokens and with nothing else: a step that is run again asks again,
    and gets the same mask.
    """

    @abstractmethod
    def allowed(self) -> NDArray[np.bool_] | None:
        """bool[vocab_size], True = allowed; None allows every token."""

    @abstractmethod
    def accept(self, token_id: int) -> None:
        """The token that was sampled."""

    @abstractmethod
    def fork(self) -> Any:
        """An independent copy, for another answer to the same prompt."""

    @property
    def batch(self) -> MaskBatch | None:
        """What computes many masks of this kind at once; None: each is asked for ``allowed``."""
        return None

    @property
    def is_finished(self) -> bool:
        """Nothing may follow the last token: the answer ends with it."""
        return False

    @property
    def may_end(self) -> bool:
        """The answer may end here; it does where the request's other options leave no token."""
        return False

    @property
    def failure(self) -> str | None:
        """Why no token can be allowed any more; the request ends with it."""
        return None


class MaskBatch(Protocol):
    """Computes the masks of many answers at once."""

    def compute(self, masks: Sequence[TokenMask]) -> NDArray[np.bool_]:
        """bool[masks, vocab_size], a new array; no mask occurs twice."""
        ...


def allowed_tokens(masks: Sequence[TokenMask | None], vocab_size: int) -> NDArray[np.bool_] | None:
    """bool[masks, vocab_size], a new array; None where nothing is restricted.

    A mask may occur more than once: n answers begin as one. It looks at nothing but the masks, so
    it may run on any thread, and while the device computes the logits.
    """
    places: dict[TokenMask, list[int]] = {}
    for place, mask in enumerate(masks):
        if mask is not None:
            places.setdefault(mask, []).append(place)
    if not places:
        return None
    computed = _compute(places)
    if len(computed) == 1 and len(places) == len(masks) and computed[0][1] is not None:
        return computed[0][1]  # one for each place, in order
    table = np.ones((len(masks), vocab_size), np.bool_)
    for members, rows in computed:
        if rows is not None:
            for row, mask in zip(rows, members, strict=True):
                table[places[mask]] = row
    return table


def _compute(
    masks: Iterable[TokenMask],
) -> list[tuple[list[TokenMask], NDArray[np.bool_] | None]]:
    """Masks and their rows, batch by batch; no rows where a mask allows everything."""
    batches: dict[MaskBatch, list[TokenMask]] = {}
    computed: list[tuple[list[TokenMask], NDArray[np.bool_] | None]] = []
    for mask in masks:
        if mask.batch is None:
            allowed = mask.allowed()
            computed.append(([mask], None if allowed is None else allowed.copy()[None]))
        else:
            batches.setdefault(mask.batch, []).append(mask)
    return computed + [(members, batch.compute(members)) for batch, members in batches.items()]
