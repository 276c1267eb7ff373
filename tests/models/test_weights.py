"""The weight loader: names, shapes, stacking, packing, what is left over, and how much it holds."""

from __future__ import annotations

import re
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from harness import TinyBackend
from safetensors.numpy import save_file

from octavo.errors import ModelLoadError
from octavo.loading.dummy import DummySource
from octavo.loading.hollow_weights import HollowWeightLoader
from octavo.loading.packing import Packing
from octavo.loading.safetensors import SafetensorsSource
from octavo.loading.tensors import QuantizedTensor
from octavo.loading.weight_bytes import weight_bytes
from octavo.loading.weights import CheckpointWeightLoader
from octavo.models.counting import tensor_shapes
from octavo.models.gpt2 import GPT2
from octavo.models.llama import Llama


class DictSource:
    """A TensorSource over a dict of arrays; ``packed`` are quantised on the side."""

    def __init__(self, tensors, packed=None):
        self.tensors = tensors
        self.packed = packed or {}
        self.reads = []

    def names(self):
        return self.tensors.keys()

    def shape(self, name):
        return self.tensors[name].shape

    def dtype(self, name):
        packed = self.packed.get(name)
        return self.tensors[name].dtype.name if packed is None else packed.scheme

    def read(self, name, dtype, out=None):
        self.reads.append(name)
        stored = self.tensors[name]
        if out is None:
            return stored if stored.dtype.name == dtype else stored.astype(dtype)
        out[...] = stored
        return out

    def quantized(self, name):
        return self.packed.get(name)

    def release(self, name):
        pass

    def close(self):
        pass


def random(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def make_loader(tensors, *, packed=None, quantization=(), dtype="float32", on_bytes=None):
    source = DictSource(tensors, packed)
    backend = TinyBackend(quantization=quantization)
    return CheckpointWeightLoader(source, backend, dtype, on_bytes=on_bytes), source


def test_several_names_are_stacked_in_order_with_their_biases():
    q, k = random(6, 4), random(2, 4)
    tensors = {"q.weight": q, "k.weight": k, "q.bias": random(6), "k.bias": random(2)}
    loader, _ = make_loader(tensors)
    linear = loader.linear("q", "k", in_features=4, out_features=[6, 2], bias=True)
    np.testing.assert_array_equal(linear.weight, np.vstack([q, k]))
    np.testing.assert_array_equal(
        linear.bias, np.concatenate([tensors["q.bias"], tensors["k.bias"]])
    )
    assert loader.unused() == []


def test_a_bias_that_is_not_asked_for_is_left_over():
    loader, _ = make_loader({"q.weight": random(6, 4), "q.bias": random(6)})
    assert loader.linear("q", in_features=4, out_features=[6]).bias is None
    assert loader.unused() == ["q.bias"]


@pytest.mark.parametrize("names", [("a",), ("a", "b")])
def test_transposed_storage(names):
    tensors = {f"{name}.weight": random(4, 6) for name in names}
    loader, _ = make_loader(tensors)
    linear = loader.linear(*names, in_features=4, out_features=[6] * len(names), transposed=True)
    expected = np.concatenate([tensors[f"{name}.weight"] for name in names], axis=1).T
    np.testing.assert_array_equal(linear.weight, expected)


def test_float32_is_not_copied():
    table, weight = random(8, 4), random(6, 4)
    loader, _ = make_loader({"e": table, "w.weight": weight})
    assert np.shares_memory(loader.embedding("e", (8, 4)), table)
    linear = loader.linear("w", in_features=4, out_features=[6])
    assert np.shares_memory(linear.weight, weight)


def test_a_tied_projection_shares_the_embedding():
    tensors = {"model.embed_tokens.weight": random(8, 4), "lm_head.weight": random(8, 4)}
    loader, _ = make_loader(tensors)
    embedding = loader.embedding("model.embed_tokens.weight", (8, 4))
    assert loader.unused() == ["lm_head.weight"]
    assert loader.tied_linear(embedding).weight is embedding
    assert loader.unused() == []


def test_the_offset_is_added_before_rounding():
    stored = np.array([2.0**-9, -0.25], ml_dtypes.bfloat16)
    loader, _ = make_loader({"norm": stored}, dtype="bfloat16")
    vector = loader.vector("norm", 2, offset=1.0)
    assert vector.dtype == ml_dtypes.bfloat16
    expected = (stored.astype(np.float32) + 1).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(vector, expected)
    np.testing.assert_array_equal(loader.vector("norm", 2), stored)


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("model.norm.weight", "model.norm.weight"),
        ("model.norm.weight", "norm.weight"),
        ("model.norm.weight", "language_model.model.norm.weight"),
        ("model.norm.weight", "model.language_model.norm.weight"),
        ("transformer.ln_f.weight", "ln_f.weight"),
        ("lm_head.weight", "language_model.lm_head.weight"),
    ],
)
def test_prefixes_of_base_models(asked, stored):
    loader, _ = make_loader({stored: random(4)})
    assert loader.has(asked)
    loader.vector(asked, 4)
    assert loader.unused() == []


