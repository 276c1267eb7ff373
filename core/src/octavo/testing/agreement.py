"""Holds the answers of one run against those of another: to the last bit, or within a tolerance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from octavo.testing.check import CheckFailure
from octavo.testing.tolerances import logprob_tolerance

if TYPE_CHECKING:
    from octavo.engine_loader import LoadedEngine
    from octavo.testing.answers import Answer

__all__ = ["Agreement"]


@dataclass(frozen=True)
class Agreement:
    """What two runs of the same requests must have in common."""

    is_exact: bool
    """Claimed by caps.batch_invariant: every number is the same to the last bit."""
    tolerance: float
    """Where it is not claimed: of log-probabilities. Greedy tokens must be the same as long as the
    best is further ahead of the next than twice this."""

    @classmethod
    def of(cls, loaded: LoadedEngine) -> Agreement:
        """For what the engine's backend claims, and the dtypes that it computes and stores in."""
        kv_dtypes = {group.spec.dtype for group in loaded.plan.groups}
        return cls(loaded.backend.caps.batch_invariant, logprob_tolerance(loaded.dtype, *kv_dtypes))

    def require(self, situation: str, expected: Sequence[Answer], found: Sequence[Answer]) -> None:
        """Raise CheckFailure that names every request whose answer differs ``situation``."""
        wrong = _all_differences(expected, found, self.tolerance)
        if wrong:
            raise CheckFailure(
                f"{len(wrong)} of {len(found)} requests have another answer {situation}, by more "
                f"than the tolerance of {self.tolerance:.2g}: {'; '.join(wrong)}."
            )
        inexact = self.is_exact and _all_differences(expected, found, None)
        if inexact:
            raise CheckFailure(
                "The claim caps.batch_invariant is false: to the last bit, "
                f"{len(inexact)} of {len(found)} requests have another answer {situation}, though "
                f"within the tolerance: {'; '.join(inexact)}. Make every sum of a token "
                "independent of the other tokens of the step, or claim nothing.",
                look="caps.batch_invariant, ops.linear, ops.paged_attention",
            )


def _all_differences(
    expected: Sequence[Answer], found: Sequence[Answer], tolerance: float | None
) -> list[str]:
    pairs = zip(expected, found, strict=True)
    differences = [_first_difference(*pair, tolerance) for pair in pairs]
    return [f"request {i}: {text}" for i, text in enumerate(differences) if text is not None]


def _first_difference(expected: Answer, found: Answer, tolerance: float | None) -> str | None:
    """Where two answers part; None if nowhere. Without a tolerance every bit counts."""
    if found.error is not None:
        return f"it failed: {found.error}"
    if len(found.prompt_logprobs) != len(expected.prompt_logprobs):
        return f"{len(found.prompt_logprobs)} prompt_logprobs, not {len(expected.prompt_logprobs)}"
    pairs = zip(expected.prompt_logprobs, found.prompt_logprobs, strict=True)
    for position, (wanted, logprob) in enumerate(pairs, 1):
        if not _equal(wanted, logprob, tolerance):
            return _numbers(f"the log-probability of prompt token {position}", wanted, logprob)
    return _first_difference_of_tokens(expected, found, tolerance)


def _first_difference_of_tokens(
    expected: Answer, found: Answer, tolerance: float | None
) -> str | None:
    for step, likeliest in enumerate(expected.likeliest):
        if step == len(found.token_ids):
            break
        for token_id, wanted in likeliest.items():
            logprob = found.likeliest[step].get(token_id)
            if logprob is None and tolerance is None:
                return f"token {token_id} is not among the likeliest at step {step}"
            if logprob is not None and not _equal(wanted, logprob, tolerance):
                return _numbers(
                    f"the log-probability of token {token_id} at step {step}", wanted, logprob
                )
        wanted_id, token_id = expected.token_ids[step], found.token_ids[step]
        if wanted_id != token_id:
            margin = likeliest[wanted_id] - max(
                logprob for rival, logprob in likeliest.items() if rival != wanted_id
            )
            if tolerance is not None and margin <= 2 * tolerance:
                return None  # a tie within the tolerance: from here on they may go different ways
            return f"token {token_id} at step {step}, not {wanted_id}, {margin:.3g} ahead"
    if len(found.token_ids) != len(expected.token_ids):
        return f"{len(found.token_ids)} tokens, not {len(expected.token_ids)}"
    return None


def _equal(wanted: float, found: float, tolerance: float | None) -> bool:
    if tolerance is None:
        return wanted == found
    return abs(wanted - found) <= tolerance  # False for NaN


def _numbers(what: str, wanted: float, found: float) -> str:
    return f"{what} is {found:.9g}, not {wanted:.9g} (off by {abs(found - wanted):.2g})"
