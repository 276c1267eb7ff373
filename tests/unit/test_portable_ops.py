"""The portable ops on NumPy, torch and JAX, through the conformance suite's checks of ops."""

import functools
import importlib
import inspect
from dataclasses import replace

import numpy as np
import pytest

from octavo.ops.names import OP_NAMES
from octavo.ops.portable import PortableOps
from octavo.ops.protocol import AttentionParams, AttentionPlan
from octavo.ops.storage import PortableCache
from octavo.step_trees import each_step_tree
from octavo.testing.checks.attention_run import dense_sequences, oracle_settings, params_of
from octavo.testing.diagnosis import attend_all
from octavo.testing.paged_step import DTYPES, PagedCase, build_step
from op_suite import ATTENTION_CHECKS, LEAF_CHECKS, NamespaceBackend, run_op_check, subject_over

NAMESPACES = ("numpy", "torch", "jax")
STATIC = {"self", "eps", "tanh", "cap", "spec", "params", "activation", "num_logprobs"}


def _numpy_backend():
    import array_api_compat.numpy as xp

    return NamespaceBackend(PortableOps(xp), lambda array: array, np.asarray)


def _torch_backend():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    xp = importlib.import_module("array_api_compat.torch")

    def put(array):
        if array.dtype == DTYPES["bfloat16"]:
            return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
        return torch.from_numpy(array.copy())

    def get(array):
        if array.dtype == torch.bfloat16:
            return array.view(torch.int16).numpy().view(DTYPES["bfloat16"])
        return array.numpy()

    return NamespaceBackend(PortableOps(xp), put, get)


def _jax_backend():
    """Each op is a program; the cache that it takes is donated, and so is dead afterwards."""
    jax = pytest.importorskip("jax", reason="jax is not installed")
    each_step_tree(jax.tree_util.register_dataclass)

    def jitted(name):
        op = getattr(PortableOps, name)
        names = set(inspect.signature(op).parameters)
        dead = {"cache"} if name in ("write_kv", "attend") else set()
        return jax.jit(op, static_argnames=names & STATIC, donate_argnames=dead)

    ops = type("JittedOps", (PortableOps,), {name: jitted(name) for name in OP_NAMES})
    backend = NamespaceBackend(ops(jax.numpy), jax.numpy.asarray, np.asarray)
    backend.caps = replace(backend.caps, block_sizes=(8, 1))  # each size is programs to compile
    return backend


_BACKENDS = {"numpy": _numpy_backend, "torch": _torch_backend, "jax": _jax_backend}


@functools.cache
def subject_for(namespace):
    return subject_over(_BACKENDS[namespace]())


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("check", LEAF_CHECKS)
def test_op_equals_oracle(namespace, check):
    run_op_check(subject_for(namespace), check, quick=namespace == "jax")  # compiles each shape


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("check", ATTENTION_CHECKS)
def test_attention_equals_dense_oracle(namespace, check):
    run_op_check(subject_for(namespace), check, quick=namespace == "jax")


def test_every_check_has_cases_for_portable_ops():
    """A check whose every case went unclaimed would prove nothing of the portable ops."""
    subject = subject_for("numpy")
    without = [
        check for check in (*LEAF_CHECKS, *ATTENTION_CHECKS) if not run_op_check(subject, check)
    ]
    assert without == ["linear_packed", "kv_saturation"]


def test_long_table_takes_few_iterations():
    """Compilers unroll the loop over blocks, so its length must not grow with the table."""
    jax = pytest.importorskip("jax", reason="jax is not installed")
    subject = subject_for("jax")
    lengths = []
    for blocks in (64, 512):
        cache = jax.ShapeDtypeStruct((4, 16, 1, 8), np.float32)
        tokens = jax.ShapeDtypeStruct((2,), np.int32)
        plan = AttentionPlan(
            block_table=jax.ShapeDtypeStruct((2, blocks), np.int32),
            slots=tokens,
            token_seqs=tokens,
            positions=tokens,
            query_start=jax.ShapeDtypeStruct((3,), np.int32),
            seq_lens=tokens,
        )
        program = jax.make_jaxpr(
            lambda q, cache, plan: PortableOps.paged_attention(
                subject.ops, q, cache, plan, AttentionParams(1.0)
            )
        )(jax.ShapeDtypeStruct((2, 1, 8), np.float32), PortableCache(cache, cache), plan)
        lengths.append(len(program.eqns))
    assert lengths[1] <= 2.5 * lengths[0]


def test_unusable_rows_stay_in_their_rows():
    """NaN in one token's query must not reach another token."""
    subject = subject_for("numpy")
    step = build_step(subject, PagedCase(((3, 1), (8, 1))), "float32")
    expected = attend_all(dense_sequences(step), oracle_settings(step))
    step.q[0] = np.nan
    (plan,) = subject.backend.plan(step.batch, step.case.block_size)
    cache = step.cache(subject)
    attended, _ = subject.ops.attend(step.q, step.k, step.v, cache, plan, params_of(step))
    assert np.isnan(attended[0]).all()
    np.testing.assert_allclose(attended[1], expected[1], atol=1e-5)
