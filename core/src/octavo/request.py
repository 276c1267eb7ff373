"""One generation request as the scheduler sees it: tokens, progress, and the blocks it holds."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum, StrEnum

__all__ = ["FinishReason", "Request", "RequestStatus"]


class RequestStatus(Enum):
    """Where a request stands; a preempted one is WAITING (recompute) or SWAPPED."""

    WAITING = "waiting"
    RUNNING = "running"
    SWAPPED = "swapped"
    FINISHED = "finished"


class FinishReason(StrEnum):
    """Why a request ended, in the words of the OpenAI API where it has them."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"


@dataclass(slots=True, eq=False)
class Request:
    """What the caller asks for, then what the scheduler keeps about it.

    The engine appends sampled tokens to ``output_token_ids``; it writes nothing else here.
    """

    request_id: str
    prompt_token_ids: list[int] = field(repr=False)
    max_tokens: int
    output_token_ids: list[int] = field(default_factory=list, repr=False)
    priority: int = 0
    """Lower runs first; looked at under the policy "priority" only."""
    cache_salt: Hashable | None = None
    """All that changes the KV besides the tokens: salt, LoRA id, hashes of images, ..."""
    use_prefix_cache: bool = True
    """False where every prompt position must be computed (prompt_logprobs)."""
    max_chunk_tokens: int | None = None
    """Upper limit on the tokens of one step; None leaves it to the scheduler."""

    # From here on the scheduler writes, and others read.
    arrival: int = -1
    status: RequestStatus = RequestStatus.WAITING
    finish_reason: FinishReason | None = None
    row: int = -1
    """Row in the engine's tables, 0..max_num_seqs-1; -1 while it does not run."""
    num_computed_tokens: int = 0
    """Leading tokens whose KV is stored (on the device, or on the host while SWAPPED)."""
    num_cached_tokens: int = 0
    """Tokens that the prefix cache gave when the request first ran."""
    num_preemptions: int = 0
    first_run_time_s: float | None = None
    """When it left the queue, in seconds of ``time.monotonic``; None while it waits."""
    num_sampling: int = 0
    """1 while a step is planned behind the one that samples its next token, which is not known."""
    is_prefilling: bool = True
    """Until the step that reaches the last known token; then the request decodes."""
    blocks: list[list[int]] = field(default_factory=list, repr=False)
    """Block table per KV group; entry i holds positions [i, i + 1) * block_size, 0 if freed."""

    # The scheduler's own bookkeeping.
    rank: tuple[int, int, int] = (0, 0, 0)
    """(priority, arrival, serial): lower runs first, higher is preempted first."""
    writable_tokens: int = 0
    """Positions below this may be written without block work; 0 forces a look at the tail."""
    window_starts: list[int] = field(default_factory=list, repr=False)
    """Per group: leading table entries that were freed behind the window (or never held)."""
    host_blocks: list[list[int]] = field(default_factory=list, repr=False)
    """Per group, while SWAPPED: host blocks of the table entries from ``window_starts`` on."""
    block_hashes: list[bytes] = field(default_factory=list, repr=False)
    """Chained hashes of the leading full blocks, as far as they were needed."""
    register_at: int = 0
    """Number of computed tokens at which the next full block enters the prefix cache."""

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens the caller gave."""
        return len(self.prompt_token_ids)

    @property
    def num_output_tokens(self) -> int:
        """Tokens generated so far."""
        return len(self.output_token_ids)

    @property
    def num_tokens(self) -> int:
        """Prompt and output so far."""
        return len(self.prompt_token_ids) + len(self.output_token_ids)

    @property
    def is_finished(self) -> bool:
        """It ended, and holds nothing."""
        return self.status is RequestStatus.FINISHED

    def token_ids(self, start: int, end: int) -> list[int]:
        """Tokens at positions [start, end) of prompt and output."""
        num_prompt_tokens = len(self.prompt_token_ids)
        if end <= num_prompt_tokens:
            return self.prompt_token_ids[start:end]
        output = self.output_token_ids[max(start - num_prompt_tokens, 0) : end - num_prompt_tokens]
        if start >= num_prompt_tokens:
            return output
        return self.prompt_token_ids[start:] + output
