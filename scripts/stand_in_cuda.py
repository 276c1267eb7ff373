"""Stand-ins for the CUDA libraries that a torch is linked to, so that it runs on the CPU alone.

Some releases of torch for Linux are published for CUDA only, and import nothing without NVIDIA's
libraries (3.9 GB). Each library gets a file with the name and the symbol versions that torch's own
files ask for; every function in it answers "no CUDA device". Linux, a C compiler and binutils.

    python scripts/stand_in_cuda.py .venv-ipex/lib/python3.11/site-packages
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

NO_DEVICE = 100  # cudaErrorNoDevice, and CUDA_ERROR_NO_DEVICE
LIBRARY = re.compile(r"lib(cu|nv|nccl)(?!da\.so)")  # libcuda.so.1 is the driver's: never linked
SYMBOL = re.compile(
    r"(__cuda|cuda|cu[A-Z]|cublas|cudnn|cufft|curand|cusolver|cusparse|cufile|cupti"
    r"|nccl|nvshmem|nvrtc|nvtx|nvJitLink)"
)
SPECIAL = {  # what is called while torch is imported, and must not look like a failure
    "__cudaRegisterFatBinary": "static void *handle; return &handle;",
    "cudaGetErrorName": 'return (void *)"cudaErrorNoDevice";',
    "cudaGetErrorString": 'return (void *)"there is no CUDA here";',
    "cudaGetLastError": "return 0;",
    "cudaPeekAtLastError": "return 0;",
}


def output_of(*command: str) -> str:
    """What it prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def wanted_libraries(files: list[Path]) -> dict[str, set[str]]:
    """Name of each missing library → the symbol versions that are asked of it."""
    there = {file.name for file in files}
    wanted: dict[str, set[str]] = {}
    for file in files:
        for name in re.findall(r"\(NEEDED\).*\[(.+?)\]", output_of("readelf", "-dW", str(file))):
            if LIBRARY.match(name) and name not in there:
                wanted.setdefault(name, set())
    for file in files:
        of_library: str | None = None
        for line in output_of("readelf", "-VW", str(file)).splitlines():
            if found := re.search(r"File: (\S+)", line):
                of_library = found[1]
            elif of_library in wanted and (found := re.search(r"Name: (\S+)", line)):
                wanted[of_library].add(found[1])
    return wanted


def wanted_symbols(files: list[Path]) -> list[str]:
    """Functions of CUDA's that are defined nowhere else."""
    names: set[str] = set()
    for file in files:
        for line in output_of("nm", "-D", "--undefined-only", str(file)).splitlines():
            name = line.split()[-1].partition("@")[0]
            if SYMBOL.match(name):
                names.add(name)
    return sorted(names)


def write_library(target: Path, versions: set[str], source: Path) -> None:
    """Compile the stand-in ``target``; all symbols are of its first version."""
    script = source.with_suffix(".map")
    first, *others = sorted(versions) or [""]
    script.write_text(
        "\n".join([f"{first} {{ global: *; }};", *(f"{name} {{ }};" for name in others)])
    )
    command = ["cc", "-shared", "-fPIC", "-w", "-O0", f"-Wl,-soname,{target.name}"]
    command += [f"-Wl,--version-script={script}", "-o", str(target), str(source)]
    subprocess.run(command, check=True)


def main() -> None:
    """Write them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("site_packages", type=Path)
    library_folder = parser.parse_args().site_packages / "torch/lib"
    if not library_folder.is_dir():
        sys.exit(f"error: there is no {library_folder}; install torch into it first")
    files = sorted(library_folder.glob("*.so*"))
    libraries = wanted_libraries(files)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "stand_in.c")
        source.write_text(
            "\n".join(
                f"void *{name}(void) {{ {SPECIAL.get(name, f'return (void *){NO_DEVICE};')} }}"
                for name in wanted_symbols(files)
            )
        )
        for name, versions in libraries.items():
            write_library(library_folder / name, versions, source)
    print(f"{len(libraries)} stand-ins: {', '.join(libraries) or 'none are missing'}")


if __name__ == "__main__":
    main()
