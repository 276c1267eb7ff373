"""Compiles kernels for GPUs that are not here: for what a launcher launches, no device is needed.

A driver that only says what it is takes the place of a GPU's; a launch then compiles, and ends.
What came out is read off the compilers' own reports: registers, spills, shared memory, matrix
instructions. As a table: ``python -m octavo_torch.kernels.ahead --target sm90 attention_prefill``.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.runtime.jit import JITFunction

from octavo_torch.kernels.kernel import Case, Kernel
from octavo_torch.kernels.target import Target, using_target

__all__ = ["TARGETS", "Build", "compile_case", "compiling"]

_KIB = 1 << 10

TARGETS: dict[str, Target] = {
    "sm80": Target("cuda", "sm80", 108, 163 * _KIB),
    "sm90": Target("cuda", "sm90", 132, 227 * _KIB),
    "sm100": Target("cuda", "sm100", 148, 227 * _KIB),
    "sm120": Target("cuda", "sm120", 170, 99 * _KIB),
    "gfx90a": Target("hip", "gfx90a", 104, 64 * _KIB, 64),
    "gfx942": Target("hip", "gfx942", 304, 64 * _KIB, 64),
    "gfx950": Target("hip", "gfx950", 256, 160 * _KIB, 64),
    "gfx1100": Target("hip", "gfx1100", 96, 64 * _KIB, 32),
    "gfx1201": Target("hip", "gfx1201", 64, 64 * _KIB, 32),
}
"""GPUs by architecture, each with the units of a typical one and what a program may share."""

_MATRIX_INSTRUCTIONS = {
    "cuda": r"\b(wgmma\.mma_async|tcgen05\.mma|mma\.sync)",
    "hip": r"\b(v_mfma|v_smfmac|v_wmma|v_swmmac)",
}
_TILE_LOADS = r"\b(cp\.async\.bulk\.tensor)"


@dataclass(frozen=True)
class Build:
    """One compiled function of a kernel."""

    function: str
    registers: int
    spills: int
    """NVIDIA: bytes stored to and loaded from local memory. AMD: vector registers; scalar ones go
    to those."""
    shared_bytes: int
    num_warps: int
    matrix_instructions: frozenset[str]
    tile_loads: frozenset[str] = frozenset()
    """NVIDIA: copies of whole tiles, by a tensor's descriptor."""
    fused: int = 0
    """Fused multiply-adds in NVIDIA's PTX. Not counted for AMD, where a division has some."""


class _NoDriver(DriverBase):  # type: ignore[misc]  # Triton has no types
    """Says what to compile for; runs nothing."""

    def __init__(self, target: GPUTarget) -> None:
        self._target = target
        self.utils: Any = None
        self.launcher_cls: Any = None

    @classmethod
    def is_active(cls) -> bool:
        return True

    def map_python_to_cpp_type(self, ty: str) -> str:
        return ty

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_current_device(self) -> int:
        return 0

    def set_current_device(self, device: int) -> None:
        del device

    def get_current_stream(self, device: int = 0) -> int:
        del device
        return 0

    def get_benchmarker(self) -> Any:
        return lambda *_arguments, **_options: [0.0] * 3

    def get_device_interface(self) -> Any:
        return torch.cuda


def compile_case(kernel: Kernel, case: Case, target: Target) -> list[Build]:
    """What launching the kernel once compiles for ``target``, function by function.

    Raises whatever a compiler has to say.
    """
    with compiling(target) as compiled, using_target(target):
        kernel.launch(**case.make(torch.device("cpu"), torch.Generator().manual_seed(0)))
    read = _read_nvidia if target.vendor == "cuda" else _read_amd
    return [read(name, each, target) for name, each in compiled]


