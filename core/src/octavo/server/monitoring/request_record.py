"""What is known of one HTTP request while it runs: for the log line, for metrics, for spans."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from octavo.server.monitoring.request_metrics import RequestFigures

__all__ = ["RequestRecord", "current_record", "no_record", "recording"]


@dataclass
class RequestRecord:
    """One request's figures; never its prompt, its answer or its key."""

    request_id: str
    method: str = ""
    path: str = ""
    """Without the query; what it holds is the client's."""
    started_s: float = field(default_factory=time.monotonic)
    status: int | None = None
    """None: the client left before there was an answer."""
    model: str | None = None
    figures: RequestFigures | None = None
    """Where the model's requests are counted."""
    num_prompt_tokens: int | None = None
    num_completion_tokens: int | None = None
    first_token_s: float | None = None
    finish_reasons: list[str] = field(default_factory=list)
    error: str | None = None
    """Why the request was ended before its time."""

    def note_prompt(self, num_prompt_tokens: int) -> None:
        """Count the tokens of a prompt that an engine has taken."""
        self.num_prompt_tokens = (self.num_prompt_tokens or 0) + num_prompt_tokens

    def note_tokens(self, num_tokens: int) -> None:
        """Count tokens of an answer as they arrive."""
        if num_tokens and self.first_token_s is None:
            self.first_token_s = time.monotonic()
        self.num_completion_tokens = (self.num_completion_tokens or 0) + num_tokens

    @property
    def time_to_first_token_s(self) -> float | None:
        """From the request's arrival; None if there was no token."""
        return None if self.first_token_s is None else self.first_token_s - self.started_s

    @property
    def duration_s(self) -> float:
        """From the request's arrival until now."""
        return time.monotonic() - self.started_s


# A context variable, not an argument: what generates is called from every interface, and only the
# log, the metrics and the spans want to know.
recording: ContextVar[RequestRecord | None] = ContextVar("octavo_request_record", default=None)


def no_record() -> RequestRecord:
    """A record that nobody reads."""
    return RequestRecord("")


def current_record() -> RequestRecord:
    """The record of the request that is being handled; outside of any, one that nobody reads."""
    return recording.get() or no_record()
