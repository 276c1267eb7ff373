"""Compiles the shared Triton kernels to SPIR-V, for Intel GPUs that are not here.

``make test-spirv`` runs this. It needs a Triton that has Intel's backend, which comes with torch's
build for Intel GPUs; where there is none it says so, and that nothing was compiled. What it says is
"compiles for"; nothing is run, and the GPU's driver still makes its machine code of the SPIR-V.

    python scripts/spirv_compile.py                        a case of every kernel, for every GPU
    python scripts/spirv_compile.py --all bmg rms_norm     all cases of a kernel, for one
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_HAS = {
    "has_fp64": True,
    "has_subgroup_matrix_multiply_accumulate": True,
    "has_subgroup_2d_block_io": True,
    "has_2d_block_io": True,
    "has_bfloat16_conversions": True,
    "has_bfloat16_conversion": True,
    "has_16bit_atomics": True,
    "max_work_group_size": 1024,
    "__intel_already_queried_extensions__": True,
}
GPUS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "bmg": ("xe20.1", 20, {**_HAS, "sub_group_sizes": [16, 32], "max_num_sub_groups": 64}),
    "pvc": ("xe12.60", 128, {**_HAS, "sub_group_sizes": [16, 32], "max_num_sub_groups": 64}),
}
"""By Intel's name: version, Xe cores, and what Triton is told of it. Arc B580, Data Center Max."""

_SHARED_BYTES = 128 << 10
_DPAS = r"call [^\n]*(?:_matrix_mad_|MatrixMultiplyAccumulate)"  # on a tile, by the matrix units


def missing() -> str | None:
    """Why nothing can be compiled here."""
    for package in ("octavo_torch", "torch", "triton"):
        if find_spec(package) is None:
            return f"{package} is not installed"
    triton = find_spec("triton")
    folders = triton.submodule_search_locations if triton is not None else None
    if any(Path(folder, "backends/intel").is_dir() for folder in folders or ()):
        return None
    return "this Triton has no backend for Intel GPUs"


@contextlib.contextmanager
def told(gpu: str) -> Iterator[list[tuple[str, Any]]]:
    """Within, launches compile for ``gpu``; (function, what became of it)."""
    from triton.backends import backends

    from octavo_torch.kernels import ahead
    from octavo_torch.kernels.target import Target, using_target

    version, num_units, properties = GPUS[gpu]
    os.environ["TRITON_INTEL_DEVICE_ARCH"] = gpu
    # A Triton that does not read that asks what it builds with SYCL's headers.
    asked = SimpleNamespace(parse_device_arch=lambda _architecture: gpu)
    intel: Any = backends["intel"].compiler.__init__
    intel.__globals__["compile_module_from_src"] = lambda *_, **__: asked
    target = Target("xpu", version, num_units, _SHARED_BYTES, 16)
    with ahead.compiling(target, properties) as compiled, using_target(target):
        yield compiled


def compile_kernel(kernel: Any, case: Any, gpu: str) -> Iterator[str]:
    """A line for each function of it."""
    import torch

    with told(gpu) as compiled:
        kernel.launch(**case.make(torch.device("cpu"), torch.Generator().manual_seed(0)))
    for function, built in compiled:
        num_products = len(re.findall(_DPAS, built.asm["llir"]))
        yield (
            f"{gpu}  {len(built.asm['spv']):7}  {built.metadata.shared / 1024:10.1f}  "
            f"{built.metadata.num_warps:5}  {num_products:4} | {function} [{case.label}]"
        )


def main() -> int:
    """1 if the compiler rejected anything."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help=f"GPUs ({', '.join(GPUS)}) and kernels")
    parser.add_argument("--all", action="store_true", help="every case, not one of each kernel")
    options = parser.parse_args()
    reason = missing()
    if reason is not None:
        print(
            f"nothing was compiled: {reason} ({sys.executable}). A Triton for Intel comes with "
            "torch's XPU build (pytorch.org, Get Started, XPU) or as triton-xpu; where it and "
            "octavo-torch are installed: make test-spirv SPIRV_PYTHON=/path/to/bin/python"
        )
        return 0
    os.environ.setdefault("TRITON_CACHE_DIR", tempfile.mkdtemp(prefix="octavo-spirv-"))
    from octavo_torch.kernels.catalog import all_kernels

    return _compile_all(all_kernels(), options)


def _compile_all(kernels: Mapping[str, Any], options: argparse.Namespace) -> int:
    import triton

    unknown = set(options.names) - set(kernels) - set(GPUS)
    if unknown:
        print(f"error: there is no {sorted(unknown)}; kernels are {', '.join(kernels)}")
        return 2
    gpus = [name for name in options.names if name in GPUS] or list(GPUS)
    names = [name for name in options.names if name in kernels] or list(kernels)
    print(f"Triton {triton.__version__}: SPIR-V for {', '.join(gpus)}")
    print("GPU    bytes  shared KiB  warps  DPAS | function [case]")
    num_compiled, num_rejected, started = 0, 0, time.monotonic()
    for gpu in gpus:
        for name in names:
            cases = [case for case in kernels[name].cases if case.ahead]
            for case in cases if options.all else cases[:1]:
                try:
                    lines = list(compile_kernel(kernels[name], case, gpu))
                except Exception as error:  # noqa: BLE001 - whatever the compiler says is its answer
                    num_rejected += 1
                    said = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
                    print(f"{gpu}  rejected: {name} [{case.label}]: {said}", flush=True)
                    continue
                num_compiled += len(lines)
                print("\n".join(lines), flush=True)
    seconds = time.monotonic() - started
    print(f"{num_compiled} functions compiled, {num_rejected} cases rejected, in {seconds:.0f} s")
    return min(num_rejected, 1)


if __name__ == "__main__":
    sys.exit(main())
