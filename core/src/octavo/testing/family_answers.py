"""Compares what a backend answers with the published vectors, and says where it first differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from octavo.testing.family_vectors import NextToken, family_vectors
from octavo.testing.tolerances import logprob_tolerance

if TYPE_CHECKING:
    from octavo.backend import Capabilities
    from octavo.testing.answers import Answer

__all__ = ["Expected", "Precision", "expected_after", "expected_answer", "first_difference"]


@dataclass(frozen=True)
class Precision:
    """What a model computes in, and what its caches hold."""

    dtype: str
    kv_dtype: str

    @classmethod
    def best(cls, caps: Capabilities, dtype: str | None = None) -> Precision:
        """``dtype``, else float32 where there is it; caches in the same, where there are any."""
        if dtype is None:
            dtype = "float32" if "float32" in caps.dtypes else caps.dtypes[0]
        return cls(dtype, dtype if dtype in caps.kv_dtypes else caps.kv_dtypes[0])

    @property
    def tolerance(self) -> float:
        """Of a log-probability."""
        dtypes = (self.dtype, self.kv_dtype)
        return logprob_tolerance(*("float32" if each == "float64" else each for each in dtypes))

    def __str__(self) -> str:
        """For messages."""
        return f"in {self.dtype} over caches of {self.kv_dtype}"


@dataclass(frozen=True)
class Expected:
    """What must come out for one prompt."""

    prompt: tuple[int, ...]
    answer: tuple[NextToken, ...]
    prompt_logprobs: tuple[float, ...] = ()


def expected_answer(name: str) -> Expected:
    """The whole vector of a tiny model."""
    vector = family_vectors()[name]
    return Expected(vector.prompt, vector.answer, vector.prompt_logprobs)


def expected_after(name: str, num_prompt_tokens: int) -> Expected:
    """One token after so many tokens of the vector's prompt."""
    vector = family_vectors()[name]
    token = vector.after_prefix[num_prompt_tokens - 1]
    return Expected(vector.prompt[:num_prompt_tokens], (token,))


def first_difference(answer: Answer, expected: Expected, tolerance: float) -> str | None:
    """The first number that is out of tolerance, in words; None where all is well.

    Greedy tokens count as long as the expected one leads by more than rounding can take away;
    after a tie the two go different ways, and nothing further is compared.
    """
    if answer.error is not None:
        return f"the engine ended the request: {answer.error}"
    return _first_in_prompt(answer, expected, tolerance) or _first_in_answer(
        answer, expected, tolerance
    )


def _first_in_prompt(answer: Answer, expected: Expected, tolerance: float) -> str | None:
    if len(answer.prompt_logprobs) != len(expected.prompt_logprobs):
        return (
            f"{len(answer.prompt_logprobs)} log-probabilities of prompt tokens came back, "
            f"expected {len(expected.prompt_logprobs)}"
        )
    pairs = zip(answer.prompt_logprobs, expected.prompt_logprobs, strict=True)
    for position, (found, wanted) in enumerate(pairs, start=1):
        if not abs(found - wanted) <= tolerance:
            return (
                f"at position {position} of {_prompt(expected)} the log-probability of the token "
                f"there is {found:.6g}, expected {_within(wanted, tolerance)}"
            )
    return None


def _first_in_answer(answer: Answer, expected: Expected, tolerance: float) -> str | None:
    for place, wanted in enumerate(expected.answer):
        where = f"token {place} of the answer to {_prompt(expected)}"
        if place >= len(answer.token_ids):
            return f"{where} is missing: the answer ends after {place} tokens"
        token_id, logprob = answer.token_ids[place], answer.logprobs[place]
        if token_id != wanted.token_id:
            if wanted.margin <= 2 * tolerance:
                return None
            return (
                f"{where} is {token_id} with log-probability {logprob:.6g}, expected "
                f"{wanted.token_id} with {wanted.logprob:.6g}, ahead by {wanted.margin:.3g}"
            )
        if not abs(logprob - wanted.logprob) <= tolerance:
            return (
                f"{where} has log-probability {logprob:.6g}, "
                f"expected {_within(wanted.logprob, tolerance)}"
            )
    return None


def _prompt(expected: Expected) -> str:
    return f"a prompt of {_tokens(expected.prompt)}"


def _tokens(token_ids: Sequence[int]) -> str:
    return "1 token" if len(token_ids) == 1 else f"{len(token_ids)} tokens"


def _within(wanted: float, tolerance: float) -> str:
    return f"{wanted:.6g} within {tolerance:.2g}"
