"""What the first process of several tells the others, so that all of them run the same steps."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from octavo.errors import UsageError

if TYPE_CHECKING:
    from octavo.backend import Backend, ProcessGroup
    from octavo.batch import StepBatch
    from octavo.cache_plan import CachePlan
    from octavo.ops.protocol import SamplingBatch

__all__ = ["Relay", "follower_of", "leader_of"]

Pairs = Sequence[Sequence[tuple[int, int]]]


class Relay:
    """The messages between the processes of a group, in order; none of them holds a token's text.

    They are pickled: whoever can speak for the first process can run code in all others, as is so
    for whatever else the processes of a group exchange.
    """

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group

    def plan(self, plan: CachePlan, max_logprobs: int) -> None:
        """Once: the sizes of the caches, and the number of log-probabilities of prompts."""
        self._send("plan", plan, max_logprobs)

    def step(self, batch: StepBatch, sampling: SamplingBatch, targets: Any) -> None:
        """A step on the host, padded."""
        self._send("step", batch, sampling, targets)

    def copy(self, pairs: Pairs) -> None:
        """Blocks to copy in each KV group, before the next step."""
        self._send("copy", pairs)

    def reset(self) -> None:
        """New caches."""
        self._send("reset")

    def end(self) -> None:
        """There is nothing to come."""
        self._send("end")

    def _send(self, *message: Any) -> None:
        self._group.send(pickle.dumps(message))

    def messages(self) -> Iterator[tuple[Any, ...]]:
        """In the other processes: what the first one says, up to its end."""
        while True:
            message = pickle.loads(self._group.receive())  # noqa: S301 - see above
            if message[0] == "end":
                return
            yield message


def leader_of(backend: Backend) -> Relay | None:
    """In the first process of several; None where one process has all devices.

    Raises UsageError in the others, which follow.
    """
    group: Any = backend
    if getattr(backend, "num_processes", 1) == 1:
        return None
    if group.process_index:
        raise UsageError(
            f"This is process {group.process_index} of {group.num_processes}: the first one, "
            "process 0, takes requests. Start `octavo follow` here, with the same options."
        )
    return Relay(group)


def follower_of(backend: Backend) -> Relay:
    """In the others; raises UsageError in the first one, and where there is no other."""
    group: Any = backend
    if not getattr(backend, "process_index", 0):
        raise UsageError(
            "There is no process to follow from here: octavo follow is for all processes of a "
            "group but the first, which runs serve or generate."
        )
    return Relay(group)
