"""Can a request ever fit: the arithmetic, and the refusal that shows it."""

from __future__ import annotations

from octavo.block_tables import BlockTables
from octavo.errors import CapacityError, UsageError
from octavo.request import Request
from octavo.scheduling.config import SchedulerConfig

__all__ = ["check_capacity", "smallest_chunk"]


def smallest_chunk(request: Request, num_tokens: int, config: SchedulerConfig) -> int:
    """Fewest tokens that a step may compute when ``num_tokens`` are left."""
    if config.enable_chunked_prefill:
        return min(num_tokens, 1)
    return min(num_tokens, request.max_chunk_tokens or num_tokens)


def check_capacity(request: Request, config: SchedulerConfig, tables: BlockTables) -> None:
    """Raise CapacityError if the request could not run to its end even alone."""
    num_prompt_tokens = len(request.prompt_token_ids)
    if num_prompt_tokens == 0:
        raise UsageError(f"request {request.request_id!r} has an empty prompt; give it a token")
    if request.max_chunk_tokens is not None and request.max_chunk_tokens < 1:
        raise UsageError(
            f"request {request.request_id!r} has max_chunk_tokens={request.max_chunk_tokens}; "
            "it must be at least 1, or None"
        )
    num_tokens = num_prompt_tokens + request.max_tokens
    what = f"prompt {num_prompt_tokens} + max_tokens {request.max_tokens} = {num_tokens} tokens"
    if num_tokens > config.max_model_len:
        raise CapacityError(
            f"request {request.request_id!r} can never fit: {what}, but max_model_len is "
            f"{config.max_model_len}. Lower max_tokens, shorten the prompt, or raise max_model_len"
        )
    # The token sampled last is never computed, so it needs no slot.
    num_slots = max(num_prompt_tokens, num_tokens - 1)
    shortages = [
        shortage
        for group in range(len(tables.pools))
        if (shortage := _describe_shortage(request, num_slots, config, tables, group))
    ]
    if shortages:
        raise CapacityError(
            f"request {request.request_id!r} can never fit the KV cache, not even alone: {what}, "
            f"the last of which is not stored, so {num_slots} slots; {'; '.join(shortages)}. "
            "Lower max_tokens, shorten the prompt, or give the cache more memory"
        )


def _describe_shortage(
    request: Request, num_slots: int, config: SchedulerConfig, tables: BlockTables, group: int
) -> str | None:
    chunk = smallest_chunk(request, num_slots, config)
    needed = tables.count_blocks(group, num_slots, 0, chunk)
    usable = tables.pools[group].num_usable
    if needed <= usable:
        return None
    window = tables.windows[group]
    kind = f"group {group}" + (f" (window {window})" if window else "")
    return (
        f"{kind} needs {needed} blocks of {tables.block_size} tokens and has {usable} "
        f"({usable + 1} less the reserved block 0: {usable * tables.block_size} slots)"
    )