def test_a_missing_tensor_is_named_with_the_nearest():
    loader, _ = make_loader({"model.layers.0.mlp.up_proj.weight": random(4, 4)})
    assert not loader.has("model.layers.1.mlp.up_proj.weight")
    with pytest.raises(ModelLoadError) as error:
        loader.linear("model.layers.1.mlp.up_proj", in_features=4, out_features=[4])
    assert "no tensor 'model.layers.1.mlp.up_proj.weight'" in str(error.value)
    assert "model.layers.0.mlp.up_proj.weight" in str(error.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda loader: loader.vector("w.weight", 6),
        lambda loader: loader.embedding("w.weight", (6, 5)),
        lambda loader: loader.linear("w", in_features=6, out_features=[4]),
        lambda loader: loader.linear("w", "w", in_features=4, out_features=[6, 7]),
        lambda loader: loader.linear("w", in_features=4, out_features=[6], transposed=True),
    ],
)
@pytest.mark.parametrize("quantization", [(), ("gguf:Q4_1",)])
def test_a_wrong_shape_is_refused(call, quantization):
    loader, _ = make_loader({"w.weight": random(6, 4)}, quantization=quantization)
    with pytest.raises(ModelLoadError, match=r"'w.weight' has shape \[6, 4\]") as error:
        call(loader)
    assert "config asks for [" in str(error.value)


def test_buffers_without_information_are_not_reported():
    loader, _ = make_loader(
        {
            "model.layers.0.self_attn.rotary_emb.inv_freq": random(4),
            "h.0.attn.bias": random(1, 1, 4, 4),
            "transformer.h.0.attn.masked_bias": random(1),
            "h.0.attn.c_attn.bias": random(4),
            "model.vision_tower.weight": random(4),
        }
    )
    assert loader.unused() == ["h.0.attn.c_attn.bias", "model.vision_tower.weight"]


class PackedBackend(TinyBackend):
    """Keeps what it is handed."""

    def put_linear(self, weight, bias, dtype):
        return weight if isinstance(weight, QuantizedTensor) else ("unpacked", weight)


def packed_loader(schemes, quantization=("gguf:Q4_1", "gguf:Q8_0")):
    """A loader over one packed tensor of four rows for each scheme, named a, b, …"""
    names = "abcd"[: len(schemes)]
    tensors = {f"{name}.weight": random(4, 32) for name in names}
    packed = {
        f"{name}.weight": QuantizedTensor(scheme, (4, 32), np.full((4, 20), index, np.uint8))
        for index, (name, scheme) in enumerate(zip(names, schemes, strict=True))
        if scheme is not None
    }
    backend = PackedBackend(quantization=quantization)
    return CheckpointWeightLoader(DictSource(tensors, packed), backend, "float32"), names


