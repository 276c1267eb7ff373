"""Memory spread over nodes: the kernel says so, and what lies there is as it was."""

from __future__ import annotations

import ctypes
import mmap
import platform
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from tests.native.kernel_case import run, runnable_variants

from octavo.api import KVSpec
from octavo_cpu.native.caches import make_cache
from octavo_cpu.native.instruction import Element, Opcode, Scheme
from octavo_cpu.native.library import Context, load_library, spread_over
from octavo_cpu.nodes import usable_nodes

MAPPINGS = Path("/proc/self/numa_maps")
PAGE_BYTES = mmap.PAGESIZE
ROWS, COLUMNS = 2048, 1024

pytestmark = pytest.mark.parametrize("variant", runnable_variants()[:1])


@pytest.fixture
def nodes() -> Iterator[list[int]]:
    """The nodes that memory is spread over during a test, though it be one."""
    found = usable_nodes()
    if not found or not MAPPINGS.exists():
        pytest.skip("the system tells nothing about its memory's nodes")
    library = load_library()
    if not spread_over(library, found):
        pytest.skip("the system refuses to spread memory")
    yield found
    spread_over(library, found if len(found) > 1 else [])


def spread_mappings() -> str:
    """What the kernel says of memory that is spread."""
    return "\n".join(re.findall(r"^\w+ interleave.*$", MAPPINGS.read_text(), re.MULTILINE))


def spread_bytes() -> int:
    """What this process has touched of it."""
    return sum(map(int, re.findall(r"\banon=(\d+)", spread_mappings()))) * PAGE_BYTES


def test_weights_are_spread_and_multiplied(variant: str, nodes: list[int]) -> None:
    weight = np.random.default_rng(0).standard_normal((ROWS, COLUMNS), np.float32)
    x, out = np.eye(4, COLUMNS, dtype=np.float32), np.empty((4, ROWS), np.float32)
    before = spread_bytes()
    with closing(Context(2, variant)) as context:
        packed = context.pack(Scheme.F32, weight, ROWS, COLUMNS, None)
        assert spread_bytes() - before >= weight.nbytes
        sizes = (4, COLUMNS, COLUMNS, ROWS, 1)
        run(context, Opcode.LINEAR, Element.F32, [x, packed, out], sizes)
    np.testing.assert_array_equal(out, weight[:, :4].T)
    names = {f"N{node}" for node in nodes}
    used = re.findall(r"\b(N\d+)=", spread_mappings())
    assert set(used) <= names


@pytest.mark.usefixtures("nodes")
def test_caches_are_spread_and_start_as_zeros(variant: str) -> None:
    del variant
    before = spread_bytes()
    cache = make_cache(KVSpec("full", num_kv_heads=4, head_dim=64, dtype="bfloat16"), 1024, 16)
    for blocks in (cache.k, cache.v):
        assert not blocks.any()
        blocks[...] = 1
        assert (blocks == 1).all()
    assert spread_bytes() - before >= (cache.k.nbytes + cache.v.nbytes) * 0.99


def test_a_policy_of_the_users_own_is_left_alone(variant: str, nodes: list[int]) -> None:
    del variant
    number = {"x86_64": 238, "aarch64": 237, "ppc64le": 261}.get(platform.machine())
    if number is None:
        pytest.skip("which system call sets a policy is not known here")
    call, bind, library = ctypes.CDLL(None).syscall, 2, load_library()
    first = (ctypes.c_ulong * 16)(1 << nodes[0])
    assert call(number, bind, first, 1025) == 0
    try:
        assert not spread_over(library, nodes)
    finally:
        call(number, 0, None, 0)
    assert spread_over(library, nodes)


@pytest.mark.parametrize("refused", [[], [-1], [1023], [1 << 20]])
def test_nodes_that_are_not_there_leave_memory_alone(variant: str, refused: list[int]) -> None:
    assert not spread_over(load_library(), refused)
    before = spread_bytes() if MAPPINGS.exists() else 0
    with closing(Context(1, variant)) as context:
        weight = np.ones((ROWS, COLUMNS), np.float32)
        packed = context.pack(Scheme.F32, weight, ROWS, COLUMNS, None)
        assert packed.nbytes >= weight.nbytes
        assert not MAPPINGS.exists() or spread_bytes() == before
    nodes = usable_nodes()
    spread_over(load_library(), nodes if len(nodes) > 1 else [])
