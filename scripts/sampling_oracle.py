"""What sampling must answer, by the rules in the docstring of octavo.ops.sampling.

Worked out on float64 and exact integers; nothing of Octavo is imported. Probabilities that are
powers of two are exact, so rows made of them may lie on a boundary. Every other row must keep a
distance from all boundaries that is far above the resolution of the rules (3e-5), or TooCloseError
is raised.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

UNIFORM_PARTS = 1 << 24
WEIGHT_BITS = 80  # more than a float64 of 2**-25 needs
ONE = 1 << 200  # weights are integers; fractions of them by float32 are integers too
SMALLEST_WEIGHT = ONE >> 25
LN2 = math.log(2)
INF = math.inf


class TooCloseError(ValueError):
    """A row lies so near a boundary that rounding could decide it."""


def float32(value: float) -> float:
    """The nearest float32."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def hashed(multiplier: int, offset: int, vocab_size: int) -> list[float]:
    """Many logits in few bytes: multiples of 2**-9 from -8 to 8; no two equal up to 8191."""
    return [((multiplier * i + offset) % 8191 - 4095) / 512 for i in range(vocab_size)]


def halvings(*counts: int) -> list[float]:
    """Logits of tokens that are 2**-count as likely as the likeliest, at temperature 1."""
    return [float32(-count * LN2) for count in counts]


@dataclass(frozen=True)
class Row:
    """One row of logits and how to sample from it. Settings left out are off."""

    logits: list[float] = field(default_factory=list)
    hash: tuple[int, int, int] | None = None  # multiplier, offset, vocab_size; in place of logits
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    uniform: int = 0  # in parts of 2**24
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seen: dict[int, int] = field(default_factory=dict)  # token id -> occurrences in the output
    bias: dict[int, float] = field(default_factory=dict)
    allowed: list[int] | None = None
    token_id: int | None = None  # given, not sampled: for token_logprobs

    @cached_property
    def raw_logits(self) -> list[float]:
        """As the model gave them."""
        return hashed(*self.hash) if self.hash else self.logits

    def as_json(self) -> dict[str, Any]:
        """The fields that differ from their defaults."""
        default = Row()
        found = {}
        for name in (each.name for each in fields(self)):
            value = getattr(self, name)
            if value == getattr(default, name):
                continue
            if isinstance(value, dict):
                found[name] = [[key, spelled(number)] for key, number in value.items()]
            else:
                found[name] = [spelled(x) for x in value] if name == "logits" else value
        return found


def spelled(number: float) -> float | str:
    """JSON has no words for these: "nan", "inf", "-inf"."""
    return number if math.isfinite(number) else str(number)


def apart(left: float, right: float) -> None:
    """Refuse two logits that are nearly equal."""
    if abs(left - right) < 1e-3:
        raise TooCloseError(f"{left} and {right} are too close")


def fraction_of(total: int, fraction: float) -> int:
    """``total * fraction``, exactly."""
    numerator, denominator = fraction.as_integer_ratio()
    return total * numerator // denominator


def parts_of_one(halved: float) -> int:
    """2**-halved in parts of ONE."""
    return int(2.0 ** (WEIGHT_BITS - halved)) * (ONE >> WEIGHT_BITS)


def adjusted(row: Row) -> list[float]:
    """Logits after mask, bias and penalties."""
    values = list(row.raw_logits)
    for token, logit in enumerate(row.raw_logits):
        value = logit
        if row.allowed is not None and token not in row.allowed:
            value = -INF
        value += row.bias.get(token, 0.0)
        if token in row.seen:
            value = value / row.repetition_penalty if value > 0 else value * row.repetition_penalty
            value -= row.frequency_penalty * row.seen[token]
            value -= row.presence_penalty if row.seen[token] > 0 else 0.0
        values[token] = value
    return values


def is_valid(values: Sequence[float]) -> bool:
    """Whether there is a token to choose."""
    return not any(math.isnan(v) or v == INF for v in values) and max(values) > -INF


