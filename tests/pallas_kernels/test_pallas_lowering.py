"""The Pallas kernels lowered for TPUs that are not here, in the sizes of real models."""

from __future__ import annotations

import pytest

pytest.importorskip("jax", reason="JAX is not installed")
pytest.importorskip("octavo_tpu.kernels", reason="octavo-tpu is not installed")

import jax

from octavo.api import each_step_tree
from octavo_tpu.kernels.ahead import ATTENTIONS, lower_for

DEVICE_KINDS = ("TPU v5 lite", "TPU v5", "TPU v6 lite", "TPU7x")
QUICK = ("Qwen3-0.6B", "Qwen3-8B decode", "Llama-3-8B", "Llama-3-8B int8", "Gemma-2-9B")
CASES = [
    pytest.param(
        attention,
        kind,
        marks=() if attention.name in QUICK and kind == "TPU v6 lite" else pytest.mark.slow,
        id=f"{attention.name}-{kind}",
    )
    for attention in ATTENTIONS
    for kind in DEVICE_KINDS
]

each_step_tree(jax.tree_util.register_dataclass)


@pytest.mark.parametrize(("attention", "device_kind"), CASES)
def test_kernels_lower_and_the_cache_is_updated_in_place(attention, device_kind):
    module = lower_for(attention, device_kind)
    assert module.count("stablehlo.custom_call @tpu_custom_call") >= 2
    assert "tf.aliasing_output" in module or "jax.buffer_donor" in module
