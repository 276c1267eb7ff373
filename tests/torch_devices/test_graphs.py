"""Graphs and staged transfers without a GPU: a stand-in for CUDA's capture, on the CPU.

The stand-in does what a graph does: it works on the tensors that it was captured with, and leaves
its results where they were. What is wrongly copied in, out or over shows in the tokens.
"""

from __future__ import annotations

import contextlib
import json
import random
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("octavo_torch", reason="octavo-torch is not installed")
torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from octavo import LLM, SamplingParams  # noqa: E402
from octavo.api import KVSpec, PortableOps  # noqa: E402
from octavo.testing.conform import Planned, all_checks, plan_cases, run_case  # noqa: E402
from octavo.testing.subject import Subject  # noqa: E402
from octavo.testing.tiny_models import TINY_MODELS  # noqa: E402
from octavo_torch.caches import TorchCache, make_cache  # noqa: E402
from octavo_torch.cpu import TorchCpuBackend  # noqa: E402
from octavo_torch.gpu import GpuBackend  # noqa: E402
from octavo_torch.gpu_options import GpuOptions  # noqa: E402
from octavo_torch.graphs import GraphedFunction  # noqa: E402
from octavo_torch.ops import TorchOps  # noqa: E402
from octavo_torch.plan import make_plans  # noqa: E402
from octavo_torch.staging import Staging  # noqa: E402
from octavo_torch.trees import tensors_of  # noqa: E402

SIZES = (1, 2, 4, 8)


class StandInGraph:
    """Computes once more, into the same memory; ``ruin`` is what a GPU may do in between."""

    def __init__(self, function, results):
        self.function, self.results = function, results
        self.num_replays = 0

    def replay(self):
        self.num_replays += 1
        for kept, new in zip(tensors_of(self.results), tensors_of(self.function()), strict=True):
            if kept.data_ptr() != new.data_ptr():
                kept.copy_(new)


class NoHost(TorchDispatchMode):
    """Refuses what a GPU cannot capture: numbers from the host or for it, shapes by data."""

    WORDS = (
        "lift_fresh",
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "unique",
        "pin_memory",
    )

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert not any(word in str(func) for word in self.WORDS), f"{func} in a graph"
        assert not str(func).startswith("aten.index.") or not any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in args[1]
        ), "a mask as an index in a graph"
        return func(*args, **(kwargs or {}))


class StandInCapture:
    is_capturing = False

    def __init__(self):
        self.graphs = []

    def capture(self, function):
        StandInCapture.is_capturing = True
        try:
            with NoHost():
                results = function()
        finally:
            StandInCapture.is_capturing = False
        self.graphs.append(StandInGraph(function, results))
        return self.graphs[-1], results


class ArrayOps(TorchOps):
    """Attention by the arrays of a plan alone, as kernels read them."""

    reads_host_plan = False

    def __init__(self):
        super().__init__()
        self.launched = set()

    def paged_attention(self, q, cache, plan, params, sinks=None):
        """What a launch is compiled for; a kernel can be neither compiled nor loaded in a graph."""
        launch = (q.shape, plan.max_query_len, plan.max_seq_len, plan.block_table.shape)
        assert launch in self.launched or not StandInCapture.is_capturing, launch
        self.launched.add(launch)
        by_token = TorchCache(cache.k.transpose(1, 2), cache.v.transpose(1, 2))
        return PortableOps.paged_attention(self, q, by_token, plan, params, sinks)


class GraphingBackend(TorchCpuBackend):
    """torch on the CPU, as a GPU's backend uses it."""

    ops_class = ArrayOps
    caps = replace(TorchCpuBackend.caps, asynchronous=True, decode_buckets=SIZES)

    def __init__(self, index, options):
        super().__init__(index, options)
        self.staging, self.capture = Staging(self.device), StandInCapture()
        self.functions = []

    def make_ops(self):
        return self.ops_class()

    def put_all(self, arrays):
        return self.staging.put_all(arrays)

    def fetch(self, arrays):
        return self.staging.fetch(arrays, self.get)

    def plan(self, batch, block_size):
        return make_plans(batch, block_size, lambda array: array)

    def compile(self, step):
        self.functions.append(GraphedFunction(step, self.capture, SIZES, 64))
        return self.functions[-1]


