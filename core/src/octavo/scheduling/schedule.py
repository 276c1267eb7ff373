"""What one step does, as the scheduler hands it to the engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from octavo.request import Request

__all__ = ["BlockPairs", "Schedule", "TableUpdate"]

BlockPairs: TypeAlias = list[tuple[int, int]]
"""(from, to) block ids."""

TableUpdate: TypeAlias = tuple[int, int, int, list[int]]
"""(row, group, start index, block ids): write the ids into the row's table from the index on."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """One step. On the device: ``swap_out``, then ``swap_in``, then ``copies``, then the forward.

    Request i computes positions [c, c + num_tokens[i]) with c its num_computed_tokens; it samples
    if that reaches its last known token. Decodes come first, then prefill chunks.
    """

    requests: list[Request]
    num_tokens: list[int]
    num_decodes: int
    """The first so many of ``requests`` decode."""
    copies: list[BlockPairs]
    """Per group: device blocks to copy before the step (copy-on-write)."""
    swap_out: list[BlockPairs]
    """Per group: (device, host)."""
    swap_in: list[BlockPairs]
    """Per group: (host, device)."""
    table_updates: list[TableUpdate]
    """In this order, all changes of block tables since the last schedule."""
    new_requests: list[Request] = field(default_factory=list)
    """Requests that got a row since the last schedule: started, resumed or forked."""

    @property
    def is_empty(self) -> bool:
        """Nothing to run, move or note."""
        return not (
            self.requests
            or self.table_updates
            or any(self.copies)
            or any(self.swap_out)
            or any(self.swap_in)
        )
