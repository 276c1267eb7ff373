"""Settings of the scheduler, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from octavo.errors import UsageError

__all__ = ["GroupConfig", "Policy", "PreemptionCosts", "PreemptionMode", "SchedulerConfig"]

Policy = Literal["fcfs", "priority"]
PreemptionMode = Literal["auto", "recompute", "swap"]


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """Limits and policies; names as in vLLM where it has them."""

    max_model_len: int
    block_size: int = 16
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    """Tokens of one step, decodes and prefill chunks together."""
    max_num_waiting: int | None = None
    """Requests that may wait before ``add`` refuses; None sets no bound."""
    enable_prefix_caching: bool = True
    enable_chunked_prefill: bool = True
    policy: Policy = "fcfs"
    preemption_mode: PreemptionMode = "auto"
    """auto: whatever PreemptionCosts says is cheaper; recompute without costs or host blocks."""

    def __post_init__(self) -> None:
        for name in ("max_model_len", "block_size", "max_num_seqs", "max_num_batched_tokens"):
            _check_positive(name, getattr(self, name))
        if self.max_num_waiting is not None:
            _check_positive("max_num_waiting", self.max_num_waiting)
        _check_choice("policy", self.policy, ("fcfs", "priority"))
        _check_choice("preemption_mode", self.preemption_mode, ("auto", "recompute", "swap"))
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise UsageError(
                f"max_num_batched_tokens={self.max_num_batched_tokens} is less than "
                f"max_num_seqs={self.max_num_seqs}: every running request needs a token per step. "
                "Raise the first or lower the second"
            )
        if not self.enable_chunked_prefill and self.max_num_batched_tokens < self.max_model_len:
            raise UsageError(
                "without chunked prefill a whole context must fit one step, but "
                f"max_num_batched_tokens={self.max_num_batched_tokens} is less than "
                f"max_model_len={self.max_model_len}. Raise it or set enable_chunked_prefill=True"
            )


@dataclass(frozen=True)
class GroupConfig:
    """Blocks of one KV group; a window makes it a sliding group, which frees what lies behind."""

    num_blocks: int
    """Device blocks, the reserved block 0 included."""
    num_host_blocks: int = 0
    """Host blocks for swapping, all usable."""
    window: int | None = None
    """A query at position p reads the keys at p - window < k <= p."""

    def __post_init__(self) -> None:
        if self.num_blocks < 2:
            raise UsageError(
                f"num_blocks={self.num_blocks}: a group needs at least 2 blocks, as block 0 is "
                "reserved for padding. Give the cache more memory"
            )
        if self.num_host_blocks < 0:
            raise UsageError(f"num_host_blocks={self.num_host_blocks} must not be negative")
        if self.window is not None:
            _check_positive("window", self.window)


@dataclass(frozen=True)
class PreemptionCosts:
    """What preemption costs on this machine; swapping moves every block twice (out and in)."""

    seconds_per_recomputed_token: float
    seconds_per_swapped_block: float


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise UsageError(f"{name}={value} must be at least 1")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        close = get_close_matches(value, choices, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UsageError(f"{name}={value!r} is not one of {', '.join(choices)}{hint}")
