"""Where every unfinished request stands: waiting, swapped or running, and in which row."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count

from octavo.errors import UsageError
from octavo.request import FinishReason, Request, RequestStatus
from octavo.scheduling.ranked_list import RankedList

__all__ = ["Roster"]


class Roster:
    """Three lists by rank, and the rows of those that run."""

    def __init__(self, max_num_seqs: int, *, use_priority: bool) -> None:
        self.by_id: dict[str, Request] = {}
        self.waiting = RankedList()
        self.swapped = RankedList()
        self.running = RankedList()
        self.free_rows = list(range(max_num_seqs))  # a heap: low rows first keeps tables dense
        self.max_running = max_num_seqs  # fewer where larger steps fail
        self.new_requests: list[Request] = []
        """Got a row since the last schedule."""
        self._use_priority = use_priority
        self._arrivals = count()
        self._serials = count()

    def check_new(self, request: Request) -> None:
        """Raise UsageError if the request has been here before, or its id is taken."""
        if request.request_id in self.by_id:
            raise UsageError(
                f"request id {request.request_id!r} is in use; give every request its own"
            )
        if request.arrival >= 0:
            raise UsageError(
                f"request {request.request_id!r} was scheduled before; make a new Request object"
            )

    def enter(self, request: Request, behind: Request | None = None) -> None:
        """Rank a new request by its arrival, or right behind another."""
        request.arrival = next(self._arrivals) if behind is None else behind.arrival
        priority = request.priority if self._use_priority else 0
        request.rank = (priority, request.arrival, next(self._serials))
        request.status = RequestStatus.WAITING
        self.by_id[request.request_id] = request

    def next_queued(self) -> Request | None:
        """The first of those that wait or are swapped."""
        waiting, swapped = self.waiting.first, self.swapped.first
        if waiting is None or swapped is None:
            return waiting or swapped
        return min(waiting, swapped, key=lambda request: request.rank)

    @property
    def has_room(self) -> bool:
        """One more may run."""
        return bool(self.free_rows) and len(self.running) < self.max_running

    @property
    def num_queued(self) -> int:
        """Requests that want to run and do not."""
        return len(self.waiting) + len(self.swapped)

    def list_of(self, request: Request) -> RankedList:
        """The list that a request of this status is in."""
        if request.status is RequestStatus.RUNNING:
            return self.running
        return self.swapped if request.status is RequestStatus.SWAPPED else self.waiting

    def queue(self, request: Request, status: RequestStatus) -> None:
        """Put a request that is in no list to those that wait or are swapped."""
        request.status = status
        self.list_of(request).add(request)

    def start(self, request: Request) -> None:
        """Give a row to a request that is in no list."""
        request.row = heappop(self.free_rows)
        request.status = RequestStatus.RUNNING
        self.running.add(request)
        self.new_requests.append(request)

    def leave(self, request: Request) -> None:
        """Take a request out of its list, and its row from it."""
        self.list_of(request).remove(request)
        if request.row >= 0:
            heappush(self.free_rows, request.row)
            request.row = -1

    def finish(self, request: Request, reason: FinishReason) -> None:
        """Forget a request."""
        self.leave(request)
        del self.by_id[request.request_id]
        request.status = RequestStatus.FINISHED
        request.finish_reason = reason

    def take_new_requests(self) -> list[Request]:
        """Those that got a row since the last call and still have it."""
        new_requests = [request for request in self.new_requests if request.row >= 0]
        self.new_requests = []
        return new_requests