def test_packed_weights_are_passed_on_and_stacked():
    loader, names = packed_loader(["gguf:Q4_1"] * 3)
    weight = loader.linear(*names, in_features=32, out_features=[4] * 3)
    assert (weight.scheme, weight.shape) == ("gguf:Q4_1", (12, 32))
    np.testing.assert_array_equal(weight.data[:, 0], np.repeat([0, 1, 2], 4))
    assert loader.unused() == []


@pytest.mark.parametrize(
    ("schemes", "expected"),
    [
        (["gguf:Q4_1"] * 3, ["gguf:Q4_1"]),
        (["gguf:Q4_1", "gguf:Q4_1", "gguf:Q8_0"], ["gguf:Q4_1", "gguf:Q4_1", "gguf:Q8_0"]),
        (["gguf:Q4_1", "gguf:Q5_K", None], ["gguf:Q4_1", "unpacked", "unpacked"]),
        (["gguf:Q5_K", "gguf:Q5_K", None], ["unpacked"]),
    ],
    ids=["alike", "two schemes", "one that the backend takes", "none that it takes"],
)
def test_unlike_packings_stand_side_by_side(schemes, expected):
    loader, names = packed_loader(schemes)
    weights = loader.linears(*names, in_features=32, out_features=[4] * 3)
    kinds = [each.scheme if isinstance(each, QuantizedTensor) else each[0] for each in weights]
    assert kinds == expected
    assert loader.unused() == []


def test_values_get_int8_beside_int4():
    names = [f"model.layers.0.self_attn.{part}_proj" for part in "qkv"]
    source = DictSource({f"{name}.weight": random(4, 32) for name in names})
    schemes_taken = ("gguf:Q8_0", "gguf:Q4_1")
    for quantization, expected in {
        "int8": ["gguf:Q8_0"],
        "int4": ["gguf:Q4_1", "gguf:Q4_1", "gguf:Q8_0"],
    }.items():
        loader = CheckpointWeightLoader(
            source,
            PackedBackend(quantization=schemes_taken),
            "bfloat16",
            packing=Packing(schemes_taken, quantization),
        )
        weights = loader.linears(*names, in_features=32, out_features=[4] * 3)
        assert [weight.scheme for weight in weights] == expected


def test_int4_is_told_what_counts():
    """By the first name of what is stacked; an importance turned round changes the codes."""
    source = DictSource({f"{name}.weight": random(4, 32) for name in "ab"})
    packing = Packing(("gguf:Q4_1", "gguf:Q8_0"), "int4")

    def packed(importance):
        backend = PackedBackend(quantization=packing.schemes)
        loader = CheckpointWeightLoader(
            source, backend, "float32", packing=packing, importance=importance
        )
        return loader.linear("a", "b", in_features=32, out_features=[4, 4]).data

    rising = np.arange(1, 33, dtype=np.float32) ** 4
    blind = packed({"other.weight": rising})
    np.testing.assert_array_equal(blind, packed({}))
    assert not np.array_equal(packed({"a.weight": rising}), blind)
    assert not np.array_equal(packed({"a.weight": rising}), packed({"a.weight": rising[::-1]}))


@pytest.mark.parametrize(
    ("schemes", "quantization"),
    [
        (["gguf:Q4_1"], ("gguf:Q8_0",)),
        (["gguf:Q4_1", "gguf:Q8_0"], ("gguf:Q4_1", "gguf:Q8_0")),
        (["gguf:Q4_1", None], ("gguf:Q4_1",)),
    ],
    ids=["a scheme the backend lacks", "two schemes", "one of two packed"],
)
def test_other_packings_are_unpacked(schemes, quantization):
    loader, names = packed_loader(schemes, quantization)
    kind, weight = loader.linear(*names, in_features=32, out_features=[4] * len(schemes))
    assert loader.unpacked == Counter(scheme for scheme in schemes if scheme is not None)
    assert kind == "unpacked"
    np.testing.assert_array_equal(weight, np.vstack([random(4, 32)] * len(schemes)))


