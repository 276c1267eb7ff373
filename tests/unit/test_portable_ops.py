"""The portable ops on NumPy, torch and JAX against the float64 oracle."""

import functools
import importlib

import numpy as np
import pytest

from octavo.ops.attention import make_plans
from octavo.ops.portable import PortableOps
from octavo.ops.protocol import AttentionParams, AttentionPlan
from octavo.ops.storage import PortableCache, PortableLinear
from octavo.step_trees import each_step_tree
from op_checks import (
    OPS,
    SHAPES,
    Subject,
    check_attend,
    check_op,
    check_rope_table,
    expected_attention,
    rope_specs,
)
from paged_case import CASES, DTYPES, Case, build

ANY_SHAPE = [("float32", shape) for shape in SHAPES]
ANY_DTYPE = [("float16", SHAPES[1]), ("bfloat16", SHAPES[1])]
NAMESPACES = ("numpy", "torch", "jax")


def _numpy_puts():
    import array_api_compat.numpy as xp

    return xp, lambda array: array, np.asarray


def _torch_puts():
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

    return xp, put, get


def _jax_puts():
    jax = pytest.importorskip("jax", reason="jax is not installed")
    return jax.numpy, jax.numpy.asarray, np.asarray


_PUTS = {"numpy": _numpy_puts, "torch": _torch_puts, "jax": _jax_puts}


@functools.cache
def subject_for(namespace):
    xp, put, get = _PUTS[namespace]()
    return Subject(
        ops=PortableOps(xp),
        put=put,
        get=get,
        linear=lambda weight, bias, dtype: PortableLinear(
            put(weight), None if bias is None else put(bias)
        ),
        cache=lambda k, v: PortableCache(put(k), put(v)),
        read_cache=lambda cache: (get(cache.k), get(cache.v)),
        plan=lambda batch, block_size: make_plans(batch, put),
    )


@functools.cache
def jitted_subject_for(namespace):
    """The same, but what is called through ``jit`` is one program with a donated cache on JAX."""
    subject = subject_for(namespace)
    if namespace != "jax":
        return subject
    import jax

    each_step_tree(jax.tree_util.register_dataclass)
    return Subject(**{**vars(subject), "jit": functools.partial(jax.jit, donate_argnums=3)})


@pytest.fixture(params=NAMESPACES)
def subject(request):
    return subject_for(request.param)


@pytest.mark.parametrize(("dtype", "shape"), [*ANY_SHAPE, *ANY_DTYPE])
@pytest.mark.parametrize("op", OPS)
def test_op_equals_oracle(subject, op, shape, dtype):
    check_op(subject, op, shape, dtype)


@pytest.mark.parametrize("kind", rope_specs())
def test_rope_table_equals_formula(subject, kind):
    check_rope_table(subject, kind)


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_attend_equals_dense_oracle(namespace, case):
    check_attend(jitted_subject_for(namespace), case, "float32")


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("case", CASES[4:6], ids=lambda case: case.label)
def test_attend_in_half_precision(namespace, case, dtype):
    check_attend(jitted_subject_for(namespace), case, dtype)


def test_long_table_takes_few_iterations():
    """Compilers unroll the loop over blocks, so its length must not grow with the table."""
    jax = pytest.importorskip("jax", reason="jax is not installed")
    subject = jitted_subject_for("jax")
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
            lambda q, cache, plan: subject.ops.paged_attention(q, cache, plan, AttentionParams(1.0))
        )(jax.ShapeDtypeStruct((2, 1, 8), np.float32), PortableCache(cache, cache), plan)
        lengths.append(len(program.eqns))
    assert lengths[1] <= 2.5 * lengths[0]


def test_unusable_rows_stay_in_their_rows():
    """NaN in one token's query must not reach another token."""
    subject = subject_for("numpy")
    case = Case(((3, 1), (8, 1)))
    step = build(case, "float32")
    step.q[0] = np.nan
    (plan,) = subject.plan(step.batch, case.block_size)
    attended, _ = subject.ops.attend(
        step.q,
        step.k,
        step.v,
        PortableCache(step.k_cache, step.v_cache),
        plan,
        AttentionParams(case.head_dim**-0.5),
    )
    assert np.isnan(attended[0]).all()
    np.testing.assert_allclose(attended[1], expected_attention(step, case)[1], atol=1e-5)
