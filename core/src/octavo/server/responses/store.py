"""Responses that are kept in memory, to be fetched again and to go on from."""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from octavo.server.errors import ApiError

if TYPE_CHECKING:
    from octavo.server.responses.event_log import EventLog
    from octavo.server.responses.items import Item

__all__ = ["ResponseStore", "StoredResponse"]

MIB = 1 << 20


@dataclass
class StoredResponse:
    """A response and the conversation that led to it."""

    response: dict[str, Any]
    earlier_items: tuple[Item, ...]
    """Of the responses before, the oldest first."""
    input_items: tuple[Item, ...]
    log: EventLog | None = None
    """Of a response in the background that is streamed."""
    task: asyncio.Task[None] | None = None
    """Makes a response in the background, until it has ended."""
    created_s: float = field(default_factory=time.monotonic)
    num_bytes: int = 0

    @property
    def id(self) -> str:
        """The response's id."""
        return str(self.response["id"])

    @property
    def has_ended(self) -> bool:
        """Whether the response will change no more."""
        return self.response["status"] not in ("queued", "in_progress")

    @property
    def conversation(self) -> tuple[Item, ...]:
        """Everything said so far, the answer included."""
        return (*self.earlier_items, *self.input_items, *self.response["output"])

    def measure(self) -> int:
        """About the memory that this response holds, in bytes of JSON.

        A long conversation counts for each of its responses: any of them keeps it alive.
        """
        parts = (self.response, self.earlier_items, self.input_items)
        num_log_bytes = self.log.num_bytes if self.log is not None else 0
        return num_log_bytes + sum(len(json.dumps(part)) for part in parts)


class ResponseStore:
    """The latest responses; the oldest that have ended go first. Belongs to one event loop.

    Whatever is kept is gone when the server stops. Ids cannot be guessed; who knows one may read
    the response, with any of the server's keys.
    """

    def __init__(
        self,
        max_responses: int = 4096,
        max_bytes: int = 256 * MIB,
        max_age_s: float = 24 * 3600.0,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._now_s = now_s
        self._responses: OrderedDict[str, StoredResponse] = OrderedDict()
        self._item_owners: dict[str, str] = {}
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._responses)

    def __contains__(self, response_id: str) -> bool:
        return response_id in self._responses

    def put(self, stored: StoredResponse) -> None:
        """Keep a response; call ``settle`` once it has ended."""
        stored.created_s = self._now_s()
        self._responses[stored.id] = stored
        self._take_size(stored)
        self._make_room()

    def settle(self, stored: StoredResponse) -> None:
        """Take note that a response has ended: its size, and the items that can be referred to."""
        stored.task = None
        if self._responses.get(stored.id) is not stored:
            return
        self._take_size(stored)
        for item in (*stored.input_items, *stored.response["output"]):
            self._item_owners[item["id"]] = stored.id
        self._make_room()

    def get(self, response_id: str, param: str | None = None) -> StoredResponse:
        """The response of an id; raises ApiError 404."""
        self._drop_old()
        stored = self._responses.get(response_id)
        if stored is None:
            raise ApiError(
                f"Response with id {response_id!r:.100} not found: it was not stored, it was "
                "deleted, or it had to make room.",
                status=404 if param is None else 400,
                param=param,
                code=None if param is None else "previous_response_not_found",
            )
        return stored

    def item(self, item_id: str) -> Item | None:
        """An item of any response here."""
        stored = self._responses.get(self._item_owners.get(item_id, ""))
        if stored is None:
            return None
        items = (*stored.input_items, *stored.response["output"])
        return next((item for item in items if item["id"] == item_id), None)

    def discard(self, response_id: str) -> None:
        """Forget a response; one that is not there is fine."""
        stored = self._responses.pop(response_id, None)
        if stored is None:
            return
        self.num_bytes -= stored.num_bytes
        for item in (*stored.input_items, *stored.response["output"]):
            if self._item_owners.get(item["id"]) == response_id:
                del self._item_owners[item["id"]]

    def _take_size(self, stored: StoredResponse) -> None:
        self.num_bytes -= stored.num_bytes
        stored.num_bytes = stored.measure()
        self.num_bytes += stored.num_bytes

    def _make_room(self) -> None:
        self._drop_old()
        for response_id in [key for key, stored in self._responses.items() if stored.has_ended]:
            if len(self._responses) <= self._max_responses and self.num_bytes <= self._max_bytes:
                return
            self.discard(response_id)

    def _drop_old(self) -> None:
        oldest_s = self._now_s() - self._max_age_s
        old: list[str] = []
        for response_id, stored in self._responses.items():
            if stored.created_s > oldest_s:
                break
            if stored.has_ended:
                old.append(response_id)
        for response_id in old:
            self.discard(response_id)
