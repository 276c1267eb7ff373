"""An Intel GPU that has shapes and no numbers: torch's FakeTensorMode on the device ``xpu``.

A CPU's build of torch knows the device there, but for what asks for a device's driver. Indexing and
torch's own attention are stood in for by operations of the same shapes; a few others are computed
on the device ``meta``. Copies from and to NumPy are what the contract has for them: the backend's
``put``, ``put_all``, ``get`` and ``fetch``.
"""

from __future__ import annotations

import contextlib
import traceback
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from triton.runtime.jit import JITFunction

from octavo_torch.constants import KeptConstants
from octavo_torch.dtypes import numpy_dtype, torch_dtype
from octavo_torch.kernels import target
from octavo_torch.ops import TorchOps
from octavo_xpu.backend import XpuBackend

XPU = torch.device("xpu", 0)
GIB = 1 << 30
OPERATORS = {"__invert__": "bitwise_not"}
NO_DRIVER = "not linked with support for xpu"
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "lift_fresh", "pin_memory")
"""Reads a number of the device's, has a shape by its numbers, or copies from pageable memory."""


class Watch(TorchDispatchMode):
    """Collects operations with tensors of another device, and those that make the host wait."""

    def __init__(self):
        super().__init__()
        self.complaints, self.num_operations, self.num_launches = [], 0, 0
        self.is_excused = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        try:
            out = func(*args, **kwargs)
        except RuntimeError as error:
            if NO_DRIVER not in str(error):
                raise
            out = on_meta(func, args, kwargs)
        self.num_operations += 1
        self.look(str(func), (args, kwargs, out))
        return out

    def look(self, name, tree):
        if self.is_excused:
            return
        tensors = [each for each in tree_leaves(tree) if isinstance(each, torch.Tensor)]
        if {each.device for each in tensors} - {XPU}:
            self.complain(f"{name} on {sorted({str(each.device) for each in tensors})}")
        if any(word in name for word in WAITS):
            self.complain(f"{name} makes the host wait")

    def complain(self, what):
        frames = traceback.extract_stack()
        where = next(each for each in reversed(frames) if "/octavo" in each.filename)
        self.complaints.append(f"{what}: {Path(where.filename).name}:{where.lineno}")

    @contextlib.contextmanager
    def excused(self):
        before, self.is_excused = self.is_excused, True
        yield
        self.is_excused = before

    def run_kernel(self, kernel, *args, grid, warmup, **options):
        """In the place of Triton's launch: the grid is the host's, the tensors the device's."""
        sizes = grid(options) if callable(grid) else grid
        assert all(isinstance(size, int) for size in sizes)
        self.num_launches += 1
        self.look(kernel.__name__, (args, options))


def on_meta(func, args, kwargs):
    """Shapes and dtypes by the device ``meta``."""
    given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
    assert {each.device for each in given} == {XPU}

    def meta(each):
        if isinstance(each, torch.Tensor):
            return torch.empty_strided(each.shape, each.stride(), dtype=each.dtype, device="meta")
        return each

    out = func(*tree_map(meta, args), **tree_map(meta, kwargs))
    if func._schema.is_mutable:
        return args[0]
    return tree_map(
        lambda each: torch.empty_strided(each.shape, each.stride(), dtype=each.dtype, device=XPU),
        out,
    )