@pytest.fixture
def load(tmp_path, monkeypatch):
    """``load(family, graphs=True, ...)``: an LLM on torch, with graphs or on NumPy."""
    loaded = []

    def load(family="llama", *, graphs=True, **engine):
        folder = tmp_path / family
        folder.mkdir(exist_ok=True)
        config = TINY_MODELS[family].config
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        defaults = {"load_format": "dummy", "max_model_len": 96, "quiet": True, "seed": 3}
        defaults |= {"max_num_seqs": 6, "max_num_batched_tokens": 48, "swap_space": 0.001}
        defaults |= {"dtype": "float32", "backend": "torch" if graphs else "numpy", "block_size": 4}
        if graphs:
            monkeypatch.setattr("octavo_torch.cpu.TorchCpuBackend", GraphingBackend)
        loaded.append(LLM(str(folder), "cpu", **{**defaults, **engine}))
        monkeypatch.undo()
        return loaded[-1]

    yield load
    for llm in loaded:
        llm.close()


def workload(vocab_size, count=14):
    draw = random.Random(1)
    kinds = [
        {"temperature": 0},
        {"temperature": 0.9, "seed": 5},
        {"temperature": 1.0, "top_k": 9},
        {"temperature": 0, "repetition_penalty": 1.3},
        {"temperature": 0.8, "n": 2, "seed": 2},
    ]
    for index in range(count):
        prompt = [draw.randrange(vocab_size) for _ in range(draw.randint(1, 40))]
        length = draw.randint(1, 40)
        params = SamplingParams(max_tokens=length, **kinds[index % len(kinds)])
        yield {"prompt_token_ids": prompt}, params


def answers(llm, vocab_size, **options):
    prompts, params = zip(*workload(vocab_size, **options), strict=True)
    outputs = llm.generate(list(prompts), list(params), use_tqdm=False)
    return [[each.token_ids for each in output.outputs] for output in outputs]


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3"])
def test_graphs_give_the_tokens_of_numpy(load, family):
    vocab_size = TINY_MODELS[family].config["vocab_size"]
    expected = answers(load(family, graphs=False), vocab_size)
    llm = load(family)
    assert answers(llm, vocab_size) == expected
    graphs = llm.loaded.backend.capture.graphs
    assert len(graphs) > 2
    assert sum(graph.num_replays for graph in graphs) > 20


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3"])
def test_torch_s_own_attention_can_be_recorded(load, family, monkeypatch):
    """It gathers up to the bounds that a graph has in place of the host's numbers."""
    vocab_size = TINY_MODELS[family].config["vocab_size"]
    expected = answers(load(family, graphs=False), vocab_size)
    monkeypatch.setattr(GraphingBackend, "ops_class", TorchOps)
    llm = load(family, attention_backend="sdpa")
    assert answers(llm, vocab_size) == expected
    assert sum(graph.num_replays for graph in llm.loaded.backend.capture.graphs) > 20


def test_graphs_survive_new_caches_and_preemption(load):
    vocab_size = TINY_MODELS["llama"].config["vocab_size"]
    reference, llm = load(graphs=False), load(kv_cache_memory_bytes=1 << 17)
    assert answers(llm, vocab_size) == answers(reference, vocab_size)
    llm.loaded.engine.sleep(1)
    llm.loaded.engine.wake_up()
    assert answers(llm, vocab_size) == answers(reference, vocab_size)


def test_the_oldest_graphs_go(load):
    llm = load()
    for function in llm.loaded.backend.functions:
        function._max_graphs = 2
    vocab_size = TINY_MODELS["llama"].config["vocab_size"]
    assert answers(llm, vocab_size) == answers(load(graphs=False), vocab_size)
    assert max(function.num_graphs for function in llm.loaded.backend.functions) == 2


def test_staged_arrays_arrive_as_they_are():
    staging = Staging(torch.device("cpu"))
    rng = np.random.default_rng(0)
    arrays = [
        rng.integers(0, 99, (3, 5)).astype(np.int32)[:, ::2],
        np.zeros((0, 4), np.float32),
        rng.standard_normal(7).astype(np.float32),
        np.array(5, np.int32),
        rng.integers(0, 2, (2, 3)).astype(np.bool_),
        rng.standard_normal((40, 1000)).astype(np.float32),
    ]
    kept = [array.copy() for array in arrays]
    first = staging.put_all(arrays)
    for _ in range(4):  # more than there are buffers
        staging.put_all([np.full_like(array, 1) for array in arrays])
    for tensor, array in zip(first, kept, strict=True):
        assert tensor.data_ptr() % 16 == 0 or not array.size
        np.testing.assert_array_equal(tensor.numpy(), array)


