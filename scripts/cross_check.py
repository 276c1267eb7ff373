"""Compiles the CPU kernels for other processors, and checks them there under an emulator.

``make test-cross`` runs this; on Debian and Ubuntu the compilers and emulators are packages. The
program that runs is backends/cpu/kernels/check.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CPU = Path(__file__).resolve().parent.parent / "backends" / "cpu"


@dataclass(frozen=True)
class Target:
    """A kind of processor, and the models of it that are emulated: each has other instructions."""

    processor: str  # as CMake names it
    triple: str  # as the compiler names it
    emulator: str
    models: tuple[str, ...]

    @property
    def compiler(self) -> str:
        """The one that makes programs for it."""
        return f"{self.triple}-g++"

    @property
    def packages(self) -> str:
        """What brings the compiler and the emulator on Debian."""
        return f"g++-{self.triple} qemu-user-static"


TARGETS = (
    Target("aarch64", "aarch64-linux-gnu", "qemu-aarch64", ("cortex-a53", "max")),
    Target("ppc64le", "powerpc64le-linux-gnu", "qemu-ppc64le", ("power9", "power10")),
)


def emulator(target: Target) -> str | None:
    """Debian has the emulators as qemu-user (which links to libraries) and qemu-user-static."""
    return shutil.which(target.emulator) or shutil.which(f"{target.emulator}-static")


def build(target: Target) -> Path:
    """The check program for a processor."""
    folder = CPU / "build" / f"cross-{target.processor}"
    configure = [
        *("cmake", "-S", CPU, "-B", folder, f"-DCMAKE_CXX_COMPILER={target.compiler}"),
        *("-DCMAKE_SYSTEM_NAME=Linux", f"-DCMAKE_SYSTEM_PROCESSOR={target.processor}"),
    ]
    subprocess.run(configure, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", folder, "--target", "check", "--parallel"], check=True)
    return folder / "check"


def check(target: Target) -> bool:
    """True if every model of the processor computes what the oracles say."""
    program = build(target)
    all_well = True
    for model in target.models:
        print(f"-- {target.processor}, emulating {model}", flush=True)
        command = [emulator(target), "-cpu", model, "-L", f"/usr/{target.triple}", program]
        all_well &= subprocess.run(command, check=False).returncode == 0
    return all_well


def main() -> int:
    """Check the processors that are named, or all."""
    named = sys.argv[1:]
    chosen = [target for target in TARGETS if not named or target.processor in named]
    usable = [target for target in chosen if shutil.which(target.compiler) and emulator(target)]
    results = [check(target) for target in usable]
    for target in chosen:
        if target not in usable:
            print(f"not checked: {target.processor}. apt-get install {target.packages}")
    if not usable:
        print("error: there is no cross compiler, or no emulator for what it makes.")
        return 1
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
