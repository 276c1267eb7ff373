"""The NumPy backend: its faster ops against the oracle, caches and options."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from octavo.contract import check_backend
from octavo.errors import BackendError, DeviceError, UsageError
from octavo.kv import KVSpec
from octavo.loading.tensors import QuantizedTensor
from octavo.testing.checks.attention_run import (
    AttentionCase,
    dense_sequences,
    oracle_settings,
    params_of,
    run_attention,
)
from octavo.testing.diagnosis import attend_all
from octavo.testing.paged_step import PagedCase, build_step
from octavo_cpu.backend import NumpyBackend
from op_suite import OP_CHECKS, run_op_check, subject_over


@pytest.fixture(scope="module", params=[1, 2], ids=["1 thread", "2 threads"])
def backend(request):
    backend = NumpyBackend(0, {"threads": request.param})
    yield backend
    backend.close()


@pytest.fixture
def subject(backend):
    return subject_over(backend)


@pytest.mark.parametrize("check", OP_CHECKS)
def test_ops_equal_oracle(subject, check):
    run_op_check(subject, check)


def test_long_prefill_is_tiled(subject, monkeypatch):
    monkeypatch.setattr("octavo_cpu.kernels.prefill._MAX_SCORES", 1024)
    for case in (
        PagedCase(((11, 50),)),
        PagedCase(((11, 50),), window=9),
        PagedCase(((0, 50),), causal=False, window=6),
    ):
        run_attention(subject, AttentionCase(case))


def test_nothing_is_computed_of_memory_that_nobody_wrote(subject, monkeypatch):
    """New memory may hold anything; arithmetic on a signalling NaN warns, as an error here."""

    def full_of_signalling_nan(shape, dtype=float):
        array = np.ndarray(shape, dtype)
        array.view(np.uint8).fill(0xFF)
        if array.dtype == np.float32:
            array.view(np.uint32).fill(0x7FA00000)
        return array

    monkeypatch.setattr("octavo_cpu.kernels.decode.np.empty", full_of_signalling_nan)
    run_attention(subject, AttentionCase(PagedCase(((9, 1), (3, 1), (20, 1)), soft_cap=0.5)))


def test_plan_serves_layers_of_different_windows(subject):
    """Layers that share a block table, and so a plan, may still differ in what they see of it."""
    step = build_step(subject, PagedCase(((9, 1), (2, 9))), "float32")
    (plan,) = subject.backend.plan(step.batch, step.case.block_size)
    cache = subject.ops.write_kv(step.cache(subject), step.k, step.v, plan)
    for window in (None, 6, 2):
        params = replace(params_of(step), window=window)
        attended = subject.ops.paged_attention(step.q, cache, plan, params)
        settings = {**oracle_settings(step), "window": window}
        np.testing.assert_allclose(attended, attend_all(dense_sequences(step), settings), atol=1e-5)


def test_backend_keeps_the_contract(backend):
    check_backend(backend, "numpy")


SPEC = KVSpec("full", num_kv_heads=2, head_dim=8, dtype="bfloat16")


def _filled(backend, num_blocks, seed, *, on_host=False):
    cache = backend.make_kv(SPEC, num_blocks, 4, on_host=on_host)
    rng = np.random.default_rng(seed)
    for array in (cache.k, cache.v):
        array.view(np.uint16)[...] = rng.integers(0, 2**16, array.shape)  # NaN bit patterns too
    return cache


def test_fork_copies_blocks_bit_for_bit(backend):
    cache = _filled(backend, 6, seed=1)
    before = [array.view(np.uint16).copy() for array in (cache.k, cache.v)]
    copied = backend.copy_blocks(cache, cache, np.array([[1, 4], [1, 5], [2, 3]], np.int32))
    for array, was in zip((copied.k, copied.v), before, strict=True):
        np.testing.assert_array_equal(array.view(np.uint16), was[[0, 1, 2, 2, 1, 1]])


def test_swap_out_and_in_is_bit_exact(backend):
    device, host = _filled(backend, 5, seed=2), _filled(backend, 3, seed=3, on_host=True)
    saved = device.k.view(np.uint16)[[4, 2]].copy()
    host = backend.copy_blocks(device, host, np.array([[4, 1], [2, 2]], np.int32))
    device.k[[4, 2]] = 0
    device = backend.copy_blocks(host, device, np.array([[1, 3], [2, 1]], np.int32))
    np.testing.assert_array_equal(device.k.view(np.uint16)[[3, 1]], saved)


def test_tied_embedding_is_shared_and_other_weights_are_not(backend):
    table = backend.put(np.ones((5, 3), np.float32))
    assert np.shares_memory(backend.put_linear(table, None, "float32").matrix, table)
    weight = np.ones((5, 3), np.float32)
    assert not np.shares_memory(backend.put_linear(weight, None, "float32").matrix, weight)


def test_packed_weight_is_refused(backend):
    packed = QuantizedTensor("gguf:Q4_1", (2, 32), np.zeros((2, 20), np.uint8))
    with pytest.raises(BackendError, match=r"gguf:Q4_1.*dequantised"):
        backend.put_linear(packed, None, "float32")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thread": 2}, r"no option 'thread'. Did you mean 'threads'\? It has: threads"),
        ({"zzz": 2}, r"no option 'zzz'. It has: threads"),
        ({"threads": 0}, "threads of backend 'numpy' is 0; expected a whole number of at least 1"),
        ({"threads": "2"}, "is '2'; expected"),
        ({"threads": True}, "is True; expected"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        NumpyBackend(0, options)


def test_there_is_one_device():
    with pytest.raises(DeviceError, match="no device cpu:1"):
        NumpyBackend(1, {})


def test_plugin_module_imports_no_array_library():
    program = (
        "import sys, octavo_cpu.plugin as plugin\n"
        "specs = []\n"
        "plugin.octavo_register_backends(specs.append)\n"
        "assert specs[0].probe().devices[0].total_bytes > 0\n"
        "print(sorted({'numpy', 'ml_dtypes', 'threadpoolctl'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
