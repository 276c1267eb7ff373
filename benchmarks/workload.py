"""What every engine is asked to do: the same token ids and lengths, from fixed seeds."""

from __future__ import annotations

import random
from dataclasses import dataclass

MAX_TOKEN_ID = 10_000
BATCH_SEED = 1
BATCH_REQUESTS = 64


@dataclass(frozen=True)
class Work:
    """One call of an engine: prompts as token ids, and how many tokens each must produce."""

    prompts: tuple[tuple[int, ...], ...]
    output_lens: tuple[int, ...]

    @property
    def num_input_tokens(self) -> int:
        return sum(map(len, self.prompts))

    @property
    def num_output_tokens(self) -> int:
        return sum(self.output_lens)


def single(prompt_len: int, output_len: int, seed: int) -> Work:
    """One request of ``prompt_len`` random tokens."""
    return Work((_token_ids(random.Random(seed), prompt_len),), (output_len,))


def batch(round_index: int, fraction: float = 1.0) -> Work:
    """64 requests, 100-512 tokens in and 100-256 out (19,455 and 10,721 in all), or the first few.

    The lengths are the same in every round. The token ids are drawn anew after round 0, or an
    engine with a prefix cache would have seen every prompt of the round before.
    """
    rng = random.Random(BATCH_SEED)
    prompts = [_token_ids(rng, rng.randint(100, 512)) for _ in range(BATCH_REQUESTS)]
    output_lens = [rng.randint(100, 256) for _ in range(BATCH_REQUESTS)]
    if round_index > 0:
        fresh = random.Random(1000 + round_index)
        prompts = [_token_ids(fresh, len(prompt)) for prompt in prompts]
    num_requests = max(1, round(BATCH_REQUESTS * fraction))
    return Work(tuple(prompts[:num_requests]), tuple(output_lens[:num_requests]))


def nano_vllm(num_requests: int, round_index: int = 0) -> Work:
    """The workload of nano-vLLM's own benchmark, number for number, from seed 0.

    100-1,024 tokens in and out, each uniform; 256 requests ask for 133,966 tokens. After round 0
    the token ids are drawn anew, as in ``batch``.
    """
    rng = random.Random(0)
    prompts = []
    for _ in range(num_requests):
        prompt_len = rng.randint(100, 1024)
        prompts.append(_token_ids(rng, prompt_len))
    output_lens = tuple(rng.randint(100, 1024) for _ in range(num_requests))
    if round_index > 0:
        fresh = random.Random(2000 + round_index)
        prompts = [_token_ids(fresh, len(prompt)) for prompt in prompts]
    return Work(tuple(prompts), output_lens)


def _token_ids(rng: random.Random, num_tokens: int) -> tuple[int, ...]:
    return tuple(rng.randint(0, MAX_TOKEN_ID) for _ in range(num_tokens))
