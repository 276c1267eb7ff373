"""How much KV memory holds no token: Octavo's paged blocks beside contiguous allocation.

python benchmarks/kv_waste.py [--requests N] [--seed S] [--json FILE]

The real scheduler and block manager run a seeded mix of lengths (log-normal, 161 tokens in and 338
out on average, as ShareGPT) under continuous batching; nothing is computed. Beside it stand the
three contiguous allocators of the PagedAttention paper (arXiv 2309.06180, section 6.1), each over
a buddy allocator of the same memory: Orca (Max) reserves the model's maximum length, Orca (Pow2)
the output rounded up to a power of two, Orca (Oracle) exactly what the request will need.

Figures are averages over the steps in which requests are waiting, so that memory is the limit.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from zlib import crc32

from octavo.request import FinishReason, Request
from octavo.scheduler import GroupConfig, Schedule, Scheduler, SchedulerConfig

MEAN_INPUT_TOKENS = 161
MEAN_OUTPUT_TOKENS = 338
MAX_MODEL_LEN = 2048
NUM_SLOTS = 16_384  # about what OPT-13B leaves of 40 GB, the paper's first setting
PAPER_USEFUL = {
    "Orca (Max)": 0.204,
    "Orca (Pow2)": 0.268,
    "Orca (Oracle)": 0.382,
    "Octavo, blocks of 16": 0.963,  # vLLM's figure
}


@dataclass(frozen=True)
class Lengths:
    """Tokens in and out of one request."""

    num_input: int
    num_output: int


@dataclass(frozen=True)
class Usage:
    """Averages over the measured steps."""

    useful_of_all: float
    """Slots that hold a token, of all slots."""
    useful_of_allocated: float
    """Slots that hold a token, of the slots that somebody holds."""
    num_running: float

    @property
    def waste(self) -> float:
        """Share of allocated slots which hold no token."""
        return 1 - self.useful_of_allocated


class Meter:
    """Averages a quantity over steps."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int]] = []

    def note(self, num_tokens: int, num_allocated_slots: int, num_running: int) -> None:
        """One step's state, at the end of the step."""
        self.rows.append((num_tokens, num_allocated_slots, num_running))

    def usage(self) -> Usage:
        """The averages; of ratios of sums, so that a full step counts as much as it holds."""
        tokens, allocated, running = (sum(column) for column in zip(*self.rows, strict=True))
        num_steps = len(self.rows)
        return Usage(tokens / (num_steps * NUM_SLOTS), tokens / allocated, running / num_steps)


def sample_lengths(num_requests: int, seed: int) -> list[Lengths]:
    """A seeded log-normal mix whose means are those of ShareGPT."""
    rng = random.Random(seed)
    inputs = _sample_lognormal(rng, num_requests, MEAN_INPUT_TOKENS, sigma=1.1)
    outputs = _sample_lognormal(rng, num_requests, MEAN_OUTPUT_TOKENS, sigma=0.9)
    return [Lengths(*pair) for pair in zip(inputs, outputs, strict=True)]


