"""The Pallas kernels lowered for TPUs that are not here, in the sizes of real models."""

from __future__ import annotations

import pytest

pytest.importorskip("jax", reason="JAX is not installed")
pytest.importorskip("octavo_tpu.kernels", reason="octavo-tpu is not installed")

import jax

from octavo.api import each_step_tree
from octavo_tpu.kernels.ahead import ATTENTIONS, lower_for

DEVICE_KINDS = ("TPU v5 lite", "TPU v5", "TPU v6 lite", "TPU7x")
QUICK_KIND = "TPU v6 lite"

each_step_tree(jax.tree_util.register_dataclass)


@pytest.mark.parametrize(
    "device_kind",
    [pytest.param(k, marks=() if k == QUICK_KIND else pytest.mark.slow) for k in DEVICE_KINDS],
)
@pytest.mark.parametrize("attention", ATTENTIONS, ids=lambda attention: attention.name)
def test_kernels_lower_and_the_cache_is_updated_in_place(attention, device_kind):
    module = lower_for(attention, device_kind)
    assert module.count("stablehlo.custom_call @tpu_custom_call") >= 2
    assert "tf.aliasing_output" in module or "jax.buffer_donor" in module
