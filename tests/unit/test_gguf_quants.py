"""Every weight format, bit for bit against the gguf package."""

from __future__ import annotations

import gguf
import ml_dtypes
import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf_writing import (
    ALL_TYPES,
    FLOAT_TYPES,
    LLAMA_SETTINGS,
    llama_tensors,
    random_rows,
    reference_weights,
    write_gguf,
)

from octavo.loading.gguf import GGUFSource
from octavo.loading.gguf_quants import QUANT_TYPES

QUANTIZED_TYPES = [quant_type for quant_type in ALL_TYPES if quant_type not in FLOAT_TYPES]
NAME = "model.layers.0.mlp.down_proj.weight"  # rows are stored as they are
GGUF_NAME = "blk.0.ffn_down.weight"


def by_name(quant_type):
    return quant_type.name


@pytest.fixture
def open_with(tmp_path):
    """A source over a tiny Llama in which some tensors are replaced."""

    def open_source(**replaced):
        tensors = llama_tensors(GGMLQuantizationType.F16) | replaced
        return GGUFSource(write_gguf(tmp_path / "t.gguf", "llama", LLAMA_SETTINGS, tensors))

    return open_source


def same_bits(left, right):
    return left.shape == right.shape and (left.view(np.uint32) == right.view(np.uint32)).all()


def test_sizes_are_those_of_the_gguf_package():
    sizes = {GGMLQuantizationType(i): (q.block_size, q.block_bytes) for i, q in QUANT_TYPES.items()}
    assert sizes == {quant_type: gguf.GGML_QUANT_SIZES[quant_type] for quant_type in ALL_TYPES}
    assert all(
        GGMLQuantizationType(i).name == quant_type.name for i, quant_type in QUANT_TYPES.items()
    )


@pytest.mark.parametrize("quant_type", ALL_TYPES, ids=by_name)
@pytest.mark.parametrize("num_rows", [256, 700])  # 700 rows of 512: no whole number of chunks
def test_read_equals_the_gguf_package(open_with, quant_type, num_rows):
    rows = random_rows(quant_type, num_rows, 512)
    expected = reference_weights(rows, quant_type)
    source = open_with(**{GGUF_NAME: (rows, quant_type)})
    assert source.shape(NAME) == (num_rows, 512)
    assert same_bits(source.read(NAME, "float32"), expected)
    out = np.full((num_rows, 512), np.nan, np.float32)
    assert source.read(NAME, "float32", out) is out
    assert same_bits(out, expected)


@pytest.mark.parametrize("quant_type", ALL_TYPES, ids=by_name)
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_read_rounds_once_to_other_dtypes(open_with, quant_type, dtype):
    rows = random_rows(quant_type, 256, 512)
    with np.errstate(over="ignore"):
        expected = reference_weights(rows, quant_type).astype(dtype)
    source = open_with(**{GGUF_NAME: (rows, quant_type)})
    result = source.read(NAME, np.dtype(dtype).name)
    assert result.dtype == dtype
    assert (result.view(np.uint16) == expected.view(np.uint16)).all()


@pytest.mark.parametrize("quant_type", ALL_TYPES, ids=by_name)
def test_read_into_columns_of_a_larger_array(open_with, quant_type):
    rows = random_rows(quant_type, 256, 512)
    source = open_with(**{GGUF_NAME: (rows, quant_type)})
    wide = np.zeros((256, 600), np.float32)
    source.read(NAME, "float32", wide[:, 50:562])
    assert (wide[:, 50:562] == reference_weights(rows, quant_type)).all()
    assert not wide[:, :50].any()
    assert not wide[:, 562:].any()


@pytest.mark.parametrize("quant_type", QUANTIZED_TYPES, ids=by_name)
def test_packed_form_is_the_rows_of_the_file(open_with, quant_type):
    rows = random_rows(quant_type, 256, 512)
    source = open_with(**{GGUF_NAME: (rows, quant_type)})
    packed = source.quantized(NAME)
    assert packed.scheme == source.dtype(NAME) == f"gguf:{quant_type.name}"
    assert packed.shape == (256, 512)
    assert packed.data.dtype == np.uint8
    assert (packed.data == rows).all()


@pytest.mark.parametrize("quant_type", FLOAT_TYPES, ids=by_name)
def test_plain_floats_have_no_packed_form(open_with, quant_type):
    source = open_with(**{GGUF_NAME: (random_rows(quant_type, 256, 512), quant_type)})
    assert source.quantized(NAME) is None
    assert source.dtype(NAME) in ("float32", "float16", "bfloat16")
    assert source.read(NAME, source.dtype(NAME)).dtype.name == source.dtype(NAME)


def test_infinite_scales_are_read_as_they_are(open_with):
    rows = random_rows(GGMLQuantizationType.Q4_1, 256, 512)
    rows[:, :2] = np.array([np.inf], "<f2").view(np.uint8)
    rows[:, 2:4] = np.array([-np.inf], "<f2").view(np.uint8)
    source = open_with(**{GGUF_NAME: (rows, GGMLQuantizationType.Q4_1)})
    assert np.isnan(source.read(NAME, "float32")[:, :32]).all()


def test_small_alignment_is_read(tmp_path):
    tensors = llama_tensors(GGMLQuantizationType.F16) | {
        "blk.0.ffn_norm.weight": np.arange(256, dtype=np.float32)
    }
    path = write_gguf(tmp_path / "t.gguf", "llama", LLAMA_SETTINGS, tensors, alignment=8)
    source = GGUFSource(path)
    norm = source.read("model.layers.0.post_attention_layernorm.weight", "float32")
    assert norm.tolist() == list(range(256))
