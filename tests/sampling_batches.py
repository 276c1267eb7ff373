"""SamplingBatches for tests: plain ones with settings changed by name, and random mixtures."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from octavo.ops.protocol import SamplingBatch

STATIC_FIELDS = ("num_logprobs", "all_greedy", "plain", "truncated")
ARRAY_FIELDS = tuple(
    field.name for field in dataclasses.fields(SamplingBatch) if field.name not in STATIC_FIELDS
)
_ROW_FIELDS = {
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "uniform": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}


def make_batch(num_rows: int, **settings: Any) -> SamplingBatch:
    """Temperature 1 and nothing else, save ``settings``: a number for all rows, or an array."""
    fields: dict[str, Any] = {}
    for name, default in _ROW_FIELDS.items():
        dtype = np.int32 if name == "top_k" else np.float32
        value = np.asarray(settings.pop(name, default), dtype)
        fields[name] = np.broadcast_to(value, num_rows).copy()
    for prefix, last, dtype in (("seen", "counts", np.int32), ("bias", "values", np.float32)):
        for name in ("rows", "ids"):
            fields[f"{prefix}_{name}"] = np.asarray(settings.pop(f"{prefix}_{name}", []), np.int32)
        fields[f"{prefix}_{last}"] = np.asarray(settings.pop(f"{prefix}_{last}", []), dtype)
    fields["mask"] = settings.pop("mask", None)
    touched = len(fields["seen_ids"]) or len(fields["bias_ids"]) or fields["mask"] is not None
    fields["plain"] = settings.pop("plain", not touched)
    fields["all_greedy"] = bool((fields["temperature"] == 0).all())
    fields["num_logprobs"] = settings.pop("num_logprobs", -1)
    fields["truncated"] = settings.pop("truncated", True)
    assert not settings, f"no such field: {settings}"
    return SamplingBatch(**fields)


def random_batch(rng: np.random.Generator, num_rows: int, vocab_size: int) -> SamplingBatch:
    """Rows of every kind side by side."""

    def pick(*values: float) -> np.ndarray:
        return rng.choice(values, num_rows)

    def some_ids(per_row: int) -> tuple[np.ndarray, np.ndarray]:
        ids = [rng.choice(vocab_size, per_row, replace=False) for _ in range(num_rows)]
        return np.repeat(np.arange(num_rows), per_row), np.concatenate(ids)

    num_seen, num_biased = min(10, vocab_size), min(4, vocab_size)
    seen_rows, seen_ids = some_ids(num_seen)
    bias_rows, bias_ids = some_ids(num_biased)
    return make_batch(
        num_rows,
        temperature=pick(0, 0.01, 0.3, 0.6, 1, 2),
        top_k=pick(0, 0, 1, 2, 20, vocab_size - 1, vocab_size, vocab_size + 1),
        top_p=pick(1, 1, 0.95, 0.5, 0.01, 1e-9),
        min_p=pick(0, 0, 0.02, 0.5, 1),
        uniform=stratified(num_rows, rng.random()),
        repetition_penalty=pick(1, 1.3, 0.7),
        presence_penalty=pick(0, 0.5, -1),
        frequency_penalty=pick(0, 0.37, -1.1),
        seen_rows=seen_rows,
        seen_ids=seen_ids,
        seen_counts=rng.integers(0, 4, num_rows * num_seen),
        bias_rows=bias_rows,
        bias_ids=bias_ids,
        bias_values=rng.choice([-np.inf, 1.5, -3.3, 100], num_rows * num_biased),
        mask=(rng.random((num_rows, vocab_size)) > 0.2) | (rng.random((num_rows, 1)) > 0.5),
        num_logprobs=3,
    )


def random_logits(rng: np.random.Generator, num_rows: int, vocab_size: int) -> np.ndarray:
    """Flat rows and peaked ones, and some in which many logits are equal."""
    scales = rng.choice([0.1, 1, 4, 15], (num_rows, 1))
    logits = rng.standard_normal((num_rows, vocab_size)) * scales + rng.normal(0, 20)
    coarse = rng.random(num_rows) < 0.2
    logits[coarse] = np.round(logits[coarse])
    return logits.astype(np.float32)


def stratified(num_draws: int, offset: float = 0.5) -> np.ndarray:
    """Evenly spaced uniforms, so that a token of probability p is drawn p * num_draws times."""
    grid = np.floor((np.arange(num_draws) + offset) / num_draws * 2**24) * 2.0**-24
    return grid.astype(np.float32)


def row_of(batch: SamplingBatch, row: int) -> SamplingBatch:
    """Row ``row`` as a batch of its own."""
    changes: dict[str, Any] = {name: getattr(batch, name)[row : row + 1] for name in _ROW_FIELDS}
    for prefix, last in (("seen", "counts"), ("bias", "values")):
        own = getattr(batch, f"{prefix}_rows") == row
        changes[f"{prefix}_rows"] = np.zeros(own.sum(), np.int32)
        changes[f"{prefix}_ids"] = getattr(batch, f"{prefix}_ids")[own]
        changes[f"{prefix}_{last}"] = getattr(batch, f"{prefix}_{last}")[own]
    if batch.mask is not None:
        changes["mask"] = batch.mask[row : row + 1]
    return dataclasses.replace(batch, **changes)