def test_a_tied_projection_is_packed_where_the_table_is():
    packed = {"e": QuantizedTensor("gguf:Q8_0", (8, 32), np.zeros((8, 34), np.uint8))}
    steps = []
    loader = CheckpointWeightLoader(
        DictSource({"e": random(8, 32)}, packed),
        PackedBackend(quantization=("gguf:Q8_0",)),
        "float32",
        on_bytes=steps.append,
    )
    embedding = loader.embedding("e", (8, 32))
    head = loader.tied_linear(embedding)
    assert (head.scheme, head.shape) == ("gguf:Q8_0", (8, 32))
    assert steps == [8 * 32 * 4]


@pytest.mark.parametrize(
    ("quantization", "schemes"),
    [("int8", ["gguf:Q8_0", "gguf:Q8_0"]), ("int4", ["gguf:Q4_1", "gguf:Q8_0"])],
)
def test_floats_are_quantised_and_the_head_is_int8(quantization, schemes):
    source = DictSource({"e": random(8, 32), "a.weight": random(4, 32), "t.weight": random(32, 4)})
    schemes_taken = ("gguf:Q8_0", "gguf:Q4_1")
    loader = CheckpointWeightLoader(
        source,
        PackedBackend(quantization=schemes_taken),
        "bfloat16",
        packing=Packing(schemes_taken, quantization),
    )
    embedding = loader.embedding("e", (8, 32))
    weight = loader.linear("a", in_features=32, out_features=[4])
    transposed = loader.linear("t", in_features=32, out_features=[4], transposed=True)
    head = loader.tied_linear(embedding)
    assert [weight.scheme, head.scheme] == schemes
    assert transposed.shape == (4, 32)
    assert embedding.dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_size_of_weights_is_foreseen(quantization, dtype):
    model = MODELS["llama-tied-biases"]()
    packing = Packing(("gguf:Q8_0", "gguf:Q4_1"), quantization)
    tensors = {key: random(*shape) for key, shape in tensor_shapes(model).items()}
    sizes = []

    class Weighing(TinyBackend):
        def put(self, array, dtype=None):
            array = array.astype(dtype or array.dtype)
            sizes.append(array.nbytes)
            return array

        def put_linear(self, weight, bias, dtype):
            del dtype
            if not any(weight is table for table in tables):
                data = weight.data if isinstance(weight, QuantizedTensor) else weight
                sizes.append(data.nbytes)
            sizes.append(0 if bias is None else bias.nbytes)

    loader = CheckpointWeightLoader(DictSource(tensors), Weighing(), dtype, packing=packing)
    tables = []
    read_table = loader.embedding
    loader.embedding = lambda *args: tables.append(read_table(*args)) or tables[-1]
    model.load(loader)
    assert weight_bytes(model, DictSource(tensors), packing, dtype) == sum(sizes)


SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
MODELS = {
    "llama": lambda: Llama(SIZES),
    "llama-tied-biases": lambda: Llama(
        {**SIZES, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}
    ),
    "gpt2": lambda: GPT2({"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_progress_adds_up_to_the_parameters(name, dtype):
    model = MODELS[name]()
    tensors = {key: random(*shape) for key, shape in tensor_shapes(model).items()}
    steps = []
    loader, source = make_loader(tensors, dtype=dtype, on_bytes=steps.append)
    model.load(loader)
    assert sum(steps) == model.num_parameters * (4 if dtype == "float32" else 2)
    assert sorted(source.reads) == sorted(tensors)
    assert loader.unused() == []


@pytest.mark.parametrize("name", MODELS)
def test_a_source_without_shapes_fills_the_same_model(name):
    model = MODELS[name]()
    steps = []
    loader = CheckpointWeightLoader(
        DummySource({}), TinyBackend(), "float32", on_bytes=steps.append
    )
    weights = model.load(loader)
    assert weights.embedding.shape == (64, 32)
    assert sum(steps) == model.num_parameters * 4
    assert loader.unused() == []


class ShapesOf(TinyBackend):
    """Notes what it is handed: shapes and dtypes, in the order of the calls."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def put(self, array, dtype=None):
        self.seen.append((array.shape, dtype or array.dtype.name))
        return array

    def put_linear(self, weight, bias, dtype):
        self.seen.append((weight.shape, None if bias is None else bias.shape, dtype))
        return weight


@pytest.mark.parametrize("name", MODELS)
def test_a_device_that_reads_no_weights_gets_their_shapes(name):
    model = MODELS[name]()
    tensors = {key: random(*shape) for key, shape in tensor_shapes(model).items()}
    real, hollow, steps = ShapesOf(), ShapesOf(), []
    model.load(CheckpointWeightLoader(DictSource(tensors), real, "float32"))
    source = DictSource(tensors)
    loader = HollowWeightLoader(source, hollow, "float32", on_bytes=steps.append)
    model.load(loader)

    assert hollow.seen == real.seen
    assert source.reads == []
    assert loader.unused() == []
    assert sum(steps) == model.num_parameters * 4


def test_hollow_weights_take_no_memory_and_are_checked():
    source = DictSource({"a.weight": random(6, 4)})
    loader = HollowWeightLoader(source, ShapesOf(), "float32")
    weight = loader.linear("a", in_features=4, out_features=[6])
    assert weight.strides == (0, 0)
    with pytest.raises(ModelLoadError, match="has shape"):
        loader.linear("a", in_features=4, out_features=[7])
    with pytest.raises(ModelLoadError, match="has no tensor"):
        loader.vector("b", 4)


class ForgetfulBackend(TinyBackend):
    """Like a device: nothing that it is handed stays on the host."""

    def put(self, array, dtype=None):
        return None

    def put_linear(self, weight, bias, dtype):
        return None


def test_the_host_holds_one_weight_at_a_time():
    """Half-precision storage converted on the way: the peak is the largest weight, stacked."""
    inner, hidden = 512, 256
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": 6}
    model = Llama({**SIZES, **sizes})
    tensors = {name: np.zeros(shape, np.float16) for name, shape in tensor_shapes(model).items()}
    loader = CheckpointWeightLoader(DictSource(tensors), ForgetfulBackend(), "float32")
    tracemalloc.start()
    model.load(loader)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    largest_bytes = 2 * inner * hidden * 4  # gate and up, float32
    assert peak_bytes < 1.25 * largest_bytes


class CopyingBackend(TinyBackend):
    """Has a layout of its own for linear layers."""

    def put_linear(self, weight, bias, dtype):
        return weight.copy()


def resident_bytes(path):
    """What this process has in memory of a file that it maps."""
    mappings = Path("/proc/self/smaps").read_text().split(f"{path}\n")[1:]
    return sum(int(re.search(r"Rss: *(\d+) kB", mapping)[1]) for mapping in mappings) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc/self/smaps")
def test_a_file_does_not_stay_in_memory_beside_the_weights_made_of_it(tmp_path):
    rows = np.ones((64, 16384), np.float32)
    tensors = {"a.weight": rows, "b.weight": rows, "table": rows}
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    source = SafetensorsSource(tmp_path)
    loader = CheckpointWeightLoader(source, CopyingBackend(), "float32")
    kept = source.read("a.weight", "float32")
    for name in ("a", "b"):
        loader.linear(name, in_features=16384, out_features=[64])
        assert resident_bytes(path) < rows.nbytes // 4
    table = loader.embedding("table", rows.shape)
    assert table.sum() == rows.size
    assert resident_bytes(path) >= rows.nbytes
    loader.tied_linear(table)
    assert resident_bytes(path) < rows.nbytes // 4
    assert kept.sum() == rows.size  # the pages come back
