"""One token per row of logits: what every sampler returns, and the choice between the two here.

The same logits, parameters and uniforms give the same tokens on every backend and in every batch.
Rows never look at each other. In order, for each row (vLLM's order):

1. Log-probabilities are those of the raw logits.
2. The mask, then ``bias`` (logit_bias, and -inf for banned tokens), then the penalties:
   repetition on every seen token, frequency and presence on those in the output.
3. The likeliest token, the one of smallest id among equals, is the answer where temperature is 0.
4. Elsewhere each logit becomes an integer weight (``sampling_weights``), from which on there is no
   rounding. ``min_p`` keeps weights of at least ``ceil(min_p * 2**24)``.
5. ``top_k`` keeps logits that are at least the k-th largest.
6. ``top_p`` keeps weights of which all heavier ones together are less than
   ``floor(top_p * total)``, where total sums what 4 and 5 kept.
7. The draw: of the tokens kept, in order of id, the first whose running sum of weights exceeds
   ``floor(uniform * total)``, where total sums what 4 to 6 kept.

Tokens of equal logits fare alike in 5 and 6, so no sorting order can matter; a backend may find
these thresholds in any way it likes.

A row that holds a NaN or +inf after step 2, or in which nothing is allowed, cannot be sampled:
its token id is 0 and ``SampleResult.valid`` is False there.

``(row, id)`` pairs of ``seen`` and ``bias`` must be unique, and rows that a backend adds as padding
may own any of them. A uniform is a multiple of 2**-24.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from array_api_compat import is_numpy_namespace

from octavo.ops import sampling_numpy, sampling_portable
from octavo.ops.arrays import Array, Namespace
from octavo.ops.protocol import SampleResult, SamplingBatch

if TYPE_CHECKING:
    from jaxtyping import Float, Int

__all__ = ["sample", "token_logprobs"]


def sample(
    xp: Namespace, logits: Float[Array, "rows vocab"], sampling: SamplingBatch
) -> SampleResult:
    """One token for each row, and log-probabilities unless ``num_logprobs`` is negative."""
    if is_numpy_namespace(xp):
        return sampling_numpy.sample(logits, sampling)
    return sampling_portable.sample(xp, logits, sampling)


def token_logprobs(
    xp: Namespace,
    logits: Float[Array, "rows vocab"],
    token_ids: Int[Array, "rows"],
    num_logprobs: int,
) -> SampleResult:
    """Log-probability and rank of the given token in each row, and the likeliest tokens."""
    if is_numpy_namespace(xp):
        return sampling_numpy.token_logprobs(logits, token_ids, num_logprobs)
    return sampling_portable.token_logprobs(xp, logits, token_ids, num_logprobs)
