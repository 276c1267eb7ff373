"""Sampling by the compiled kernels: the tokens that octavo.ops.sampling defines, to the bit."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import array_api_compat.numpy as xp
import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from octavo.api import PortableOps, SampleResult, SamplingBatch, adjusted_logits
from octavo_cpu.native.eager import address_of
from octavo_cpu.native.encoding import element_of, encode
from octavo_cpu.native.instruction import Opcode
from octavo_cpu.native.library import Context
from octavo_cpu.native.rows import Untraceable
from octavo_cpu.native.traced import Traced
from octavo_cpu.native.views import rows_of

__all__ = ["SETTINGS", "record", "sample", "token_logprobs", "widen"]

Logits = NDArray[Any]  # [rows, vocab] in float32, bfloat16 or float16
Logits32 = NDArray[np.float32]

SETTINGS = {
    "temperature": np.float32,
    "top_k": np.int32,
    "top_p": np.float32,
    "min_p": np.float32,
    "uniform": np.float32,
}
"""What DRAW reads of a SamplingBatch between logits and results, in its order; one for each row."""


def sample(context: Context, logits: Logits, sampling: SamplingBatch) -> SampleResult:
    """One token for each row of logits: [rows, vocab] in float32, bfloat16 or float16."""
    adjusted = logits if sampling.plain else _adjusted(logits, sampling)
    token_ids, valid = _choose(context, adjusted, sampling)
    if sampling.num_logprobs < 0:
        return SampleResult(token_ids, None, None, None, None, valid)
    likely = token_logprobs(logits, token_ids, sampling.num_logprobs)
    return SampleResult(
        token_ids, likely.logprobs, likely.ranks, likely.top_ids, likely.top_logprobs, valid
    )


def record(logits: Traced, sampling: SamplingBatch) -> SampleResult:
    """One token for each row of logits that are yet to come, and no more than that."""
    if not sampling.plain or sampling.num_logprobs >= 0:
        raise Untraceable("masks, biases, penalties and log-probabilities are no instructions")
    recording = logits.recording
    logits, (num_rows, vocab_size, stride) = rows_of(recording.unrounded(logits))
    token_ids = recording.new((num_rows,), np.dtype(np.int32))
    valid = recording.new((num_rows,), np.dtype(np.bool_))
    settings = () if sampling.all_greedy else [getattr(sampling, name) for name in SETTINGS]
    opcode = Opcode.ARGMAX if sampling.all_greedy else Opcode.DRAW
    operands = (logits, *settings, token_ids, valid)
    recording.emit(opcode, logits.dtype, operands, (num_rows, vocab_size, stride))
    return SampleResult(token_ids, None, None, None, None, valid)


def token_logprobs(logits: Logits, token_ids: NDArray[np.int32], num_logprobs: int) -> SampleResult:
    """Log-probability and rank of the given token in each row, and the likeliest tokens."""
    return PortableOps(xp).token_logprobs(widen(logits), token_ids, num_logprobs)


def widen(logits: Logits) -> Logits32:
    """The same numbers in float32; ml_dtypes takes several times as long for bfloat16."""
    if logits.dtype != ml_dtypes.bfloat16:
        return logits.astype(np.float32, copy=False)
    bits: NDArray[np.uint32] = logits.view(np.uint16).astype(np.uint32)
    bits <<= 16
    return bits.view(np.float32)


def _choose(
    context: Context, logits: Logits, sampling: SamplingBatch
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """(token_ids, valid) of rows whose logits are adjusted already."""
    num_rows, vocab_size = logits.shape
    logits = logits if _has_contiguous_rows(logits) else np.ascontiguousarray(logits)
    token_ids, valid = np.empty(num_rows, np.int32), np.empty(num_rows, np.bool_)
    settings = [] if sampling.all_greedy else _settings(sampling)
    operands = [logits, *settings, token_ids, valid]
    opcode = Opcode.ARGMAX if sampling.all_greedy else Opcode.DRAW
    stride = logits.strides[0] // logits.itemsize
    code = _instruction(opcode, logits.dtype, len(operands), num_rows, vocab_size, stride)
    context.run_one(code, [address_of(operand) for operand in operands])
    return token_ids, valid


@lru_cache(maxsize=64)
def _instruction(
    opcode: Opcode,
    dtype: np.dtype[Any],
    num_operands: int,
    num_rows: int,
    vocab_size: int,
    stride: int,
) -> bytes:
    sizes = (num_rows, vocab_size, stride)
    return encode(opcode, element_of(dtype, opcode), range(num_operands), sizes, ())


def _has_contiguous_rows(logits: Logits) -> bool:
    return logits.strides[1] == logits.itemsize and logits.strides[0] % logits.itemsize == 0


def _settings(sampling: SamplingBatch) -> list[NDArray[Any]]:
    """As contiguous arrays: [rows] each."""
    return [
        np.ascontiguousarray(getattr(sampling, name), dtype) for name, dtype in SETTINGS.items()
    ]


def _adjusted(logits: Logits, sampling: SamplingBatch) -> Logits32:
    """Logits after mask, bias and penalties, in memory of their own."""
    with np.errstate(over="ignore", invalid="ignore"):  # such rows are not valid
        adjusted: Logits32 = adjusted_logits(xp, widen(logits), sampling)
    return adjusted
