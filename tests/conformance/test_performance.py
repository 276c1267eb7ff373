"""What the performance section reports: counts that follow from the shapes, beside limits."""

from __future__ import annotations

import math
import time

import pytest

from octavo.ops.names import OP_NAMES
from octavo.testing.checks import performance
from octavo.testing.checks.performance_timing import _fastest
from octavo.testing.subject import Subject

CHECKS = {check.name: check for check in performance.CHECKS}
# Of numpy, which computes in float32; hidden 2048, 16 heads over 4 of 128.
EXPECTED = {
    ("linear", "decode"): (4 * (2048 * 2048 + 2 * 8 * 2048), 2 * 8 * 2048 * 2048),
    ("rms_norm", "decode"): (4 * (2 * 8 * 2048 + 2048), 0),
    ("paged_attention", "decode"): (
        4 * (2 * 8 * 1024 * 4 * 128 + 2 * 8 * 16 * 128),
        4 * 8 * 1024 * 16 * 128,
    ),
    ("paged_attention", "prefill"): (
        4 * (2 * 256 * 4 * 128 + 2 * 256 * 16 * 128),
        4 * (256 * 257 // 2) * 16 * 128,
    ),
}


@pytest.fixture(scope="module")
def subject():
    subject = Subject.installed("numpy")
    yield subject
    subject.close()


def test_every_op_is_timed_that_does_anything():
    assert set(CHECKS) == set(OP_NAMES) - {"all_reduce"}


@pytest.mark.parametrize(("op", "setting"), EXPECTED)
def test_bytes_and_operations_follow_from_the_shapes(subject, op, setting):
    check = CHECKS[op]
    (case,) = (case for case in check.cases(subject) if case.label.startswith(setting))
    measured = check.run(subject, case.value)

    assert (measured["bytes"], measured["operations"]) == EXPECTED[op, setting]
    assert set(measured) == {
        "seconds",
        "bytes",
        "operations",
        "read_bytes_per_s_limit",
        "operations_per_s_limit",
    }
    assert all(math.isfinite(value) for value in measured.values())
    assert measured["seconds"] > 0
    assert measured["read_bytes_per_s_limit"] > 0
    assert measured["operations_per_s_limit"] > 0


def test_nothing_is_timed_at_the_quick_level(subject):
    assert not any(case.quick for check in CHECKS.values() for case in check.cases(subject))


def test_the_host_waits_for_the_device_and_the_wait_is_not_counted():
    """A device that answers 2 ms after it is asked, and takes 20 ms for the work itself."""

    class Slow:
        def __init__(self):
            self.ready_s = 0.0

        def __getitem__(self, _rows):
            return self

        def get(self, _array):
            time.sleep(max(0.0, self.ready_s - time.perf_counter()) + 0.002)

        def run(self):
            self.ready_s = time.perf_counter() + 0.02
            return self

    slow = Slow()
    seconds = _fastest(slow, slow.run)
    assert seconds > 0.015  # the other bound would be a matter of luck
