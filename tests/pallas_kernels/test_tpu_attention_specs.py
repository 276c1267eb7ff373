"""What octavo-tpu offers for ``--attention-backend``: the contract's signatures, TPUs alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("jax", reason="JAX is not installed")
pytest.importorskip("octavo_tpu.attention", reason="octavo-tpu is not installed")

from octavo.api import DeviceError, KVSpec, Ops
from octavo.contract import check_signature
from octavo_tpu.attention import ATTENTION_SPECS

SPECS = {spec.name: spec for spec in ATTENTION_SPECS}


def device_of(platform):
    return SimpleNamespace(device=SimpleNamespace(platform=platform), keeps_rows=False)


@pytest.mark.parametrize("name", SPECS)
def test_ops_have_the_signatures_of_the_contract(name):
    backend = device_of("tpu")
    loaded = SPECS[name].load(backend)
    assert backend.keeps_rows, "make_kv must follow"
    assert set(loaded) == set(SPECS[name].ops)
    for op, function in loaded.items():
        check_signature(function, Ops, op, name)


@pytest.mark.parametrize("name", SPECS)
def test_elsewhere_than_on_a_tpu_they_say_what_to_do(name):
    with pytest.raises(DeviceError, match="--device tpu"):
        SPECS[name].load(device_of("cpu"))


@pytest.mark.parametrize(
    ("kind", "head_dim", "pallas", "ragged"),
    [
        ("full", 128, None, None),
        ("sliding", 64, None, "not of 64"),
        ("mla", 128, "kind 'mla'", "kind 'mla'"),
    ],
)
def test_they_know_which_models_they_serve(kind, head_dim, pallas, ragged):
    model = SimpleNamespace(kv_specs=lambda dtype: (KVSpec(kind, 8, head_dim, dtype),))
    for name, reason in (("pallas", pallas), ("ragged", ragged)):
        answer = SPECS[name].supports(model)
        assert (answer is None) == (reason is None)
        assert reason is None or reason in answer
