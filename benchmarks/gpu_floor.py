"""The least time that a workload can take by a device's two rates: what throughput is held to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from model_work import ModelWork
from workload import Work


@dataclass(frozen=True)
class Device:
    """Its measured rates."""

    bytes_per_s: float
    flop_per_s: float


def floor_s(work: Work, model: ModelWork, device: Device) -> float:
    """All prompts computed at the matmul rate, then every request in every decode step it needs.

    A decode step reads the weights once and each running request's keys and values, or takes as
    long as its linear layers at the matmul rate, if that is longer. bfloat16 throughout. Requests
    beyond what an engine runs at a time make more steps: the floor does not know, and stays one.
    """
    prefill = sum(model.prefill_flop(len(prompt)) for prompt in work.prompts) / device.flop_per_s
    return prefill + sum(
        _step_s(num_seqs, kv_tokens, model, device) for num_seqs, kv_tokens in decode_steps(work)
    )


def decode_steps(work: Work) -> list[tuple[int, int]]:
    """(requests that run, tokens of context that they read) of each decode step.

    The first token of each answer is prefill's; a step reads its own token's key and value, too.
    """
    ending = Counter(work.output_lens)
    num_seqs, steps = len(work.output_lens), []
    kv_tokens = work.num_input_tokens
    prompt_lens = [len(prompt) for prompt in work.prompts]
    leaving = Counter()
    for prompt_len, output_len in zip(prompt_lens, work.output_lens, strict=True):
        leaving[output_len] += prompt_len + output_len - 1
    for step in range(1, max(work.output_lens)):
        num_seqs -= ending[step]
        kv_tokens -= leaving[step]
        kv_tokens += num_seqs
        steps.append((num_seqs, kv_tokens))
    return steps


def _step_s(num_seqs: int, kv_tokens: int, model: ModelWork, device: Device) -> float:
    weights_s = model.bf16_weight_bytes / device.bytes_per_s
    linear_s = num_seqs * model.all_weights_flop(1) / device.flop_per_s
    return max(weights_s, linear_s) + model.kv_bytes(kv_tokens, "bfloat16") / device.bytes_per_s
