"""The closed list of what portable ops ask of a namespace, held against one that has no more."""

from __future__ import annotations

import inspect
import operator
import re
import types

import array_api_compat.numpy as numpy_namespace
import numpy as np
import pytest

from octavo.errors import BackendError
from octavo.ops import sampling_numpy
from octavo.ops.arrays import NAMESPACE_DTYPES, NAMESPACE_FUNCTIONS, check_namespace, set_at
from octavo.ops.portable import PortableOps
from octavo.ops.sampling import sample
from octavo.step import map_arrays
from op_suite import OP_CHECKS, NamespaceBackend, run_op_check, subject_over
from sampling_batches import make_batch, random_batch, random_logits


class Sealed:
    """An array of a library that nobody knows: what ``octavo.ops.arrays.Array`` promises.

    It says on no ``device`` that it is, cannot be written to, and NumPy cannot read it.
    """

    __array__ = None
    __iter__ = None
    shape = property(lambda self: self.host.shape)
    dtype = property(lambda self: self.host.dtype)
    T = property(lambda self: Sealed(self.host.T))

    def __init__(self, host):
        self.host = np.array(host)

    def reshape(self, *shape):
        return Sealed(self.host.reshape(shape))

    def __neg__(self):
        return Sealed(-self.host)

    def __invert__(self):
        return Sealed(~self.host)

    def __getitem__(self, index):
        if isinstance(index, tuple) and isinstance(index[0], Sealed):
            rows, columns = index
            return Sealed(self.host[rows.host, columns.host])
        parts = index if isinstance(index, tuple) else (index,)
        assert all(isinstance(part, (int, slice, type(None), type(...))) for part in parts), index
        return Sealed(self.host[index])


def unseal(value):
    return value.host if isinstance(value, Sealed) else value


def add_operator(name, operate):
    def forward(self, other):
        return Sealed(operate(self.host, unseal(other)))

    def reflected(self, other):
        return Sealed(operate(unseal(other), self.host))

    setattr(Sealed, f"__{name}__", forward)
    setattr(Sealed, f"__r{name}__", reflected)


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "lshift", "rshift"):
    add_operator(_name, getattr(operator, _name))
for _name in ("lt", "le", "gt", "ge", "eq"):
    add_operator(_name, getattr(operator, _name))
add_operator("and", operator.and_)
add_operator("or", operator.or_)


def sealed_function(name):
    """NumPy's function, called with no other arguments than the list allows."""
    signature = inspect.signature(eval(f"lambda {NAMESPACE_FUNCTIONS[name][1:-1]}: None"))  # noqa: S307

    def function(*args, **kwargs):
        signature.bind(*args, **kwargs)
        if "axis" in kwargs and name not in ("take", "concat"):
            assert 0 not in args[0].shape
        assert kwargs.pop("device", None) is None
        if name == "concat":
            args = ([unseal(array) for array in args[0]],)
        return Sealed(getattr(numpy_namespace, name)(*map(unseal, args), **kwargs))

    return function


def sealed_set_at(x, place, values, *, copy):
    assert isinstance(copy, bool)
    updated = x.host.copy()
    updated[tuple(map(unseal, place)) if isinstance(place, tuple) else place.host] = values.host
    return Sealed(updated)


def make_namespace(**changes):
    members = {name: getattr(numpy_namespace, name) for name in NAMESPACE_DTYPES}
    members |= {name: sealed_function(name) for name in NAMESPACE_FUNCTIONS}
    members |= {"set_at": sealed_set_at, **changes}
    namespace = types.ModuleType("sealed")
    vars(namespace).update({name: member for name, member in members.items() if member})
    return namespace


SUBJECT = subject_over(NamespaceBackend(PortableOps(make_namespace()), Sealed, unseal))


@pytest.mark.parametrize("check", OP_CHECKS)
def test_ops_need_no_more_than_the_list(check):
    run_op_check(SUBJECT, check, quick=True)


@pytest.mark.parametrize("seed", range(3))
def test_sampling_needs_no_more_than_the_list(seed):
    rng = np.random.default_rng(seed)
    logits, batch = random_logits(rng, 20, 300), random_batch(rng, 20, 300)
    expected = sample(numpy_namespace, logits, batch)
    drawn = SUBJECT.ops.sample(Sealed(logits), map_arrays(batch, Sealed))
    for field in ("token_ids", "valid", "ranks", "top_ids"):
        np.testing.assert_array_equal(unseal(getattr(drawn, field)), getattr(expected, field))


@pytest.mark.parametrize("num_logprobs", [-1, 0, 3])
def test_a_step_may_sample_nothing(num_logprobs):
    logits, batch = np.zeros((0, 30), np.float32), make_batch(0, num_logprobs=num_logprobs)
    expected = sampling_numpy.sample(logits, batch)
    drawn = SUBJECT.ops.sample(Sealed(logits), map_arrays(batch, Sealed))
    for field, array in vars(expected).items():
        result = unseal(getattr(drawn, field))
        if array is None:
            assert result is None
        else:
            assert (result.shape, result.dtype) == (array.shape, array.dtype), field


def test_list_has_nothing_that_is_not_used(repo_root):
    used = set()
    for path in (repo_root / "core/src/octavo/ops").glob("*.py"):
        if path.name != "sampling_numpy.py":  # calls NumPy's own
            used |= set(re.findall(r"\bxp\.(\w+)", path.read_text()))
    assert used == {*NAMESPACE_DTYPES, *NAMESPACE_FUNCTIONS}


def test_a_namespace_that_lacks_functions_is_refused_by_naming_them():
    with pytest.raises(BackendError, match=r"lacks int32, take_along_axis, set_at, which"):
        PortableOps(make_namespace(take_along_axis=None, set_at=None, int32=None))


def test_known_namespaces_need_no_set_at():
    check_namespace(numpy_namespace)


@pytest.mark.parametrize("copy", [True, False])
def test_set_at_leaves_its_argument_alone_only_if_asked(copy):
    x = np.zeros((3, 2))
    place = (np.array([0, 2]), np.array([1, 0]))
    updated = set_at(numpy_namespace, x, place, np.array([5.0, 6.0]), copy=copy)
    assert updated.tolist() == [[0, 5], [0, 0], [6, 0]]
    assert x.any() == (not copy)