def test_what_is_fetched_is_not_written_over():
    staging = Staging(torch.device("cpu"))
    result = torch.arange(4)
    pending = staging.fetch([result], lambda tensor: tensor.numpy())
    result += 10
    np.testing.assert_array_equal(pending()[0], [0, 1, 2, 3])


@pytest.mark.parametrize(
    "checks", ["contract", "ops.attend", "ops.rope_attend", "paging", "faults.lasting"]
)
def test_the_conformance_suite_knows_bulk_transfers(checks, monkeypatch):
    """Where there is ``put_all``, what ``plan`` returns is still on the host.

    Where there is ``fetch``, a step is read when another was planned behind it.
    """
    monkeypatch.setattr("octavo_torch.cpu.TorchCpuBackend", GraphingBackend)
    subject = Subject.installed("torch", "cpu")
    chosen = [check for check in all_checks() if check.id.startswith(checks)]
    found = [
        run_case(subject, each) if isinstance(each, Planned) else each
        for each in plan_cases(subject, chosen, quick=True)
    ]
    subject.close()
    assert [(each.id, each.message) for each in found if each.status in {"failed", "blocked"}] == []
    assert any(each.status == "passed" for each in found)


class TwoDevices:
    """What torch offers for a kind of device, with a current one, as each thread has."""

    def __init__(self):
        self.current = 0

    def device_count(self):
        return 2

    def set_device(self, device):
        self.current = device.index

    @contextlib.contextmanager
    def device(self, device):
        before, self.current = self.current, device.index
        yield
        self.current = before


def test_each_backend_works_on_its_own_device_whichever_is_current(monkeypatch):
    """Kernels, events and graphs go to the current device, and another engine may have set it."""
    devices, used = TwoDevices(), []

    class Watched:
        def __init__(self, device):
            pass

        def put_all(self, arrays):
            used.append(devices.current)
            return arrays

        def fetch(self, arrays, read):
            used.append(devices.current)

    monkeypatch.setattr("octavo_torch.gpu.Staging", Watched)
    pytest.importorskip("triton")
    copied = "octavo_torch.kernels.copy_blocks.copy_blocks"
    monkeypatch.setattr(copied, lambda *_: used.append((devices.current, "copied")))
    monkeypatch.setattr("torch.cpu", devices)
    monkeypatch.setattr(GpuBackend, "torch_kind", "cpu")
    monkeypatch.setattr(GpuBackend, "make_ops", lambda _: ArrayOps())
    first, second = (GpuBackend("cpu", index, GpuOptions(graphs=False)) for index in range(2))
    for backend in (first, second, first):
        backend.put_all([])
        backend.fetch([])
        cache = make_cache(KVSpec("full", 1, 8, "float16"), 2, 16, torch.device("cpu"))
        backend.copy_blocks(cache, cache, np.array([[0, 1]], np.int32))
        backend.compile(lambda weights, **_: used.append((devices.current, weights)))(7, extra=1)
    for index, start in ((0, 0), (1, 6), (0, 12)):
        copies = [index, (index, "copied"), (index, "copied")]
        assert used[start : start + 6] == [index, index, *copies, (index, 7)]


def test_that_decodes_run_without_graphs_is_said(monkeypatch, caplog):
    monkeypatch.setattr("octavo_torch.gpu.Staging", lambda _device: None)
    monkeypatch.setattr(GpuBackend, "torch_kind", "cpu")
    monkeypatch.setattr(GpuBackend, "make_capture", lambda _: StandInCapture())
    monkeypatch.setattr(GpuBackend, "make_ops", lambda _: TorchOps())
    assert not GpuBackend("cpu", 0, GpuOptions()).options.graphs
    assert "Decodes run without graphs: Triton is not installed" in caplog.text
    caplog.clear()
    monkeypatch.setattr(GpuBackend, "make_ops", lambda _: ArrayOps())
    backend = GpuBackend("cpu", 0, GpuOptions())
    assert caplog.text == ""
    backend.leave_graphs()
    assert "without graphs: the attention that was asked for is not recorded" in caplog.text
    caplog.clear()
    GpuBackend("cpu", 0, GpuOptions(graphs=False)).leave_graphs()
    assert caplog.text == ""
