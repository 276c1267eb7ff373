"""The HTTP requests under way, so that a server that stops can end them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

__all__ = ["RunningRequests"]


@dataclass
class RunningRequests:
    """The time limits of all requests under way; moving one to now ends its request."""

    limits: set[asyncio.Timeout] = field(default_factory=set)

    def end_all(self) -> None:
        """End every request; each is answered, or its stream closed, with an error."""
        now = asyncio.get_running_loop().time()
        for limit in self.limits:
            if not limit.expired():
                limit.reschedule(now)