@contextlib.contextmanager
def compiling(
    target: Target, properties: Mapping[str, Any] | None = None
) -> Iterator[list[tuple[str, Any]]]:
    """Within, launches compile: the functions' names and what became of them.

    ``properties`` are what Intel's backend wants to know of a device, in place of a name.
    """
    arch: Any = int(target.arch[2:]) if target.vendor == "cuda" else target.arch
    arch = arch if properties is None else dict(properties)
    compiled: list[tuple[str, Any]] = []
    run: Any = JITFunction.run

    def compile_only(function: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        del warmup
        function.device_caches.clear()  # they know one target for each device
        built = run(function, *args, grid=grid, warmup=True, **options)
        compiled.append((function.__name__, built))
        return built

    JITFunction.run = compile_only
    drivers: Any = triton.runtime.driver
    before = dict(vars(drivers))  # asking for the active one by name fails where there is no GPU
    drivers.set_active(_NoDriver(GPUTarget(target.vendor, arch, target.warp_size)))
    try:
        yield compiled
    finally:
        JITFunction.run = run
        vars(drivers).update(before)


def _read_nvidia(name: str, compiled: Any, target: Target) -> Build:
    from triton import knobs

    capability = int(target.arch[2:])
    assembler = knobs.nvidia.ptxas if capability < 90 else knobs.nvidia.ptxas_blackwell
    suffix = "a" if capability >= 90 else ""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(compiled.asm["ptx"], encoding="utf-8")
        command = [assembler.path, "-v", f"-arch=sm_{capability}{suffix}", str(source)]
        report = subprocess.run(  # noqa: S603 - the assembler that Triton brings
            [*command, "-o", str(Path(folder) / "kernel.cubin")],
            capture_output=True,
            text=True,
            check=True,
        ).stderr
    spilled = [int(each) for each in re.findall(r"(\d+) bytes spill", report)]
    return Build(
        function=name,
        registers=_number(r"Used (\d+) registers", report),
        spills=sum(spilled),
        shared_bytes=compiled.metadata.shared,
        num_warps=compiled.metadata.num_warps,
        matrix_instructions=_found(_MATRIX_INSTRUCTIONS["cuda"], compiled.asm["ptx"]),
        tile_loads=_found(_TILE_LOADS, compiled.asm["ptx"]),
        fused=len(re.findall(r"\b(?:fma|mad)\.\S*f\d", compiled.asm["ptx"])),
    )


def _read_amd(name: str, compiled: Any, target: Target) -> Build:
    del target
    assembly = compiled.asm["amdgcn"]
    return Build(
        function=name,
        registers=_number(r"\.vgpr_count:\s+(\d+)", assembly),
        spills=_number(r"\.vgpr_spill_count:\s+(\d+)", assembly),
        shared_bytes=compiled.metadata.shared,
        num_warps=compiled.metadata.num_warps,
        matrix_instructions=_found(_MATRIX_INSTRUCTIONS["hip"], assembly),
    )


def _found(pattern: str, assembly: str) -> frozenset[str]:
    return frozenset(re.findall(pattern, assembly))


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else 0


def _main(arguments: Sequence[str] | None = None) -> None:
    """Print what every case costs on one GPU."""
    from octavo_torch.kernels.catalog import all_kernels

    parser = argparse.ArgumentParser(description=_main.__doc__)
    parser.add_argument("--target", choices=TARGETS, required=True)
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", help="only these; all by default")
    options = parser.parse_args(arguments)
    kernels = all_kernels()
    if unknown := set(options.kernels) - set(kernels):
        parser.error(f"there is no kernel {sorted(unknown)}; there are {', '.join(kernels)}")
    write = sys.stdout.write
    write("registers  spills  shared KiB  warps  instructions | function [case]\n")
    for name in options.kernels or kernels:
        for case in kernels[name].cases:
            if case.ahead:
                for build in compile_case(kernels[name], case, TARGETS[options.target]):
                    write(f"{_row(build)} [{case.label}]\n")
                    sys.stdout.flush()


def _row(build: Build) -> str:
    found = " ".join(sorted(build.matrix_instructions | build.tile_loads)) or "-"
    shared = f"{build.shared_bytes / _KIB:10.1f}"
    numbers = f"{build.registers:9}  {build.spills:6}  {shared}  {build.num_warps:5}"
    return f"{numbers}  {found} | {build.function}"


if __name__ == "__main__":
    _main()
