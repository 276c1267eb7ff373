"""Who serves attention on a GPU, by the default policy and by what is installed; no GPU needed."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("octavo_torch", reason="octavo-torch is not installed")
pytest.importorskip("octavo_xpu", reason="octavo-xpu is not installed")
torch = pytest.importorskip("torch")
pytest.importorskip("triton")

import stand_in_flashinfer  # noqa: E402

import octavo_torch.plugin  # noqa: E402
import octavo_xpu.plugin  # noqa: E402
from octavo.api import BackendSpec, DeviceInfo, UsageError  # noqa: E402
from octavo.devices import Resolution  # noqa: E402
from octavo.ops.binding import bind_ops  # noqa: E402
from octavo.ops.providers import attention_providers as list_providers  # noqa: E402
from octavo.plugins import PluginRecord, Plugins  # noqa: E402
from octavo.policy import load_policy  # noqa: E402
from octavo.testing.conform import Planned, all_checks, plan_cases, run_case  # noqa: E402
from octavo.testing.subject import Subject  # noqa: E402
from octavo_torch import attention_providers  # noqa: E402
from octavo_torch.ops import TorchOps  # noqa: E402
from octavo_torch.triton_ops import TritonOps  # noqa: E402
from op_suite import ATTENTION_CHECKS  # noqa: E402

LIBRARIES = ("triton", "flashinfer", "flashinfer_jit_cache")
NO_FLASHINFER = "FlashInfer is not installed (pip install flashinfer-python)"
NO_KERNELS = (
    "FlashInfer has neither compiled kernels (flashinfer install-jit-cache-wheel) nor nvcc to "
    "compile them with (the CUDA toolkit; CUDA_HOME says where it is)"
)
NO_TRITON = "Triton is not installed (pip install triton; on Windows triton-windows)"
NO_VLLM_KERNELS = "vllm-xpu-kernels is not installed (pip install vllm-xpu-kernels)"
IPEX_READS_OTHER_CACHES = (
    "on Intel GPUs the extension's paged attention reads caches of two other layouts ([blocks, "
    "kv_heads, head_dim / x, block, x] for decodes, [blocks, block, kv_heads, head_dim] for "
    "prompts) than Octavo's [blocks, kv_heads, block, head_dim]; it serves CPUs: --device cpu "
    "--backend torch --attention-backend ipex"
)


@pytest.fixture
def bound(monkeypatch):
    """``bound(kind, installed, **asked)``: bindings by op, and the state of each provider."""

    def bound(kind, installed, **asked):
        monkeypatch.setattr(attention_providers, "find_spec", dict.fromkeys(installed, 1).get)
        monkeypatch.setattr(attention_providers, "_has_nvcc", lambda: False)
        monkeypatch.setitem(sys.modules, "flashinfer", stand_in_flashinfer.stand_in())
        specs = []
        octavo_torch.plugin.octavo_register_attention(specs.append)
        octavo_xpu.plugin.octavo_register_attention(specs.append)
        spec = BackendSpec(kind, (kind,), "a GPU", lambda: None, lambda *_: None, 1)
        record = PluginRecord(
            "torch", "octavo-torch", "1", "octavo_torch", "ok", (spec,), attention=tuple(specs)
        )
        ops = TritonOps() if "triton" in installed else TorchOps()
        left = []
        backend = SimpleNamespace(
            ops=ops, device=torch.device("cpu"), leave_graphs=lambda: left.append("graphs")
        )
        resolution = Resolution(spec, DeviceInfo(kind, 0, "a GPU"), "as asked")
        chosen_by = (backend, resolution, load_policy("plugins.toml"), Plugins((record,)))
        _, bindings = bind_ops(*chosen_by, **asked)
        serves_sdpa = any(each.implementation == "sdpa" for each in bindings)
        assert left == (["graphs"] if serves_sdpa else [])
        states = {each.name: each.state for each in list_providers(*chosen_by, bindings)}
        return {each.op: each for each in bindings}, states

    return bound


@pytest.mark.parametrize(
    ("kind", "installed", "states"),
    [
        (
            "cuda",
            LIBRARIES,
            {
                "flashinfer": "serves",
                "triton": "--attention-backend triton",
                "sdpa": "--attention-backend sdpa",
            },
        ),
        (
            "cuda",
            ("triton",),
            {
                "flashinfer": f"cannot serve: {NO_FLASHINFER}",
                "triton": "serves",
                "sdpa": "--attention-backend sdpa",
            },
        ),
        (
            "cuda",
            ("flashinfer",),
            {
                "flashinfer": f"cannot serve: {NO_KERNELS}",
                "triton": f"cannot serve: {NO_TRITON}",
                "sdpa": "serves",
            },
        ),
        ("rocm", ("triton",), {"triton": "serves", "sdpa": "--attention-backend sdpa"}),
        (
            "xpu",
            ("triton",),
            {
                "vllm-xpu-kernels": f"cannot serve: {NO_VLLM_KERNELS}",
                "triton": "serves",
                "sdpa": "--attention-backend sdpa",
                "ipex": f"cannot serve: {IPEX_READS_OTHER_CACHES}",
            },
        ),
        (
            "xpu",
            (),
            {
                "vllm-xpu-kernels": f"cannot serve: {NO_VLLM_KERNELS}",
                "triton": f"cannot serve: {NO_TRITON}",
                "sdpa": "serves",
                "ipex": f"cannot serve: {IPEX_READS_OTHER_CACHES}",
            },
        ),
    ],
    ids=["all", "triton alone", "no kernels", "rocm", "xpu", "xpu without Triton"],
)
def test_the_first_that_is_installed_serves(bound, kind, installed, states):
    bindings, found = bound(kind, installed)
    assert found == states
    (serving,) = (name for name, state in states.items() if state == "serves")
    for op in ("write_kv", "paged_attention", "rope_attend"):
        assert (bindings[op].implementation, bindings[op].distribution) == (serving, "octavo-torch")
    before = list(states)[: list(states).index(serving)]
    for name in before:
        assert f"not {name}: " in bindings["paged_attention"].reason


def test_any_can_be_asked_for(bound):
    for name in ("flashinfer", "triton", "sdpa"):
        bindings, states = bound("cuda", LIBRARIES, attention_backend=name)
        assert [each for each, state in states.items() if state == "serves"] == [name]
        assert bindings["rope_attend"].reason == "asked for with --attention-backend"


def test_what_is_not_installed_is_refused_with_the_line_that_installs_it(bound):
    with pytest.raises(UsageError, match=r"cannot be used: FlashInfer is not installed \(pip inst"):
        bound("cuda", ("triton",), attention_backend="flashinfer")


@pytest.mark.parametrize("name", ["sdpa", "portable"])
def test_the_conformance_suite_passes_with_it(name):
    """On the CPU's backend, which has it, too."""
    subject = Subject.installed("torch", "cpu", attention_backend=name)
    chosen = [check for check in all_checks() if check.section == "paging" or is_attention(check)]
    found = [
        run_case(subject, each) if isinstance(each, Planned) else each
        for each in plan_cases(subject, chosen, quick=True)
    ]
    subject.close()
    assert [(each.id, each.message) for each in found if each.status in {"failed", "blocked"}] == []
    assert sum(each.status == "passed" for each in found) > 60


def is_attention(check):
    return check.name in ATTENTION_CHECKS
