"""Small arrays that a program takes in one buffer, and cuts out again bit by bit."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("jax", reason="JAX is not installed")
pytest.importorskip("octavo_tpu", reason="octavo-tpu is not installed")

import jax
import jax.numpy as jnp

from octavo_tpu.packing import pack_inputs, pack_weights

CPU = jax.local_devices(backend="cpu")[0]


def unpacked(packing, packed):
    return jax.jit(packing.unpack)(packed)


def test_inputs_keep_their_bits_and_their_places():
    floats = np.array([[0.1, -0.0], [np.inf, np.nan]], np.float32)
    tree = [
        (np.arange(6, dtype=np.int32).reshape(2, 3)[:, ::2], None),  # not in one piece
        {"floats": floats, "mask": np.array([True, False])},
        jnp.arange(3),
        np.array([2**31 + 5], np.uint32),
        np.zeros(0, np.int32),
    ]
    packing, packed = pack_inputs(tree)
    assert packed.buffer.size == 4 + 4 + 1
    assert len(packed.others) == 2  # the mask, and what is on the device
    first, named, placed, large, empty = unpacked(packing, packed)
    assert first[0].tolist() == [[0, 2], [3, 5]]
    assert first[1] is None
    assert np.asarray(named["floats"]).tobytes() == floats.tobytes()
    assert named["mask"].tolist() == [True, False]
    assert placed.tolist() == [0, 1, 2]
    assert large.dtype == np.uint32
    assert large.tolist() == [2**31 + 5]
    assert empty.shape == (0,)


def test_a_packing_is_equal_where_the_program_is():
    first = pack_inputs([np.zeros(3, np.int32), np.ones(2, np.float32)])[0]
    assert first == pack_inputs([np.ones(3, np.int32), np.zeros(2, np.float32)])[0]
    assert hash(first) == hash(pack_inputs([np.ones(3, np.int32), np.zeros(2, np.float32)])[0])
    assert first != pack_inputs([np.ones(2, np.int32), np.zeros(3, np.float32)])[0]
    assert first != pack_inputs([np.ones(3, np.int32), np.zeros(2, np.int32)])[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_small_weights_of_the_usual_dtype_are_packed(dtype):
    norms = [jnp.arange(8, dtype=dtype) + layer for layer in range(3)]
    large, odd = jnp.ones((512, 128), dtype), jnp.arange(4, dtype="float16")
    packing, packed = pack_weights({"norms": norms, "large": large, "odd": odd}, CPU)
    assert packed.buffer.shape == (24,)
    assert len(packed.others) == 2
    weights = unpacked(packing, packed)
    assert [norm.tolist() for norm in weights["norms"]] == [norm.tolist() for norm in norms]
    assert weights["norms"][0].dtype == dtype
    assert weights["large"].shape == large.shape
    assert weights["odd"].tolist() == [0, 1, 2, 3]


def test_without_a_device_weights_stay_where_they_are():
    packing, packed = pack_weights([jnp.ones(2), jnp.zeros(3)], None)
    assert packed.buffer is None
    assert [weight.tolist() for weight in unpacked(packing, packed)] == [[1, 1], [0, 0, 0]]
