"""Which nodes of memory the CPU backends spread weights over, in folders laid out as Linux does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from octavo_cpu.cores import parse_list
from octavo_cpu.nodes import usable_nodes

NODES = "sys/devices/system/node"
ALL = frozenset(range(16))
FOUR = {
    f"{NODES}/online": "0-3\n",
    f"{NODES}/has_memory": "0-2\n",
    f"{NODES}/node0/cpulist": "0-3,8-11\n",
    f"{NODES}/node1/cpulist": "4-7,12-15\n",
    f"{NODES}/node2/cpulist": "\n",  # memory alone
    f"{NODES}/node3/cpulist": "16-17\n",  # processors alone
    "proc/self/status": "Name:\tpython\nMems_allowed_list:\t0-3\n",
}
WITHOUT_LIST = {path: text for path, text in FOUR.items() if not path.endswith("has_memory")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", []), ("\n", []), ("0\n", [0]), ("0-1,3", [0, 1, 3]), ("2,0-0", [0, 2])],
)
def test_lists_as_the_kernel_writes_them(text: str, expected: list[int]) -> None:
    assert sorted(parse_list(text)) == expected


@pytest.mark.parametrize(
    ("files", "affinity", "expected"),
    [
        ({}, ALL, []),
        ({f"{NODES}/online": "0\n", f"{NODES}/node0/cpulist": "0-15\n"}, ALL, [0]),
        (FOUR, ALL, [0, 1]),
        (FOUR, frozenset({2, 3, 9}), [0]),
        (FOUR, frozenset({3, 15}), [0, 1]),
        ({**FOUR, "proc/self/status": "Mems_allowed_list:\t1,3\n"}, ALL, [1]),
        ({**FOUR, "proc/self/status": "Name:\tpython\n"}, ALL, [0, 1]),
        (WITHOUT_LIST, frozenset(range(20)), [0, 1, 3]),
    ],
)
def test_nodes_with_memory_and_processors_that_may_be_used(
    tmp_path: Path, files: Mapping[str, str], affinity: frozenset[int], expected: list[int]
) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert usable_nodes(tmp_path, affinity) == expected