@dataclass(frozen=True)
class Weights:
    """Probabilities in parts of the likeliest token's, which is ONE, and whether they are exact."""

    values: list[int]
    exact: bool

    @classmethod
    def of(cls, logits: Sequence[float], temperature: float) -> Weights:
        """Weights below 2**-25 are 0."""
        largest, exact = max(logits), True
        values = []
        for logit in logits:
            if logit == -INF:
                values.append(0)
                continue
            halved = (largest - logit) / temperature / LN2
            count = round(halved)
            if abs(halved - count) < 1e-5:  # it is rounded to 1/16384
                weight = ONE >> count
            else:
                weight, exact = parts_of_one(halved), False
                apart(halved, 25)
            values.append(weight if weight >= SMALLEST_WEIGHT else 0)
        return cls(values, exact)

    def require_distance(self, left: int, right: int, scale: int) -> None:
        """Refuse a comparison that rounding could decide."""
        if not self.exact and abs(left - right) * 1000 < scale:
            raise TooCloseError(f"{left / scale} and {right / scale} are too close")


def keep(row: Row, logits: Sequence[float], weights: Weights) -> list[int]:
    """Weights of what min_p, then top_k, then top_p keep; 0 for the rest."""
    kept = list(weights.values)
    min_p = fraction_of(ONE, row.min_p)
    for token, weight in enumerate(kept):
        if min_p and weight:
            weights.require_distance(weight, min_p, ONE)
        kept[token] = weight if weight >= min_p else 0
    if 0 < row.top_k < len(logits):
        bound = sorted(logits, reverse=True)[row.top_k - 1]
        kept = [w if logit >= bound else 0 for w, logit in zip(kept, logits, strict=True)]
    if row.top_p < 1:
        total = sum(kept)
        needed = fraction_of(total, row.top_p)
        above_each = weight_above(kept)
        heavier = [above_each[weight] for weight in kept]
        for weight, above in zip(kept, heavier, strict=True):
            if weight and above:
                weights.require_distance(above, needed, total)
        kept = [
            w if above < needed or not above else 0 for w, above in zip(kept, heavier, strict=True)
        ]
    return kept


def weight_above(kept: Sequence[int]) -> dict[int, int]:
    """For each weight, the sum of all heavier ones."""
    running, above = 0, {}
    for weight, count in sorted(Counter(kept).items(), reverse=True):
        above[weight] = running
        running += weight * count
    return above


def draw(row: Row, kept: Sequence[int], weights: Weights) -> int:
    """The first token whose running sum exceeds the uniform's share of the total."""
    total = sum(kept)
    target = total * row.uniform // UNIFORM_PARTS
    running = 0
    chosen = None
    for token, weight in enumerate(kept):
        running += weight
        if weight and running != total:
            weights.require_distance(running, target, total)
        if chosen is None and running > target:
            chosen = token
    if chosen is None:
        raise ValueError("a uniform below 1 leaves no draw without a token")
    return chosen


def sample(row: Row) -> int | None:
    """The token of one row; None if it cannot be sampled."""
    logits = adjusted(row)
    if not is_valid(logits):
        return None
    if row.temperature == 0:
        winner = logits.index(max(logits))
        for token, (logit, raw) in enumerate(zip(logits, row.raw_logits, strict=True)):
            if token != winner and (logit != raw or logits[winner] != row.raw_logits[winner]):
                apart(logit, logits[winner])
        return winner
    weights = Weights.of(logits, row.temperature)
    return draw(row, keep(row, logits, weights), weights)


def log_probabilities(logits: Sequence[float]) -> list[float]:
    """Log softmax in float64."""
    largest = max(logits)
    normaliser = largest + math.log(math.fsum(math.exp(x - largest) for x in logits))
    return [x - normaliser for x in logits]


def expected(row: Row, num_logprobs: int) -> dict[str, Any]:
    """What the op must return for a row."""
    token_id = sample(row) if row.token_id is None else row.token_id
    if token_id is None:
        return {"valid": False}
    found: dict[str, Any] = {"token_id": token_id}
    if num_logprobs >= 0:
        logits = row.raw_logits
        logprobs = log_probabilities(logits)
        order = sorted(range(len(logits)), key=lambda token: -logits[token])
        top_ids = order[:num_logprobs]
        if len({logits[i] for i in order[: num_logprobs + 1]}) < len(order[: num_logprobs + 1]):
            raise TooCloseError("the order of equal tokens is nobody's promise")
        found["logprob"] = spelled(round(logprobs[token_id], 9))
        found["rank"] = 1 + sum(logit > logits[token_id] for logit in logits)
        found["top_ids"] = top_ids
        found["top_logprobs"] = [round(logprobs[i], 9) for i in top_ids]
    return found
