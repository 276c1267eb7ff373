"""What GPUs are claimed to do, by their architecture, and which options their backends take."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("octavo_cuda", reason="octavo-cuda is not installed")
pytest.importorskip("octavo_rocm", reason="octavo-rocm is not installed")
pytest.importorskip("octavo_xpu", reason="octavo-xpu is not installed")
pytest.importorskip("torch")

from octavo.errors import UsageError
from octavo_cuda.capabilities import capabilities as of_cuda
from octavo_rocm.capabilities import capabilities as of_rocm
from octavo_torch.gpu_options import GpuOptions
from octavo_torch.kernels import target
from octavo_xpu.capabilities import capabilities as of_xpu

GRAPHS = GpuOptions()


@pytest.mark.parametrize(
    ("capability", "dtypes", "has_float8"),
    [
        ((7, 5), ("float16", "float32"), False),
        ((8, 0), ("bfloat16", "float16", "float32"), False),
        ((8, 9), ("bfloat16", "float16", "float32"), True),
        ((9, 0), ("bfloat16", "float16", "float32"), True),
        ((12, 0), ("bfloat16", "float16", "float32"), True),
    ],
)
def test_nvidia_by_compute_capability(capability, dtypes, has_float8):
    caps = of_cuda(capability, GRAPHS)
    assert caps.dtypes == dtypes
    assert ("float8_e4m3fn" in caps.kv_dtypes) == has_float8
    assert caps.asynchronous
    assert max(caps.decode_buckets) == 512


@pytest.mark.parametrize(
    ("arch", "has_float8"),
    [("gfx90a", False), ("gfx942", False), ("gfx950", True), ("gfx1100", False), ("gfx1201", True)],
)
def test_amd_by_architecture(arch, has_float8):
    assert ("float8_e4m3fn" in of_rocm(arch, GRAPHS).kv_dtypes) == has_float8


@pytest.mark.parametrize(
    ("converts", "dtypes"),
    [(True, ("bfloat16", "float16", "float32")), (False, ("float16", "float32"))],
)
def test_intel_by_what_torch_says(converts, dtypes):
    caps = of_xpu(SimpleNamespace(has_bfloat16_conversions=converts), GRAPHS)
    assert caps.dtypes == dtypes
    assert caps.kv_dtypes == (*dtypes, "int8")


@pytest.mark.parametrize(
    ("architecture", "arch"),
    [  # intel_gpu_acm_g10 and intel_gpu_pvc of SYCL's device_architecture.hpp
        (0x000000030DC00800, "xe12.55"),
        (0x000000030F000700, "xe12.60"),
    ],
)
def test_an_intel_gpu_is_known_by_its_generation(monkeypatch, architecture, arch):
    properties = SimpleNamespace(
        architecture=architecture, gpu_subslice_count=32, local_mem_size=128 << 10
    )
    module = SimpleNamespace(get_device_properties=lambda _: properties)
    monkeypatch.setattr(target.torch, "get_device_module", lambda _: module)
    assert target._detect.__wrapped__("xpu", 0) == target.Target("xpu", arch, 32, 128 << 10, 16)


def test_without_graphs_nothing_is_padded():
    options = GpuOptions.parse({"graphs": False}, "cuda")
    assert of_cuda((9, 0), options).decode_buckets == ()


def test_sizes_are_sorted():
    options = GpuOptions.parse({"graph_batch_sizes": [8, 1, 8, 2]}, "cuda")
    assert of_rocm("gfx942", options).decode_buckets == (1, 2, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"graph": True}, "Backend 'rocm' has no option 'graph'; it has graphs, graph_batch_sizes"),
        ({"graphs": 1}, "graphs of backend 'rocm' is 1; expected true or false"),
        ({"graph_batch_sizes": []}, r"is \[\]; expected a list of whole numbers"),
        ({"graph_batch_sizes": [0]}, r"is \[0\]; expected a list of whole numbers, at least 1"),
        ({"max_graphs": True}, "is True; expected a whole number, at least 1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        GpuOptions.parse(options, "rocm")