class StandIns(TorchFunctionMode):
    """What asks for a driver before it becomes an operation."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            return attend(*args, **kwargs)
        if func is torch.Tensor.__getitem__:
            return get_item(*args)
        if func is torch.Tensor.__setitem__:
            return set_item(*args)
        if func is torch.Tensor.data_ptr:  # there is no memory: one number for each piece of it
            return args[0].untyped_storage()._cdata + args[0].storage_offset()
        try:
            return func(*args, **kwargs)
        except RuntimeError as error:
            if NO_DRIVER not in str(error):
                raise
            name = OPERATORS.get(func.__name__, func.__name__)
            return getattr(torch.ops.aten, name)(*args, **kwargs)


def attend(q, k, v, attn_mask=None, is_causal=False, scale=None, enable_gqa=False):
    """Its shapes, dtypes and devices."""
    if enable_gqa:
        k, v = (part.repeat_interleave(q.shape[1] // part.shape[1], 1) for part in (k, v))
    scores = q @ k.transpose(-1, -2)
    if attn_mask is not None:
        scores = (scores * attn_mask).to(q.dtype)
    return scores @ v


def index(tensor, place):
    """(a view of the tensor, the tensors that index it): None where nothing does."""
    places = list(place) if isinstance(place, tuple) else [place]
    if any(each is Ellipsis for each in places):
        at = next(i for i, each in enumerate(places) if each is Ellipsis)
        num_missing = tensor.ndim - sum(each is not None for each in places) + 1
        places[at : at + 1] = [slice(None)] * num_missing
    by, dim = [], 0
    for each in places:
        if isinstance(each, int):
            tensor = torch.ops.aten.select(tensor, dim, each)
            continue
        if each is None:
            tensor = torch.ops.aten.unsqueeze(tensor, dim)
        elif isinstance(each, slice):
            tensor = torch.ops.aten.slice(tensor, dim, each.start, each.stop, each.step or 1)
        else:
            assert each.dtype != torch.bool, "a shape is of the device's numbers"
            by += [None] * (dim - len(by)) + [each]
        dim += 1
    return tensor, by


def get_item(tensor, place):
    tensor, by = index(tensor, place)
    return torch.ops.aten.index.Tensor(tensor, by) if by else tensor


def set_item(tensor, place, value):
    tensor, by = index(tensor, place)
    if by:
        torch.ops.aten.index_put_.default(tensor, by, value)
    elif isinstance(value, torch.Tensor):
        torch.ops.aten.copy_(tensor, value)
    else:
        torch.ops.aten.fill_(tensor, value)


class FakeXpuBackend(XpuBackend):
    """Whatever is read is 1: a token like others, and a mark that all went well."""

    watch: Watch
    with_kernels: bool

    def __init__(self, index, options):
        with self.watch.excused():  # pinned memory of the host's, for transfers
            super().__init__(index, options)

    def make_ops(self):
        return super().make_ops() if self.with_kernels else TorchOps()

    def make_capture(self):
        return FakeCapture()

    def put(self, array, dtype=None):
        with self.watch.excused():
            return torch.empty(
                array.shape, dtype=torch_dtype(dtype or array.dtype.name), device=XPU
            )

    def put_all(self, arrays):
        return [self.put(array) for array in arrays]

    def get(self, array):
        assert array.device == XPU, "the host computed this"
        return np.ones(array.shape, numpy_dtype(str(array.dtype).removeprefix("torch.")))

    def fetch(self, arrays):
        return lambda: [self.get(array) for array in arrays]


class FakeCapture:
    """Runs what is captured, and again when it is replayed."""

    def capture(self, function):
        return SimpleNamespace(replay=lambda: None), function()


@contextlib.contextmanager
def fake_xpu(monkeypatch, *, with_kernels=True):
    """Within, there is a device ``xpu:0``; the watch looks at what is computed on it."""
    watch = Watch()
    properties = SimpleNamespace(
        has_bfloat16_conversions=True,
        is_integrated_gpu=False,
        architecture=0x00000003_0DC00800,
        gpu_subslice_count=32,
        local_mem_size=128 << 10,
    )
    stand_ins = {
        "device_count": lambda: 1,
        "set_device": lambda _: None,
        "device": lambda _: contextlib.nullcontext(),
        "get_device_properties": lambda _=None: properties,
        "mem_get_info": lambda _=None: (8 * GIB, 16 * GIB),
        "memory_reserved": lambda _=None: 0,
        "memory_allocated": lambda _=None: 0,
        "max_memory_allocated": lambda _=None: 0,
        "reset_peak_memory_stats": lambda _=None: None,
        "empty_cache": lambda: None,
        "synchronize": lambda _=None: None,  # when an engine is loaded, and closed
    }
    for name, function in stand_ins.items():
        monkeypatch.setattr(torch.xpu, name, function)
    backend = type("Backend", (FakeXpuBackend,), {"watch": watch, "with_kernels": with_kernels})
    monkeypatch.setattr("octavo_xpu.backend.XpuBackend", backend)
    place = KeptConstants.asarray

    def asarray(self, values, **options):
        with watch.excused():
            return place(self, values, **options)

    monkeypatch.setattr(KeptConstants, "asarray", asarray)

    def run(kernel, *args, **options):
        watch.run_kernel(kernel, *args, **options)

    monkeypatch.setattr(JITFunction, "run", run)
    target._detect.cache_clear()
    try:
        with FakeTensorMode(), StandIns(), watch:
            yield watch
    finally:
        target._detect.cache_clear()
