"""Write octavo/testing/vectors/sampling.json: logits, settings and uniforms, and the right answers.

The answers are those of sampling_oracle, which shares no code with Octavo.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sampling_oracle import UNIFORM_PARTS, Row, TooCloseError, expected, float32, halvings

PATH = Path(__file__).parents[1] / "core/src/octavo/testing/vectors/sampling.json"
INF = math.inf


def random_logits(rng: random.Random, vocab_size: int, spread: int = 4) -> list[float]:
    """Multiples of 1/64 from -spread to spread, no two equal."""
    return [x / 64 for x in rng.sample(range(-64 * spread, 64 * spread), vocab_size)]


def undisputed(rng: random.Random, count: int, **settings: Any) -> list[Row]:
    """Random rows with the given settings, as many as asked for, none near a boundary.

    A setting may be a function of the generator.
    """
    rows: list[Row] = []
    while len(rows) < count:
        drawn = {name: v(rng) if callable(v) else v for name, v in settings.items()}
        drawn.setdefault("logits", random_logits(rng, 24))
        row = Row(**{"uniform": rng.randrange(UNIFORM_PARTS), **drawn})
        try:
            expected(row, 3)
        except TooCloseError:
            continue
        rows.append(row)
    return rows


def greedy_rows(rng: random.Random) -> Iterator[Row]:
    """The likeliest, of equals the one of smallest id."""
    yield Row([1.0, 5.0, 3.0, 5.0, 5.0, -2.0], temperature=0.0)
    yield Row([2.0] * 6, temperature=0.0)
    yield Row([-INF, -INF, -7.0, -INF, -7.0, -8.0], temperature=0.0)
    yield Row([-INF, -INF, -INF, -INF, -INF, -90.0], temperature=0.0)
    for _ in range(3):
        # Settings that greedy sampling does not look at.
        logits = random_logits(rng, 6)
        yield Row(logits, temperature=0.0, uniform=UNIFORM_PARTS - 1, top_p=0.1, min_p=1.0)


def tied_rows() -> Iterator[Row]:
    """Eight equal tokens: a uniform of k/8 draws token k, the one just below it token k - 1."""
    for eighth in range(8):
        for uniform in (eighth, eighth + 1):
            below = uniform != eighth
            parts = uniform * UNIFORM_PARTS // 8 - below
            yield Row([0.5] * 8, uniform=parts, temperature=float32(0.7))


def halved_rows() -> Iterator[Row]:
    """Weights 1, 1/2, 1/4, 1/8, 1/8 in a mixed order, and uniforms on and next to each edge."""
    logits = halvings(2, 0, 3, 1, 3)
    for edge in (2, 10, 11, 15):
        for parts in (edge * UNIFORM_PARTS // 16 - 1, edge * UNIFORM_PARTS // 16):
            yield Row(logits, uniform=parts)
            yield Row([float32(x / 2) for x in logits], uniform=parts, temperature=0.5)


def unlikely_rows() -> Iterator[Row]:
    """What is 2**-25 as likely can be drawn, by the last uniform only; what is less cannot."""
    last = UNIFORM_PARTS - 1
    yield Row(halvings(0, 20, 60), uniform=last)
    yield Row(halvings(0, 30, 60), uniform=last)
    yield Row([0.0, -INF, -INF], uniform=last)
    yield Row([-INF, -INF, -3.0], uniform=0)
    yield Row([-200.0, -200.0, -500.0], uniform=last)


def top_k_rows(rng: random.Random) -> Iterator[Row]:
    """The k-th largest and its equals stay."""
    # As many as there are, and more: all 24 stay, the least likely too.
    for top_k in (24, 60):
        yield Row([-i / 64 for i in range(24)], top_k=top_k, uniform=UNIFORM_PARTS - 1)
    for top_k in (1, 2, 3, 4, 5, 6):
        yield Row(halvings(1, 0, 1, 2, 1), top_k=top_k, uniform=UNIFORM_PARTS - 1)
        yield Row(halvings(1, 0, 1, 2, 1), top_k=top_k, uniform=0)
    for top_k in (1, 2, 7, 23, 24, 25):
        yield from undisputed(rng, 2, top_k=top_k, temperature=2.0)


def top_p_rows(rng: random.Random) -> Iterator[Row]:
    """A token stays if all heavier ones together are less than top_p of the total."""
    last = UNIFORM_PARTS - 1
    for sixteenths in (1, 8, 9, 12, 13, 14, 15):
        # Weights of 8, 4, 2, 1 and 1 sixteenths: the running sums are 8, 12, 14 and 16.
        for uniform in (0, last):
            yield Row(halvings(3, 2, 3, 1, 0), top_p=sixteenths / 16, uniform=uniform)
    just_above = float32(0.75 + 2**-20)
    yield Row(halvings(3, 2, 3, 1, 0), top_p=just_above, uniform=0)
    yield Row([1.0] * 5, top_p=0.1, uniform=last)  # equals stay or go together
    yield Row(halvings(1, 0, 1), top_p=2**-12, uniform=last)  # the likeliest alone
    for top_p in (0.0625, 0.3, 0.5, 0.9, 0.99):
        yield from undisputed(rng, 2, top_p=float32(top_p), temperature=float32(1.3))


def min_p_rows(rng: random.Random) -> Iterator[Row]:
    """A token stays if it is at least min_p as likely as the likeliest, at this temperature."""
    last = UNIFORM_PARTS - 1
    for min_p in (0.125, 0.25, 0.5, 1.0, float32(0.25 + 2**-20)):
        yield Row(halvings(0, 1, 2, 3), min_p=min_p, uniform=last)
    yield Row(halvings(0, 2, 4, 6), min_p=0.25, temperature=2.0, uniform=last)
    yield Row(halvings(0, 2, 4, 6), min_p=0.0625, temperature=2.0, uniform=last)
    for min_p in (0.0625, 0.3, 0.8):
        yield from undisputed(rng, 2, min_p=float32(min_p), temperature=float32(0.6))
        yield from undisputed(rng, 2, min_p=float32(min_p), temperature=2.0)


def combined_rows(rng: random.Random) -> Iterator[Row]:
    """min_p, then top_k, then top_p of what is left."""
    last = UNIFORM_PARTS - 1
    # Of all, the three heaviest are 8 + 4 + 2 of 16; of the top 2 alone, the first is 8 of 12.
    yield Row(halvings(1, 0, 2, 3, 3), top_k=2, top_p=0.625, uniform=last)
    yield Row(halvings(1, 0, 2, 3, 3), top_k=2, top_p=0.75, uniform=0)
    yield Row(halvings(2, 0, 1, 3, 3), min_p=0.25, top_p=0.875, uniform=0)
    yield from undisputed(
        rng,
        8,
        temperature=lambda r: float32(r.choice([0.5, 0.8, 1.0, 1.7])),
        top_k=lambda r: r.choice([0, 4, 9, 15]),
        top_p=lambda r: float32(r.choice([1.0, 0.95, 0.6])),
        min_p=lambda r: float32(r.choice([0.0, 0.02, 0.2])),
    )


def seen_tokens(rng: random.Random) -> dict[int, int]:
    """Some tokens of the prompt (0) and of the output."""
    return {token: rng.randrange(4) for token in sorted(rng.sample(range(24), 9))}


def penalty_rows(rng: random.Random) -> Iterator[Row]:
    """Repetition divides what is above 0 and multiplies what is below; the others subtract."""
    seen = {0: 0, 1: 2, 2: 0, 3: 1}
    for logits in ([4.0, 3.5, 1.0, 0.5, 2.5], [-1.0, -1.5, -9.0, -2.0, -1.75]):
        yield Row(logits, temperature=0.0, seen=seen, repetition_penalty=2.0)
        yield Row(logits, temperature=0.0, seen=seen, repetition_penalty=0.5)
        yield Row(logits, temperature=0.0, seen=seen, presence_penalty=1.25)
        yield Row(logits, temperature=0.0, seen=seen, presence_penalty=-1.75)
        yield Row(logits, temperature=0.0, seen=seen, frequency_penalty=0.875)
        yield Row(logits, temperature=0.0, seen=seen, frequency_penalty=-1.125)
    yield Row([2.0, 3.0, 1.0], temperature=0.0, seen={0: 1}, repetition_penalty=0.5)
    yield from undisputed(
        rng,
        8,
        seen=seen_tokens,
        repetition_penalty=lambda r: float32(r.choice([1.0, 1.3, 0.7])),
        presence_penalty=lambda r: float32(r.choice([0.0, 0.5, -1.1])),
        frequency_penalty=lambda r: float32(r.choice([0.0, 0.37, -0.8])),
    )


def bias_rows(rng: random.Random) -> Iterator[Row]:
    """Added to logits; -inf bans."""
    yield Row([1.0, 2.0, 3.0, 0.0], temperature=0.0, bias={0: 2.5})
    yield Row([1.0, 2.0, 3.0, 0.0], temperature=0.0, bias={2: -INF, 1: -1.5})
    yield Row([1.0, 2.0, 3.0, 0.0], temperature=0.0, bias={3: 100.0, 2: -100.0})
    yield Row([1.0, 1.0, 1.0, 1.0], bias={0: -INF, 1: -INF, 3: -INF}, uniform=0)
    yield from undisputed(rng, 4, bias={3: 2.0, 11: -INF, 12: -1.5, 20: 3.25})


def mask_rows(rng: random.Random) -> Iterator[Row]:
    """Only allowed tokens, and what comes after the mask cannot bring others back."""
    yield Row([3.0, 2.0, 1.0, 0.0], temperature=0.0, allowed=[1, 3])
    yield Row([3.0, 2.0, 1.0, 0.0], allowed=[3], uniform=0)
    yield Row([3.0, 2.0, 1.0, 0.0], temperature=0.0, allowed=[2, 3], bias={0: 50.0, 3: 2.0})
    # (1 + 3) / 2 after bias and then repetition; the other order gives 1 / 2 + 3.
    yield Row(
        [1.0, 2.5, -4.0, 0.0],
        temperature=0.0,
        allowed=[0, 1, 2],
        bias={0: 3.0, 3: 9.0},
        seen={0: 1, 3: 1},
        repetition_penalty=2.0,
    )
    yield from undisputed(rng, 4, allowed=[1, 4, 5, 9, 17, 22, 23], top_p=0.75)


def unusable_rows(rng: random.Random) -> Iterator[Row]:
    """Rows without an answer, between rows with one."""
    plain = random_logits(rng, 4)
    yield Row(plain, temperature=0.0)
    yield Row([0.0, math.nan, 2.0, 1.0], temperature=0.0)
    yield Row(plain, uniform=UNIFORM_PARTS // 2)
    yield Row([0.0, 1.0, 2.0, math.nan], uniform=0)
    yield Row([-INF] * 4, uniform=UNIFORM_PARTS // 3)
    yield Row([-INF] * 4, temperature=0.0)
    yield Row([0.0, INF, 2.0, 1.0], temperature=0.0)
    yield Row([0.0, 1.0, INF, 1.0], uniform=0)
    yield Row(plain, uniform=UNIFORM_PARTS // 2, top_p=0.5)
    yield Row(plain, allowed=[])
    yield Row(plain, bias=dict.fromkeys(range(4), -INF), temperature=0.0)
    yield Row(plain, temperature=0.0)


def mixed_rows(rng: random.Random) -> Iterator[Row]:
    """Rows of every kind side by side."""
    yield from undisputed(rng, 1, temperature=0.0)
    yield from undisputed(rng, 1)
    yield from undisputed(rng, 1, top_k=3, seen=seen_tokens, repetition_penalty=1.5)
    yield from undisputed(rng, 1, temperature=0.0, bias={7: 6.0})
    yield from undisputed(rng, 1, top_p=0.5, allowed=list(range(3, 20)))
    yield from undisputed(rng, 1, min_p=0.125, temperature=0.25)
    yield from undisputed(rng, 1, temperature=0.0, seen=seen_tokens, frequency_penalty=1.5)


def wide_rows(rng: random.Random) -> Iterator[Row]:
    """More tokens than a kernel looks at in one piece."""

    def a_hash(r: random.Random) -> tuple[int, int, int]:
        return (r.randrange(1000, 8000), r.randrange(8191), 5003)

    for settings in (
        {"temperature": 0.0},
        {"temperature": 0.0625},
        {"top_k": 50},
        {"top_k": 1200, "temperature": 0.125},
        {"top_p": 0.875, "temperature": 0.0625},
        {"min_p": 0.25, "temperature": 0.0625},
        {"top_k": 20, "top_p": 0.75},
    ):
        yield from undisputed(rng, 1, logits=[], hash=a_hash, **settings)


def adjusted_rows(rng: random.Random) -> Iterator[Row]:
    """More adjustments than a kernel takes in one piece: the last one decides."""
    wide = {"logits": [], "temperature": 0.0}

    def a_hash() -> tuple[int, int, int]:
        return (rng.randrange(1000, 8000), rng.randrange(8191), 66_001)

    yield Row(hash=a_hash(), bias={**dict.fromkeys(range(1, 2400, 2), -1.0), 66_000: 32.0}, **wide)
    counts = {**dict.fromkeys(range(2, 2400, 2), 100), 65_999: 200}
    yield Row(hash=a_hash(), seen=counts, frequency_penalty=-1.0, **wide)


def temperature_rows(rng: random.Random) -> Iterator[Row]:
    """Temperatures as users set them, one that is nearly greedy, and one that nearly is not."""
    yield from undisputed(rng, 4)
    yield from undisputed(rng, 6, temperature=sharpness)
    for temperature in (1 / 64, 8.0):
        logits = [logit * temperature for logit in halvings(0, 1, 1)]
        yield Row(logits, temperature=temperature, uniform=UNIFORM_PARTS - 1)


def sharpness(rng: random.Random) -> float:
    """A temperature."""
    return float32(rng.choice([0.05, 0.3, 0.7, 1.4, 2.0]))


SAMPLED = (
    ("greedy", -1, greedy_rows),
    ("temperature", -1, temperature_rows),
    ("equal tokens", -1, lambda _: tied_rows()),
    ("edges of the draw", -1, lambda _: halved_rows()),
    ("hardly likely tokens", -1, lambda _: unlikely_rows()),
    ("top_k", -1, top_k_rows),
    ("top_p", -1, top_p_rows),
    ("min_p", -1, min_p_rows),
    ("min_p, top_k and top_p", -1, combined_rows),
    ("penalties", -1, penalty_rows),
    ("bias", -1, bias_rows),
    ("mask, bias and penalties", -1, mask_rows),
    ("unusable rows", -1, unusable_rows),
    ("rows of every kind", -1, mixed_rows),
    ("wide", -1, wide_rows),
    ("more adjustments", -1, adjusted_rows),
    ("log-probability of the token alone", 0, mixed_rows),
    ("log-probabilities", 3, mixed_rows),
    ("log-probabilities, wide", 5, wide_rows),
)


def given_rows(rng: random.Random) -> Iterator[Row]:
    """Tokens to look up: the likeliest, the last, one among equals, one that is impossible."""
    logits = random_logits(rng, 12, spread=12)
    for token_id in (logits.index(max(logits)), logits.index(min(logits)), 0, 11):
        yield Row(logits, token_id=token_id)
    tied = [0.0, 4.0, 1.0, 3.0, 1.0, 1.0, 2.0, -1.0, -2.0, -3.0, -4.0, -5.0]
    for token_id in (2, 4, 5, 6, 7):
        yield Row(tied, token_id=token_id)
    yield Row([*tied[:11], -INF], token_id=11)
    yield Row([x - 300 for x in tied], token_id=0)


def wide_given_rows(rng: random.Random) -> Iterator[Row]:
    """Tokens to look up in a large vocabulary."""
    for token_id in (0, 1023, 4096, 5002):
        yield Row(hash=(rng.randrange(1000, 8000), rng.randrange(8191), 5003), token_id=token_id)


GIVEN = (
    ("given tokens", 3, given_rows),
    ("given tokens, nothing but them", 0, given_rows),
    ("given tokens, wide", 20, wide_given_rows),
)


def cases(table: Sequence[tuple[str, int, Any]]) -> list[dict[str, Any]]:
    """The table's rows with their answers."""
    found = []
    for label, num_logprobs, make_rows in table:
        rows = [
            {**row.as_json(), "expected": expected(row, num_logprobs)}
            for row in make_rows(random.Random(label))  # noqa: S311
        ]
        found.append({"label": label, "num_logprobs": num_logprobs, "rows": rows})
    return found


def vectors() -> str:
    """The file's content."""
    document = {
        "source": "scripts/make_sampling_vectors.py: float64 and exact integers, by the rules in "
        "the docstring of octavo.ops.sampling",
        "hash": "logit of token i = ((multiplier * i + offset) % 8191 - 4095) / 512",
        "uniform": "in parts of 2**24",
        "sample": cases(SAMPLED),
        "token_logprobs": cases(GIVEN),
    }
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    return text.replace('{"label"', '\n{"label"').replace('{"logits"', '\n{"logits"') + "\n"


if __name__ == "__main__":
    PATH.write_text(vectors(), encoding="utf-8")
    print(f"{PATH}: {PATH.stat().st_size} bytes")
