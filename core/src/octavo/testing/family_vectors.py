"""What tiny models of every family answer, as transformers computed it in float64.

The file is made by scripts/make_family_vectors.py, and a test computes it again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["FamilyVector", "NextToken", "family_vectors"]


@dataclass(frozen=True)
class NextToken:
    """The likeliest token at one place."""

    token_id: int
    logprob: float
    margin: float
    """By which its logit exceeds that of the runner-up."""


@dataclass(frozen=True)
class FamilyVector:
    """One tiny model's answers, with the dummy weights of ``seed``."""

    seed: int
    prompt: tuple[int, ...]
    prompt_logprobs: tuple[float, ...]
    """Of each token of the prompt but the first."""
    answer: tuple[NextToken, ...]
    """Greedy, after the whole prompt."""
    after_prefix: tuple[NextToken, ...]
    """Entry i follows the first i + 1 tokens of the prompt, as a prompt of their own."""


@cache
def family_vectors() -> Mapping[str, FamilyVector]:
    """By the name of the tiny model."""
    path = Path(__file__).parent / "vectors" / "families.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: FamilyVector(
            seed=fields["seed"],
            prompt=tuple(fields["prompt"]),
            prompt_logprobs=tuple(fields["prompt_logprobs"]),
            answer=tuple(NextToken(*token) for token in fields["answer"]),
            after_prefix=tuple(NextToken(*token) for token in fields["after_prefix"]),
        )
        for name, fields in stored.items()
    }
