"""How many threads the CPU backends take, in folders laid out as Linux does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from octavo_cpu.cores import num_usable_cores

EIGHT = frozenset(range(8))
V2 = {"proc/self/cgroup": "0::/outer/own\n"}
V1 = {"proc/self/cgroup": "4:memory:/m\n3:cpu,cpuacct:/own\n"}
SMT = {
    f"sys/devices/system/cpu/cpu{i}/topology/thread_siblings_list": f"{i % 4},{i % 4 + 4}\n"
    for i in range(8)
}
ADJACENT = {
    f"sys/devices/system/cpu/cpu{i}/topology/thread_siblings_list": f"{i & ~1}-{i | 1}\n"
    for i in range(8)
}


@pytest.mark.parametrize(
    ("files", "affinity", "expected"),
    [
        ({}, EIGHT, 8),
        ({}, frozenset({3}), 1),
        (SMT, EIGHT, 4),
        (ADJACENT, EIGHT, 4),
        (SMT, frozenset({0, 4}), 1),
        (SMT, frozenset({0, 1, 5}), 2),
        (V2, EIGHT, 8),
        ({**V2, "sys/fs/cgroup/outer/own/cpu.max": "max 100000\n"}, EIGHT, 8),
        ({**V2, "sys/fs/cgroup/outer/own/cpu.max": "250000 100000\n"}, EIGHT, 3),
        ({**V2, "sys/fs/cgroup/outer/own/cpu.max": "50000 100000\n"}, EIGHT, 1),
        (
            {
                **V2,
                "sys/fs/cgroup/outer/own/cpu.max": "600000 100000\n",
                "sys/fs/cgroup/outer/cpu.max": "200000 100000\n",
            },
            EIGHT,
            2,
        ),
        ({**SMT, **V2, "sys/fs/cgroup/outer/cpu.max": "600000 100000\n"}, EIGHT, 4),
        (
            {
                **V1,
                "sys/fs/cgroup/cpu,cpuacct/own/cpu.cfs_quota_us": "150000\n",
                "sys/fs/cgroup/cpu,cpuacct/own/cpu.cfs_period_us": "100000\n",
            },
            EIGHT,
            2,
        ),
        (
            {
                **V1,
                "sys/fs/cgroup/cpu/own/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/own/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            EIGHT,
            3,
        ),
    ],
)
def test_the_tightest_limit_counts(
    tmp_path: Path, files: Mapping[str, str], affinity: frozenset[int], expected: int
) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert num_usable_cores(tmp_path, affinity) == expected


def test_this_machine_has_a_core() -> None:
    assert num_usable_cores() >= 1
