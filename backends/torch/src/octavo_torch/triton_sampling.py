"""Sampling on GPUs: which kernels a batch of rows needs. Nothing waits for the device."""

from __future__ import annotations

from typing import Any

import torch

from octavo.api import SamplingBatch
from octavo_torch.kernels.adjust_logits import adjust_logits
from octavo_torch.kernels.argmax import argmax
from octavo_torch.kernels.draw import draw

__all__ = ["sample_tokens"]


def sample_tokens(
    logits: torch.Tensor, sampling: SamplingBatch
) -> tuple[torch.Tensor, torch.Tensor]:
    """(token ids i32[rows], valid bool[rows]) of logits [rows, vocab], the vocabulary dense."""
    batch: Any = sampling  # its fields are tensors
    if not batch.plain:
        logits = adjust_logits(
            logits,
            batch.mask,
            (batch.bias_rows, batch.bias_ids, batch.bias_values),
            (batch.seen_rows, batch.seen_ids, batch.seen_counts),
            (batch.repetition_penalty, batch.presence_penalty, batch.frequency_penalty),
        )
    if batch.all_greedy:
        return argmax(logits)
    return draw(
        logits,
        batch.temperature,
        batch.top_k,
        batch.top_p,
        batch.min_p,
        batch.uniform,
        truncated=batch.truncated,
    )
