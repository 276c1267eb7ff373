"""Requests in the order they run: lowest rank first."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from operator import attrgetter

from octavo.request import Request

__all__ = ["RankedList"]

_rank = attrgetter("rank")


class RankedList:
    """A list sorted by ``Request.rank``; ranks are unique and fixed while a request is inside.

    Entries behind the current one may be removed while iterating.
    """

    def __init__(self) -> None:
        self._requests: list[Request] = []

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests)

    @property
    def first(self) -> Request | None:
        """The next to run."""
        return self._requests[0] if self._requests else None

    @property
    def last(self) -> Request:
        """The first to be preempted; raises IndexError when empty."""
        return self._requests[-1]

    def add(self, request: Request) -> None:
        """Insert by rank."""
        insort(self._requests, request, key=_rank)

    def remove(self, request: Request) -> None:
        """Take out a request that is inside."""
        index = bisect_left(self._requests, request.rank, key=_rank)
        if index == len(self._requests) or self._requests[index] is not request:
            raise ValueError(f"{request.request_id!r} with rank {request.rank} is not in the list")
        del self._requests[index]
