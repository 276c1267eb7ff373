"""The shapes in the op signatures hold at run time: jaxtyping and beartype around every op."""

import types

import array_api_compat.numpy as xp
import numpy as np
import pytest
from beartype import beartype
from beartype.roar import BeartypeException
from jaxtyping import Bool, Float, Int, TypeCheckError, jaxtyped

from octavo.ops import protocol
from octavo.ops.names import OP_NAMES
from octavo.ops.portable import PortableOps
from octavo.ops.protocol import Ops, SamplingBatch
from octavo_cpu.backend import NumpyBackend
from op_suite import OP_CHECKS, NamespaceBackend, run_op_check, subject_over

# Includes what protocol.py imports for type checkers only.
NAMES = {**vars(protocol), "Bool": Bool, "Float": Float, "Int": Int}


def checked(op, name):
    """A copy of ``op`` that enforces the annotations of the protocol's op of that name."""
    copy = types.FunctionType(op.__code__, op.__globals__, name, op.__defaults__, op.__closure__)
    copy.__kwdefaults__ = op.__kwdefaults__
    hints = getattr(Ops, name).__annotations__
    copy.__annotations__ = {key: eval(hint, NAMES) for key, hint in hints.items()}  # noqa: S307
    return jaxtyped(typechecker=beartype)(copy)


def checked_class(ops_class):
    """``ops_class`` with every op checked, also where ops call each other."""
    ops = {name: checked(getattr(ops_class, name), name) for name in OP_NAMES}
    return type(f"Checked{ops_class.__name__}", (ops_class,), ops)


def _portable_subject():
    return subject_over(NamespaceBackend(checked_class(PortableOps)(xp), np.asarray, np.asarray))


def _numpy_subject():
    backend = NumpyBackend(0, {"threads": 1})
    backend.ops = checked_class(type(backend.ops))(1)
    return subject_over(backend)


@pytest.fixture(
    scope="module", params=[_portable_subject, _numpy_subject], ids=["portable", "numpy"]
)
def subject(request):
    return request.param()


@pytest.mark.parametrize("check", OP_CHECKS)
def test_ops_take_and_give_the_shapes_of_the_protocol(subject, check):
    run_op_check(subject, check, quick=True)


def test_sampling(subject):
    rows, nothing = np.zeros(3, np.float32), np.zeros(0, np.int32)
    sampling = SamplingBatch(
        temperature=rows,
        top_k=np.zeros(3, np.int32),
        top_p=rows + 1,
        min_p=rows,
        uniform=rows,
        repetition_penalty=rows + 1,
        presence_penalty=rows,
        frequency_penalty=rows,
        seen_rows=nothing,
        seen_ids=nothing,
        seen_counts=nothing,
        bias_rows=nothing,
        bias_ids=nothing,
        bias_values=np.zeros(0, np.float32),
        mask=None,
        num_logprobs=2,
        all_greedy=True,
        plain=True,
    )
    logits = np.arange(30, dtype=np.float32).reshape(3, 10)
    sampled = subject.ops.sample(logits, sampling)
    np.testing.assert_array_equal(sampled.token_ids, [9, 9, 9])
    given = subject.ops.token_logprobs(logits, np.array([9, 0, 8], np.int32), 2)
    np.testing.assert_array_equal(given.ranks, [1, 10, 2])


@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        ("rms_norm", (np.ones((2, 4), np.float32), np.ones(3, np.float32), 1e-5)),
        ("embed", (np.zeros(2, np.float32), np.ones((3, 4), np.float32))),
        ("take_rows", (np.ones((2, 4), np.float32), np.zeros((1, 1), np.int32))),
    ],
)
def test_wrong_shape_or_dtype_is_caught(op, arguments):
    """The net holds: without this, a check that does nothing would pass all of the above."""
    with pytest.raises((TypeCheckError, BeartypeException)):
        getattr(checked_class(PortableOps)(xp), op)(*arguments)


def test_wrong_result_is_caught():
    class Transposed(PortableOps):
        def take_rows(self, x, rows):
            return x[rows].T

    ops = checked_class(Transposed)(xp)
    with pytest.raises((TypeCheckError, BeartypeException)):
        ops.take_rows(np.ones((2, 4), np.float32), np.zeros(3, np.int32))


@pytest.mark.parametrize("name", OP_NAMES)
def test_portable_annotations_are_the_protocol_s(name):
    assert getattr(PortableOps, name).__annotations__ == getattr(Ops, name).__annotations__