def _sample_lognormal(rng: random.Random, count: int, mean: float, sigma: float) -> list[int]:
    """Lengths in [4, 1024] of the given mean: the scale is bisected until the sample has it."""
    shapes = [math.exp(rng.gauss(0, sigma)) for _ in range(count)]
    low, high = 0.0, 10 * mean
    for _ in range(60):
        scale = (low + high) / 2
        lengths = [min(max(round(scale * shape), 4), MAX_MODEL_LEN // 2) for shape in shapes]
        low, high = (scale, high) if sum(lengths) < mean * count else (low, scale)
    return lengths


class BuddyAllocator:
    """Contiguous chunks of a power of two, split and merged in halves."""

    def __init__(self, num_slots: int) -> None:
        self.free: dict[int, set[int]] = {num_slots: {0}}  # chunk size -> offsets
        self.num_slots = num_slots

    def allocate(self, num_slots: int) -> tuple[int, int] | None:
        """(offset, size) of a chunk that holds ``num_slots``; None if there is none."""
        size = 1 << (num_slots - 1).bit_length()
        found = min((s for s, offsets in self.free.items() if s >= size and offsets), default=None)
        if found is None:
            return None
        offset = self.free[found].pop()
        while found > size:
            found //= 2
            self.free.setdefault(found, set()).add(offset + found)
        return offset, size

    def release(self, offset: int, size: int) -> None:
        """Give a chunk back, merged with its buddies as far as they are free."""
        while size < self.num_slots and (offset ^ size) in self.free.get(size, ()):
            self.free[size].remove(offset ^ size)
            offset &= ~size
            size *= 2
        self.free.setdefault(size, set()).add(offset)


def simulate_contiguous(mix: Sequence[Lengths], reserve: Callable[[Lengths], int]) -> Usage:
    """Continuous batching in which a request starts once its whole reservation fits."""
    buddy, meter = BuddyAllocator(NUM_SLOTS), Meter()
    waiting = list(reversed(mix))
    running: list[tuple[Lengths, int, tuple[int, int]]] = []  # lengths, stored tokens, chunk
    while waiting:
        while waiting and (chunk := buddy.allocate(reserve(waiting[-1]))):
            lengths = waiting.pop()
            running.append((lengths, lengths.num_input - 1, chunk))
        running = [(lengths, stored + 1, chunk) for lengths, stored, chunk in running]
        meter.note(
            sum(stored for _, stored, _ in running),
            sum(size for _, _, (_, size) in running),
            len(running),
        )
        for lengths, stored, chunk in running:
            if stored == lengths.num_input + lengths.num_output - 1:
                buddy.release(*chunk)
        running = [
            entry for entry in running if entry[1] < entry[0].num_input + entry[0].num_output - 1
        ]
    return meter.usage()


def make_scheduler(block_size: int) -> Scheduler:
    """The real thing, over the same number of slots (and the reserved block)."""
    config = SchedulerConfig(max_model_len=MAX_MODEL_LEN, block_size=block_size)
    return Scheduler(config, [GroupConfig(NUM_SLOTS // block_size + 1)])


def make_request(name: str, lengths: Lengths, token_id: int) -> Request:
    """A prompt of one token, repeated: a token id of its own keeps it from prefix hits."""
    return Request(name, [token_id] * lengths.num_input, lengths.num_output)


def own_token(request: Request) -> int:
    """What a request samples, always: no two have an output in common."""
    return crc32(request.request_id.encode())


def advance(scheduler: Scheduler, schedule: Schedule) -> list[Request]:
    """Append a token to everybody who samples, end who is done; returns who goes on."""
    going_on = []
    for request in schedule.requests:
        if request.num_computed_tokens == request.num_tokens:
            request.output_token_ids.append(own_token(request))
            if request.num_output_tokens >= request.max_tokens:
                scheduler.finish(request, FinishReason.LENGTH)
                continue
        going_on.append(request)
    return going_on


def simulate_paged(mix: Sequence[Lengths], block_size: int) -> Usage:
    """Octavo's scheduler on the mix."""
    scheduler, meter = make_scheduler(block_size), Meter()
    for index, lengths in enumerate(mix):
        scheduler.add(make_request(str(index), lengths, index))
    running: dict[Request, None] = {}
    while scheduler.num_waiting:
        schedule = scheduler.schedule()
        scheduler.commit(schedule)
        running.update(dict.fromkeys(schedule.requests))
        running = {request: None for request in running if request.row >= 0}
        meter.note(
            sum(request.num_computed_tokens for request in running),
            scheduler.stats.groups[0].num_used * block_size,
            len(running),
        )
        advance(scheduler, schedule)
    return meter.usage()


def measure_sharing(mix: Sequence[Lengths], num_samples: int, block_size: int = 16) -> float:
    """Share of blocks saved by forks, against each sample holding blocks of its own."""
    scheduler = make_scheduler(block_size)
    for index, lengths in enumerate(mix):
        scheduler.add(make_request(str(index), lengths, index))
    rng = random.Random(0)
    running: dict[Request, None] = {}
    families: set[str] = set()
    held = used = 0
    while scheduler.num_waiting:
        schedule = scheduler.schedule()
        scheduler.commit(schedule)
        running.update(dict.fromkeys(schedule.requests))
        for request in advance(scheduler, schedule):
            if request.num_output_tokens == 1 and request.request_id.split(".")[0] not in families:
                families.add(request.request_id)
                children = make_children(request, num_samples, rng.choice(mix).num_output)
                running.update(
                    {child: None for child in children if scheduler.fork(request, child)}
                )
        running = {request: None for request in running if request.row >= 0}
        used += scheduler.stats.groups[0].num_used
        held += sum(len(request.blocks[0]) for request in running)
    return 1 - used / held


def make_children(parent: Request, num_samples: int, num_output: int) -> list[Request]:
    """The other samples, each with a first token of its own."""
    lengths = Lengths(parent.num_prompt_tokens, max(num_output, 2))
    names = (f"{parent.request_id}.{number}" for number in range(1, num_samples))
    children = [make_request(name, lengths, parent.prompt_token_ids[0]) for name in names]
    for child in children:
        child.output_token_ids.append(own_token(child))
    return children


def measure(num_requests: int, seed: int) -> tuple[dict[str, Usage], dict[int, float]]:
    """Usage by allocator, and blocks saved by number of samples."""
    mix = sample_lengths(num_requests, seed)
    usages = {
        "Orca (Max)": simulate_contiguous(mix, lambda _: MAX_MODEL_LEN),
        "Orca (Pow2)": simulate_contiguous(
            mix, lambda x: x.num_input + (1 << (x.num_output - 1).bit_length())
        ),
        "Orca (Oracle)": simulate_contiguous(mix, lambda x: x.num_input + x.num_output),
    }
    for block_size in (8, 16, 32):
        usages[f"Octavo, blocks of {block_size}"] = simulate_paged(mix, block_size)
    sharing = {num_samples: measure_sharing(mix, num_samples) for num_samples in (2, 4, 6)}
    return usages, sharing


def report(usages: dict[str, Usage], sharing: dict[int, float]) -> str:
    """The table as Markdown."""
    lines = [
        "| allocator | waste of allocated slots | useful share of all memory | paper | running |",
        "|---|---|---|---|---|",
    ]
    for name, usage in usages.items():
        paper = f"{PAPER_USEFUL[name]:.1%}" if name in PAPER_USEFUL else ""
        lines.append(
            f"| {name} | {usage.waste:.1%} | {usage.useful_of_all:.1%} | {paper} "
            f"| {usage.num_running:.1f} |"
        )
    lines += [
        "",
        "| samples of one prompt | blocks saved by sharing (paper: 6 to 30 %) |",
        "|---|---|",
    ]
    lines += [f"| {num_samples} | {saved:.1%} |" for num_samples, saved in sharing.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args()
    usages, sharing = measure(arguments.requests, arguments.seed)
    print(report(usages, sharing))
    if arguments.json:
        figures = {
            "allocators": {name: asdict(u) | {"waste": u.waste} for name, u in usages.items()},
            "blocks_saved_by_samples": sharing,
        }
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
