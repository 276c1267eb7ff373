"""Which rows of a step belong to prompts whose log-probabilities are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from octavo.batch_rows import BatchRows
    from octavo.completion import Completion
    from octavo.samples import Samples

__all__ = ["PromptLogprobs", "PromptSpan", "prompt_spans", "split_by_span"]

Int32 = NDArray[np.int32]


@dataclass(frozen=True)
class PromptLogprobs:
    """Log-probabilities of one request's prompt tokens from ``first_position`` on."""

    completion: Completion
    first_position: int
    samples: Samples


@dataclass(frozen=True)
class PromptSpan:
    """Prompt tokens of one request whose log-probabilities this step computes."""

    completion: Completion
    first_position: int
    rows: Int32  # flattened tokens whose logits predict them
    targets: Int32  # the tokens


def prompt_spans(
    rows: BatchRows,
    completions: Sequence[Completion],
    special: Sequence[int],
    starts: Int32,
    counts: Int32,
) -> list[PromptSpan]:
    """Of the completions at the indices ``special``; they compute [start, start + count) each."""
    spans = []
    for i in special:
        completion = completions[i]
        if not completion.wants_prompt_logprobs:
            continue
        start, count = int(starts[i]), int(counts[i])
        targets = rows.prompt_targets(completion.row, start, count)
        if len(targets):
            first_token = int(counts[:i].sum())
            tokens = np.arange(first_token, first_token + len(targets), dtype=np.int32)
            spans.append(PromptSpan(completion, start + 1, tokens, targets))
    return spans


def split_by_span(spans: Sequence[PromptSpan], samples: Samples | None) -> list[PromptLogprobs]:
    """Each span's part of the samples of all, in order."""
    if samples is None:
        return []
    split, start = [], 0
    for span in spans:
        stop = start + len(span.targets)
        part = samples.part(slice(start, stop))
        split.append(PromptLogprobs(span.completion, span.first_position, part))
        start = stop
    return split
