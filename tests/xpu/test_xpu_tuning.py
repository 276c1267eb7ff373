"""Launch options for Intel GPUs: the common ones, and what ``octavo_xpu`` has beside them."""

from __future__ import annotations

import tomllib
from importlib.resources import files

import pytest

pytest.importorskip("octavo_xpu", reason="octavo-xpu is not installed")
torch = pytest.importorskip("torch")

from octavo_torch.kernels.target import Target, using_target  # noqa: E402
from octavo_torch.kernels.tuning import launch_options  # noqa: E402

B580 = Target("xpu", "xe20.1", 20, 128 << 10, 16)


def test_intel_s_values_overrule_the_common_ones():
    shape = {"head_dim": 128, "item_bits": 16, "kv_bits": 16, "kv": "bfloat16", "block_size": 16}
    with using_target(B580):
        found = launch_options("attention_prefill", torch.device("cpu"), **shape)
    assert (found["row_tile"], found["key_tile"], found["num_warps"]) == (128, 32, 16)


def test_they_are_of_kernels_and_options_that_there_are():
    common, own = (
        tomllib.loads(files(package).joinpath("tuned.toml").read_text("utf-8"))
        for package in ("octavo_torch", "octavo_xpu")
    )
    assert own
    for kernel, entries in own.items():
        known = {name for entry in common[kernel] for name in entry}
        assert {name for entry in entries for name in entry} <= known
