"""A device that only remembers: it stores, moves and reads tokens exactly as a Schedule says.

Each slot holds a fingerprint of all tokens up to its position (and the salt), as a real KV entry
depends on them. A block given to the wrong request, overwritten too early, or not copied in time
shows as a wrong fingerprint where somebody reads.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from octavo.request import Request
from octavo.scheduler import GroupConfig, Schedule, SchedulerConfig

VOCABULARY = 4


def fingerprints(salt, token_ids):
    """What the KV of each position depends on: the salt and all tokens up to it."""
    value = zlib.crc32(repr(salt).encode())
    values = []
    for token_id in token_ids:
        value = hash((value, token_id))
        values.append(value)
    return values


def next_token(fingerprint, seed):
    """The 'model': a token that depends on everything before it, and on the request's seed."""
    return hash((fingerprint, seed, 17)) % VOCABULARY


@dataclass(frozen=True)
class Query:
    """One request's part of a step, noted when it was scheduled."""

    request: Request
    row: int
    start: int
    end: int
    expected: list[int]


class PagedExecutor:
    """Device and host memory of every group, and block tables kept from the updates alone."""

    def __init__(self, config: SchedulerConfig, groups: list[GroupConfig]):
        self.config, self.groups, size = config, groups, config.block_size
        self.device = [[[None] * size for _ in range(group.num_blocks)] for group in groups]
        self.host = [[[None] * size for _ in range(group.num_host_blocks)] for group in groups]
        width = -(-config.max_model_len // size)
        self.tables = [[[0] * width for _ in range(config.max_num_seqs)] for _ in groups]
        self.row_owners = {}

    def prepare(self, schedule: Schedule) -> list[Query]:
        """Note what the step will do, as an engine does before the device runs."""
        for row, group, start, blocks in schedule.table_updates:
            self.tables[group][row][start : start + len(blocks)] = blocks
        for request in schedule.new_requests:
            self.row_owners[request.row] = request
        queries = []
        for request, num_tokens in zip(schedule.requests, schedule.num_tokens, strict=True):
            assert self.row_owners[request.row] is request, "row was not announced"
            start = request.num_computed_tokens
            end = start + num_tokens
            assert 0 < num_tokens <= request.num_tokens - start
            expected = fingerprints(request.cache_salt, request.token_ids(0, end))
            queries.append(Query(request, request.row, start, end, expected))
        assert len({query.row for query in queries}) == len(queries), "a row runs twice"
        return queries

    def run(self, schedule: Schedule, queries: list[Query]) -> None:
        """Swap out, swap in, copy, write, read; in this order."""
        for group in range(len(self.groups)):
            self._move(group, schedule)
        for group in range(len(self.groups)):
            written = set()
            for query in queries:
                for position in range(query.start, query.end):
                    slot = self._slot(group, query, position)
                    assert slot not in written, f"two requests write to {slot=}"
                    written.add(slot)
                    self.device[group][slot[0]][slot[1]] = query.expected[position]
            for query in queries:
                self._read(group, query)

    def _move(self, group, schedule):
        device, host = self.device[group], self.host[group]
        for source, target in schedule.swap_out[group]:
            assert source > 0
            host[target] = list(device[source])
        for source, target in schedule.swap_in[group]:
            assert target > 0
            device[target] = list(host[source])
        pairs = schedule.copies[group]
        targets = [target for _, target in pairs]
        assert len(set(targets)) == len(targets), f"a block is the target of two copies: {pairs}"
        assert not {source for source, _ in pairs} & set(targets), f"copies overlap: {pairs}"
        for source, target in pairs:
            assert source > 0
            assert target > 0
            device[target] = list(device[source])

    def _slot(self, group, query, position):
        block = self.tables[group][query.row][position // self.config.block_size]
        assert block > 0, f"position {position} of {query.request.request_id} has no block"
        return block, position % self.config.block_size

    def _read(self, group, query):
        window = self.groups[group].window
        first = 0 if window is None else max(0, query.start - window + 1)
        for position in range(first, query.end):
            block, offset = self._slot(group, query, position)
            found = self.device[group][block][offset]
            assert found == query.expected[position], (
                f"group {group}: {query.request.request_id} reads position {position} from block "
                f"{block} and finds another token's KV"
            )
