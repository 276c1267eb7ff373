"""Triton kernels under the interpreter, against their references in torch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("triton", reason="Triton is not installed")
pytest.importorskip("octavo_torch", reason="octavo-torch is not installed")

from example_kernels import FAULTS, KERNELS
from interpreter_process import InterpreterProcess

from octavo_torch.kernels.catalog import all_kernels

EXAMPLE = KERNELS[0]
CASES = [
    pytest.param(kernel.name, case.label, id=f"{kernel.name}[{case.label}]")
    for kernel in (EXAMPLE, *all_kernels().values())
    for case in kernel.cases
    if not case.ahead
]


@pytest.fixture(scope="module")
def interpreter() -> Iterator[InterpreterProcess]:
    process = InterpreterProcess()
    yield process
    process.close()


@pytest.mark.parametrize(("kernel", "case"), CASES)
def test_kernel_equals_its_reference(
    interpreter: InterpreterProcess, kernel: str, case: str
) -> None:
    error = interpreter.error(kernel, case)
    assert error is None, f"{kernel}[{case}]: {error}"


@pytest.mark.parametrize(("kernel", "complaint"), FAULTS.items(), ids=list(FAULTS))
def test_a_faulty_kernel_is_found(
    interpreter: InterpreterProcess, kernel: str, complaint: str
) -> None:
    error = interpreter.error(kernel, "float32")
    assert error is not None
    assert complaint in error
