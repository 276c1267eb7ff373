"""The conformance suite's checks of ops, run in a test on any op set that can be fed NumPy."""

from __future__ import annotations

from octavo.api import API_VERSION, BackendSpec, Capabilities, DeviceInfo, MemoryInfo, Probe
from octavo.portable_backend import PortableBackend
from octavo.testing.conform import Planned, all_checks, plan_cases, run_case
from octavo.testing.subject import Subject

_CHECKS = {check.name: check for check in all_checks() if check.section in ("ops", "randomness")}
OP_CHECKS = {name: check for name, check in _CHECKS.items() if check.section == "ops"}
ATTENTION_CHECKS = tuple(
    name for name, check in OP_CHECKS.items() if "attention" in check.look or "kv" in check.look
)
LEAF_CHECKS = tuple(name for name in OP_CHECKS if name not in ATTENTION_CHECKS)


class NamespaceBackend(PortableBackend):
    """Portable ops over one array namespace; ``put`` and ``get`` are functions of an array."""

    caps = Capabilities(
        dtypes=("float32", "float16", "bfloat16"),
        kv_dtypes=("float32", "float16", "bfloat16"),
        block_sizes=(4, 1, 16, 32),
        sliding_window=True,
        soft_cap=True,
        sinks=True,
    )

    def __init__(self, ops, put, get):
        super().__init__(ops)
        self._put, self._get = put, get

    def memory(self):
        return MemoryInfo(free_bytes=1 << 32, total_bytes=1 << 33)

    def put(self, array, dtype=None):
        return self._put(array if dtype is None else array.astype(dtype))

    def get(self, array):
        return self._get(array)


def subject_over(backend):
    """A subject of the suite around an object that is no plugin's."""
    spec = BackendSpec(
        name="under-test",
        device_kinds=("test",),
        summary="made by a test",
        probe=Probe,
        load=lambda index, options: backend,
        api_version=API_VERSION,
    )
    return Subject.of(spec, DeviceInfo("test", 0, "test"))


def run_op_check(subject, name, *, quick=False):
    """Every case of one check, of ops or of sampling, that the subject claims."""
    results = [
        run_case(subject, planned) if isinstance(planned, Planned) else planned
        for planned in plan_cases(subject, [_CHECKS[name]], quick=quick)
    ]
    assert {result.status for result in results} <= {"passed", "unclaimed"}, "\n".join(
        f"{result.id}: {result.message}" for result in results if result.status == "failed"
    )
    return [result.id for result in results if result.status == "passed"]
