"""Attention and sampling of TritonOps, under the interpreter, in cases of ``octavo conform``."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

LIMIT_S = 300
# (check, rows of its table); all in float32, which Triton's interpreter computes as it should.
ROWS = {
    "paged_attention": ("one token", "one prompt", "prefill beside decode"),
    "attend": ("mixed",),
    "rope_attend": ("mixed float32", "a part of each head float32"),
    "head_groups": ("9 heads on 3",),
    "head_sizes": ("head_dim 72",),
    "sliding_window": ("window 5", "window a block and one"),
    "attention_soft_cap": ("cap 1, window 7",),
    "sinks": ("8 heads on 1",),
    "non_causal": ("all keys", "window 4"),
    "large_scores": ("scores of hundreds float32",),
    "kv_dtypes": ("float8_e4m3fn under float32", "int8 under float32"),
    "kv_saturation": ("float8_e5m2",),
    "sampling": (
        "greedy",
        "equal tokens",
        "edges of the draw",
        "top_k",
        "min_p, top_k and top_p",
        "mask, bias and penalties",
        "unusable rows",
        "rows of every kind",
        "more adjustments",
        "log-probabilities",
    ),
    "token_logprobs": ("given tokens", "given tokens, nothing but them"),
}


def test_triton_ops_conform() -> None:
    pytest.importorskip("triton")
    finished = subprocess.run(
        [sys.executable, __file__],
        env=dict(os.environ, TRITON_INTERPRET="1", OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


def _main() -> None:
    from octavo.api import API_VERSION, BackendSpec, DeviceInfo, Probe
    from octavo.testing.checks import ops_attention, randomness
    from octavo.testing.subject import Subject
    from octavo_torch.cpu import TorchCpuBackend
    from octavo_torch.triton_ops import TritonOps

    class Kernels(TorchCpuBackend):
        caps = replace(
            TorchCpuBackend.caps,
            dtypes=("float32",),
            kv_dtypes=("float32", "float8_e4m3fn", "float8_e5m2", "int8"),
            block_sizes=(16, 32),
            int8_scale_bytes=4,
        )

        def make_ops(self) -> TritonOps:
            return TritonOps()

    device = DeviceInfo("cpu", 0, "CPU")
    spec = BackendSpec(
        name="kernels",
        device_kinds=("cpu",),
        summary="Triton kernels under the interpreter",
        probe=lambda: Probe(devices=(device,)),
        load=Kernels,
        api_version=API_VERSION,
    )
    subject = Subject.of(spec, device)
    for check in (*ops_attention.CHECKS, *randomness.CHECKS):
        if check.name not in ROWS:
            continue
        cases = [case for case in check.cases(subject) if case.unclaimed is None]
        for label in ROWS[check.name]:
            case = next((case for case in cases if case.label == label), None)
            if case is None:
                labels = ", ".join(case.label for case in cases)
                raise LookupError(f"{check.name} has no case {label}, but {labels}")
            started = time.perf_counter()
            check.run(subject, case.value)
            print(f"{time.perf_counter() - started:.2f} s  {check.name}: {label}", flush=True)


if __name__ == "__main__":
    _main()
