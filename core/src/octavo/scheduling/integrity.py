"""Proves what must always hold between requests, rows and blocks; for tests and idle time."""

from __future__ import annotations

from octavo.block_tables import BlockTables
from octavo.prefix_cache import first_visible_block
from octavo.request import Request, RequestStatus
from octavo.scheduling.invariant import require
from octavo.scheduling.ranked_list import RankedList
from octavo.scheduling.roster import Roster

__all__ = ["check_roster", "check_tables"]


def check_roster(roster: Roster, max_num_seqs: int) -> None:
    """Every request is in the one list of its status; every row is free or has one owner."""
    listed = [
        *_check_list(roster.waiting, RequestStatus.WAITING),
        *_check_list(roster.swapped, RequestStatus.SWAPPED),
        *_check_list(roster.running, RequestStatus.RUNNING),
    ]
    known = sorted(roster.by_id)
    require(sorted(listed) == known, f"requests in lists {sorted(listed)}, unfinished {known}")
    rows = sorted([*roster.free_rows, *(request.row for request in roster.running)])
    require(rows == list(range(max_num_seqs)), f"rows free or owned: {rows}")


def _check_list(requests: RankedList, status: RequestStatus) -> list[str]:
    ranks = [request.rank for request in requests]
    require(ranks == sorted(set(ranks)), f"{status} requests out of order: {ranks}")
    for request in requests:
        name, row = request.request_id, request.row
        require(request.status is status, f"{name!r} is {request.status} in the list of {status}")
        require((row >= 0) == (status is RequestStatus.RUNNING), f"{name!r}, {status}, has {row=}")
    return [request.request_id for request in requests]


def check_tables(tables: BlockTables, roster: Roster) -> None:
    """Counts and free lists agree with the tables; the tables hold what their requests need."""
    requests = list(roster.by_id.values())
    for group, (pool, host_pool) in enumerate(zip(tables.pools, tables.host_pools, strict=True)):
        pool.check_integrity([request.blocks[group] for request in requests])
        host_pool.check_integrity([request.host_blocks[group] for request in requests])
        for request in roster.running:
            _check_running(tables, request, group)
        for request in roster.swapped:
            _check_swapped(tables, request, group)
        for request in roster.waiting:
            held = (request.blocks[group], request.host_blocks[group], request.num_computed_tokens)
            require(held == ([], [], 0), f"{request.request_id!r} waits and holds {held}")


def _check_running(tables: BlockTables, request: Request, group: int) -> None:
    name, table, start = request.request_id, request.blocks[group], request.window_starts[group]
    num_computed_tokens = request.num_computed_tokens
    num_slots = len(table) * tables.block_size
    require(len(table) == len(request.blocks[0]), f"{name!r}: {group=} has a length of its own")
    require(num_computed_tokens <= num_slots, f"{name!r}: {num_computed_tokens=} > {num_slots=}")
    require(request.writable_tokens in (0, num_slots), f"{name!r}: {request.writable_tokens=}")
    require(not any(table[:start]) and all(table[start:]), f"{name!r}: {start=} in {table}")
    visible = first_visible_block(num_computed_tokens, tables.windows[group], tables.block_size)
    require(start <= visible, f"{name!r}: blocks {visible} to {start} of {group=} freed too early")
    require(not request.host_blocks[group], f"{name!r} runs and holds host blocks")


def _check_swapped(tables: BlockTables, request: Request, group: int) -> None:
    name = request.request_id
    num_blocks = -(-request.num_computed_tokens // tables.block_size)
    num_held = request.window_starts[group] + len(request.host_blocks[group])
    require(num_held == num_blocks, f"{name!r}: {num_held} of {num_blocks} blocks on the host")
    require(not request.blocks[group], f"{name!r} is swapped out and holds device blocks")
