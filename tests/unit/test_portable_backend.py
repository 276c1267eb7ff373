"""PortableBackend: what a backend gets for nothing, on NumPy, torch and JAX."""

from __future__ import annotations

import array_api_compat.numpy as numpy_namespace
import numpy as np
import pytest

from octavo.api import (
    BackendError,
    Capabilities,
    KVSpec,
    MemoryInfo,
    PortableBackend,
    PortableOps,
    QuantizedTensor,
    each_step_tree,
)
from octavo.contract import check_backend

SPEC = KVSpec("full", num_kv_heads=2, head_dim=3, dtype="float32")
BLOCK_SHAPE = (4, 2, 3)  # 4 tokens a block


class SmallBackend(PortableBackend):
    caps = Capabilities(dtypes=("float32",), kv_dtypes=("float32",), host_swap=True)

    def __init__(self, xp, asarray):
        super().__init__(PortableOps(xp))
        self.asarray = asarray
        self.shared_with_host = False

    def memory(self):
        return MemoryInfo(1, 1, self.shared_with_host)

    def put(self, array, dtype=None):
        return self.asarray(np.asarray(array, dtype))

    def get(self, array):
        return np.asarray(array)


def numpy_backend():
    return SmallBackend(numpy_namespace, np.asarray)


def torch_backend():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    import array_api_compat.torch

    return SmallBackend(array_api_compat.torch, torch.from_numpy)


def jax_backend():
    jax = pytest.importorskip("jax", reason="jax is not installed")

    class DonatingBackend(SmallBackend):
        """A cache that was passed to a compiled function is deleted: its use is an error."""

        def compile(self, step):
            return jax.jit(step, donate_argnums=1)

    each_step_tree(jax.tree_util.register_dataclass)
    return DonatingBackend(jax.numpy, jax.numpy.asarray)


@pytest.fixture(params=[False, True], ids=["own memory", "the host's memory"])
def shared_with_host(request):
    return request.param


@pytest.fixture(params=[numpy_backend, torch_backend, jax_backend])
def backend(request, shared_with_host):
    made = request.param()
    made.shared_with_host = shared_with_host
    return made


def filled(backend, num_blocks, *, on_host):
    """A cache whose block i holds i + 1 everywhere, negative in its values."""
    cache = backend.make_kv(SPEC, num_blocks, 4, on_host=True)
    for block in range(num_blocks):
        cache.k[block], cache.v[block] = block + 1, -(block + 1)
    if on_host:
        return cache
    every_block = np.repeat(np.arange(num_blocks, dtype=np.int32)[:, None], 2, axis=1)
    return backend.copy_blocks(cache, backend.make_kv(SPEC, num_blocks, 4), every_block)


def contents(backend, cache):
    """What each block of a cache holds, after checking that it holds one thing throughout."""
    k, v = (
        array if isinstance(array, np.ndarray) else backend.get(array)
        for array in (cache.k, cache.v)
    )
    np.testing.assert_array_equal(k, -v)
    np.testing.assert_array_equal(k, np.broadcast_to(k[:, :1, :1, :1], k.shape))
    return k[:, 0, 0, 0].tolist()


def test_it_keeps_the_contract(backend):
    check_backend(backend, "small")


@pytest.mark.parametrize("on_host", [False, True])
def test_a_cache_is_empty_and_of_the_spec(backend, on_host):
    cache = backend.make_kv(SPEC, 5, 4, on_host=on_host)
    assert tuple(cache.k.shape) == tuple(cache.v.shape) == (5, *BLOCK_SHAPE)
    assert contents(backend, cache) == [0] * 5
    assert isinstance(cache.k, np.ndarray) or not on_host


def test_a_cache_in_the_hosts_memory_is_what_put_made_of_zeros():
    """Not written once more, so that what ``put`` shares stays untouched until it is used."""
    backend = numpy_backend()
    backend.shared_with_host = True
    shared = []
    backend.asarray = lambda array: shared.append(array) or array
    cache = backend.make_kv(SPEC, 5, 4)
    assert (cache.k is shared[0], cache.v is shared[1], len(shared)) == (True, True, 2)


@pytest.mark.parametrize("to_host", [False, True])
@pytest.mark.parametrize("from_host", [False, True])
def test_blocks_are_copied_between_device_and_host(backend, from_host, to_host):
    source = filled(backend, 6, on_host=from_host)
    target = filled(backend, 4, on_host=to_host)
    pairs = np.array([[5, 1], [0, 3], [2, 2]], np.int32)  # three, so that there is padding
    target = backend.copy_blocks(source, target, pairs)
    assert contents(backend, target) == [1, 6, 3, 1]
    assert contents(backend, source) == [1, 2, 3, 4, 5, 6]


def test_blocks_fork_within_one_cache(backend):
    cache = filled(backend, 6, on_host=False)
    cache = backend.copy_blocks(cache, cache, np.array([[1, 4], [1, 5], [2, 0]], np.int32))
    assert contents(backend, cache) == [3, 2, 3, 4, 2, 2]


def test_no_pairs_are_no_copies(backend):
    cache = filled(backend, 2, on_host=False)
    assert contents(backend, backend.copy_blocks(cache, cache, np.zeros((0, 2), np.int32))) == [
        1,
        2,
    ]


def test_a_tied_weight_is_shared(backend):
    table = backend.put(np.ones((4, 3), np.float32))
    assert backend.put_linear(table, None, "float32").weight is table


def test_a_linear_weight_is_what_the_op_reads(backend):
    generator = np.random.default_rng(0)
    x, weight, bias = (generator.normal(size=s).astype(np.float32) for s in ((2, 3), (4, 3), 4))
    prepared = backend.put_linear(weight, bias, "float32")
    product = backend.get(backend.ops.linear(backend.put(x), prepared))
    np.testing.assert_allclose(product, x @ weight.T + bias, rtol=1e-5)


def test_a_packed_weight_is_refused():
    packed = QuantizedTensor("q4_0", (32, 32), np.zeros((32, 18), np.uint8))
    with pytest.raises(BackendError, match=r"packed as q4_0.*override put_linear"):
        numpy_backend().put_linear(packed, None, "float32")
