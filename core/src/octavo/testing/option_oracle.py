"""What a request's options allow at each token, from the raw log-probabilities that came with it.

Adjustments add to logits, and log-probabilities are logits less one number for the whole row: so
the rules can be applied to what the engine itself returned, without knowing the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from octavo.sampling_params import SamplingParams
    from octavo.testing.answers import Answer

__all__ = ["first_disallowed"]

Scores = NDArray[np.float64]
_ROUNDING = 1e-3  # of float32 in logits of a few units, through bias and temperature


def first_disallowed(answer: Answer, params: SamplingParams, vocab_size: int) -> str | None:
    """The first token that the options do not allow, in words; None where all are allowed.

    The request must have asked for the log-probabilities of the whole vocabulary.
    """
    for place, token_id in enumerate(answer.token_ids):
        raw = answer.likeliest[place]
        if len(raw) != vocab_size:
            return f"token {place} came with {len(raw)} log-probabilities, expected {vocab_size}"
        row = np.array([raw[each] for each in range(vocab_size)], np.float64)
        total = float(np.exp(row).sum())
        if not abs(total - 1) <= _ROUNDING:
            return f"the probabilities at token {place} add up to {total:.6g}, expected 1"
        scores = _adjusted(row, params, answer.token_ids[:place])
        broken = _broken_rule(scores, token_id, params)
        if broken is not None:
            return f"token {place} is {token_id}, which {broken}"
    return None


def _adjusted(row: Scores, params: SamplingParams, output: Sequence[int]) -> Scores:
    """Scores after mask, bias, and the penalties that look at the output."""
    scores = row.copy()
    if params.allowed_token_ids is not None:
        allowed = np.zeros(len(scores), np.bool_)
        allowed[list(params.allowed_token_ids)] = True
        scores[~allowed] = -np.inf
    bias: Mapping[int, float] = params.logit_bias or {}
    for token_id, value in bias.items():
        scores[token_id] += value
    for token_id, count in Counter(output).items():
        scores[token_id] -= params.presence_penalty + params.frequency_penalty * count
    return scores


def _broken_rule(scores: Scores, token_id: int, params: SamplingParams) -> str | None:
    if not np.isfinite(scores[token_id]):
        return "allowed_token_ids does not allow"
    if params.temperature == 0:
        return _not_greedy(scores, token_id)
    return _left_out(scores / params.temperature, token_id, params)


def _not_greedy(scores: Scores, token_id: int) -> str | None:
    best = int(scores.argmax())
    if scores[token_id] >= scores[best] - _ROUNDING:
        return None
    return (
        f"scores {scores[token_id]:.6g} after bias and penalties; greedy takes {best}, "
        f"which scores {scores[best]:.6g}"
    )


def _left_out(scores: Scores, token_id: int, params: SamplingParams) -> str | None:
    """Why top_k, min_p or top_p keeps the token from being drawn, if one does."""
    is_ahead = scores > scores[token_id] + _ROUNDING
    if params.top_k > 0 and is_ahead.sum() >= params.top_k:
        return f"top_k={params.top_k} leaves out: {is_ahead.sum()} tokens are ahead of it"
    weights = np.exp(scores - scores.max())
    if weights[token_id] < params.min_p * (1 - _ROUNDING):
        return (
            f"min_p={params.min_p} leaves out: it is {weights[token_id]:.3g} times as likely as "
            "the likeliest"
        )
    ahead = weights[is_ahead].sum() / weights.sum()
    if ahead > params.top_p + _ROUNDING:
        return f"top_p={params.top_p} leaves out: tokens ahead of it have {ahead:.3g} together"
    return None
