"""What the server needs of an engine, wherever its step loop runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from octavo.engine_snapshot import EngineSnapshot, EngineStats
    from octavo.outputs import RequestOutput
    from octavo.prompts import Prompt
    from octavo.sampling_params import SamplingParams
    from octavo.tokenizer import Tokenizer

__all__ = ["EngineClient", "EngineInfo", "OutputStream"]


@dataclass(frozen=True)
class EngineInfo:
    """What does not change while an engine runs."""

    model: str
    """As the user named it: a file, a folder, a hub name."""
    architecture: str
    num_parameters: int
    device: str
    backend: str
    reason: str
    """The line that says why this device and backend."""
    dtype: str
    quantization: str
    """What the weights are quantised to at load; "none": they stay as the checkpoint has them."""
    kv_cache_dtype: str
    max_model_len: int
    """Tokens of prompt and answer together."""
    block_size: int
    num_blocks: tuple[int, ...]
    """Usable blocks of each KV group."""
    vocab_size: int
    max_logprobs: int
    max_num_seqs: int
    default_sampling_params: SamplingParams


class OutputStream(ABC):
    """The outputs of one request, an async iterator; it ends behind the output that is finished.

    An output with ``error`` set is delivered as any other: who reads decides what to make of it.
    """

    request_id: str
    prompt_token_ids: list[int]
    """The prompt as the engine took it."""

    def __aiter__(self) -> OutputStream:
        return self

    @abstractmethod
    async def __anext__(self) -> RequestOutput:
        """The next output; raises BackendError if the engine is gone."""

    @abstractmethod
    def close(self) -> None:
        """End the request, if it has not ended, and free its blocks within a step. At any time."""


class EngineClient(ABC):
    """One engine. All members belong to one event loop."""

    info: EngineInfo
    tokenizer: Tokenizer | None

    @property
    @abstractmethod
    def failure(self) -> str | None:
        """Why the engine answers no more; None while it works."""

    @property
    @abstractmethod
    def is_sleeping(self) -> bool:
        """Whether ``sleep`` has been called, and not ``wake_up`` since."""

    @property
    @abstractmethod
    def stats(self) -> EngineStats:
        """As of the last step, without asking the engine."""

    @abstractmethod
    async def submit(
        self,
        request_id: str,
        prompt: Prompt,
        params: SamplingParams,
        *,
        priority: int = 0,
        cache_salt: str | None = None,
    ) -> OutputStream:
        """Queue a request; returns once the engine has taken it.

        Raises what Engine.add_request raises: UsageError, CapacityError, QueueFullError, and
        BackendError once the engine has stopped or while it sleeps.
        """

    @abstractmethod
    async def snapshot(self) -> EngineSnapshot:
        """Who runs and waits now, and what every block holds."""

    @abstractmethod
    async def reset_prefix_cache(self) -> int:
        """Forget cached prefixes that no running request uses; how many blocks held one."""

    @abstractmethod
    async def sleep(self, level: int = 1) -> None:
        """End all requests and give memory back: 1 the KV cache, 2 the weights as well."""

    @abstractmethod
    async def wake_up(self) -> None:
        """Take the memory again, load again what was given up."""

    @abstractmethod
    async def close(self) -> None:
        """End every request, release the device and all threads and processes."""
