"""Host memory: the tightest of the machine and the control groups around this process."""

from __future__ import annotations

import sys

import pytest

import octavo.host_memory
from octavo.host_memory import host_memory


def test_memory_is_that_of_the_machine():
    info = host_memory()
    assert 0 < info.free_bytes <= info.total_bytes
    assert info.shared_with_host


MEMINFO = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    600 kB\n"


def _files(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("files", "free_kib", "total_kib"),
    [
        ({}, 600, 1000),
        (
            {  # version 2: an outer group is tighter than the own one, and its file cache gives way
                "proc/self/cgroup": "0::/outer/own\n",
                "sys/fs/cgroup/outer/own/memory.max": "max\n",
                "sys/fs/cgroup/outer/own/memory.current": "1\n",
                "sys/fs/cgroup/outer/memory.max": f"{500 * 1024}\n",
                "sys/fs/cgroup/outer/memory.current": f"{300 * 1024}\n",
                "sys/fs/cgroup/outer/memory.stat": f"anon 5\ninactive_file {100 * 1024}\n",
            },
            300,
            500,
        ),
        (
            {  # version 1
                "proc/self/cgroup": "5:cpu,memory:/own\n1:name=systemd:/\n",
                "sys/fs/cgroup/memory/own/memory.limit_in_bytes": f"{400 * 1024}\n",
                "sys/fs/cgroup/memory/own/memory.usage_in_bytes": f"{500 * 1024}\n",
            },
            0,
            400,
        ),
    ],
    ids=["no group", "version 2", "version 1"],
)
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no /proc to imitate")
def test_control_groups_bound_the_memory(tmp_path, files, free_kib, total_kib):
    _files(tmp_path, {"proc/meminfo": MEMINFO, **files})
    usage = octavo.host_memory._usage(tmp_path)
    assert (usage.free_bytes, usage.total_bytes) == (free_kib * 1024, total_kib * 1024)


def test_macos_pages_are_read():
    report = (
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\n"
        "Pages free:                               10.\n"
        "Pages active:                            500.\n"
        "Pages inactive:                           20.\n"
        "Pages speculative:                         3.\n"
    )
    assert octavo.host_memory._parse_vm_stat(report) == 33 * 16384
