"""The GGUF container: what the gguf package writes is read, what is broken is refused by name."""

from __future__ import annotations

import struct

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf_writing import LLAMA_SETTINGS, llama_tensors, write_gguf
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.errors import ModelLoadError
from octavo.loading import open_checkpoint
from octavo.loading.gguf import GGUFSource
from octavo.loading.gguf_file import GGUFFile

U8, I32, F32, STRING, ARRAY = 0, 5, 6, 8, 9


def string(text):
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw)) + raw


def key_value(key, type_id, payload):
    return string(key) + struct.pack("<I", type_id) + payload


def tensor_info(name="w", dims=(8,), type_id=0, offset=0):
    sizes = struct.pack(f"<{len(dims)}Q", *dims)
    return string(name) + struct.pack("<I", len(dims)) + sizes + struct.pack("<IQ", type_id, offset)


def container(key_values=(), infos=(), data=b"", *, version=3, counts=None, magic=b"GGUF"):
    num_tensors, num_keys = counts or (len(infos), len(key_values))
    head = magic + struct.pack("<IQQ", version, num_tensors, num_keys)
    head += b"".join(key_values) + b"".join(infos)
    return head + b"\0" * (-len(head) % 32) + data


@pytest.fixture
def read(tmp_path):
    def read_bytes(content):
        path = tmp_path / "model.gguf"
        path.write_bytes(content)
        return GGUFFile(path)

    return read_bytes


class TestValues:
    def test_every_kind_of_value_comes_back(self, tmp_path):
        values = {
            "uint8": 200,
            "int8": -100,
            "uint16": 60000,
            "int16": -30000,
            "uint32": 4_000_000_000,
            "int32": -2_000_000_000,
            "uint64": 2**63 + 5,
            "int64": -(2**62),
            "float32": 0.15625,
            "float64": 0.1,
            "bool": True,
            "string": "grüße 😀\n\0",
        }
        path = tmp_path / "model.gguf"
        write_gguf(path, "llama", [(kind, f"k.{kind}", v) for kind, v in values.items()], {})
        metadata = GGUFFile(path).metadata
        assert {kind: metadata[f"k.{kind}"] for kind in values} == values
        assert all(type(metadata[f"k.{kind}"]) is type(v) for kind, v in values.items())

    def test_arrays_come_back(self, tmp_path):
        arrays = {"ints": [1, -2, 3], "floats": [0.5, -1.5], "texts": ["a", "", "ß"]}
        path = tmp_path / "model.gguf"
        write_gguf(path, "llama", [("array", key, value) for key, value in arrays.items()], {})
        metadata = GGUFFile(path).metadata
        assert metadata["texts"] == arrays["texts"]
        assert metadata["ints"].tolist() == arrays["ints"]
        assert metadata["floats"].tolist() == arrays["floats"]
        assert metadata["ints"].dtype.isnative

    def test_arrays_of_arrays_come_back(self, read):
        inner = struct.pack("<IQ", U8, 2) + b"\1\2"
        nested = struct.pack("<IQ", ARRAY, 2) + inner + inner
        value = read(container([key_value("k", ARRAY, nested)])).metadata["k"]
        assert [array.tolist() for array in value] == [[1, 2], [1, 2]]

    @pytest.mark.parametrize("version", [2, 3])
    def test_versions_two_and_three_are_read(self, read, version):
        file = read(container(infos=[tensor_info()], data=b"\0" * 32, version=version))
        assert file.version == version
        assert file.tensors["w"].shape == (8,)

    def test_alignment_of_the_file_is_used(self, read):
        alignment = key_value("general.alignment", 4, struct.pack("<I", 256))
        head = container([alignment], [tensor_info()])
        head += b"\0" * (-len(head) % 256)
        data = np.arange(8, dtype="<f4").tobytes()
        file = read(head + data)
        assert file.rows(file.tensors["w"]).view("<f4").tolist() == [list(range(8))]


def string_array(*lengths_and_texts):
    body = b"".join(struct.pack("<Q", n) + text for n, text in lengths_and_texts)
    return struct.pack("<IQ", STRING, len(lengths_and_texts)) + body


ONE = [tensor_info()]
DATA = b"\0" * 32
NESTED = struct.pack("<IQ", ARRAY, 1)

HOSTILE = {
    "other magic": (container(magic=b"GGML"), "not a GGUF file"),
    "a pickle": (b"\x80\x04\x95" + b"\0" * 40, "not a GGUF file"),
    "version 1": (container(version=1), "GGUF version 1; versions 2 and 3"),
    "version 4": (container(version=4), "GGUF version 4"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "2^60 tensors": (container(counts=(2**60, 0)), f"the tensor count is {2**60}"),
    "2^64 - 1 tensors": (container(counts=(2**64 - 1, 0)), "the tensor count"),
    "2^60 key-values": (container(counts=(0, 2**60)), f"the key-value count is {2**60}"),
    "a key beyond the file": (
        container([struct.pack("<Q", 2**40) + b"x" * 40]),
        f"the length of key 0 is {2**40}",
    ),
    "a key of megabytes": (
        container([key_value("k" * 70_000, U8, b"\1")]),
        "key 0 is 70000 characters long",
    ),
    "a key that is not UTF-8": (container([key_value(b"\xff", U8, b"\1")]), "key 0 is not UTF-8"),
    "a duplicate key": (container([key_value("k", U8, b"\1")] * 2), "key 'k' appears twice"),
    "an unknown value type": (container([key_value("k", 99, b"\1")]), "unknown type number 99"),
    "an unknown element type": (
        container([key_value("k", ARRAY, struct.pack("<IQ", 77, 0))]),
        "unknown type number 77",
    ),
    "a string beyond the file": (
        container([key_value("k", STRING, struct.pack("<Q", 2**63))]),
        "the value of 'k'",
    ),
    "an array of 2^62 numbers": (
        container([key_value("k", ARRAY, struct.pack("<IQ", F32, 2**62))]),
        "the length of the value of 'k'",
    ),
    "an array of 2^61 strings": (
        container([key_value("k", ARRAY, struct.pack("<IQ", STRING, 2**61))]),
        "the length of the value of 'k'",
    ),
    "an element beyond the file": (
        container([key_value("k", ARRAY, string_array((1, b"a"), (2**60, b"b")))]),
        "string 1 of the value of 'k'",
    ),
    "an element that is not UTF-8": (
        container([key_value("k", ARRAY, string_array((1, b"\xc3")))]),
        "string 0 of the value of 'k' is not UTF-8",
    ),
    "arrays a hundred deep": (
        container([key_value("k", ARRAY, NESTED * 100)]),
        "nests arrays more than",
    ),
    "alignment 0": (
        container([key_value("general.alignment", 4, struct.pack("<I", 0))]),
        "general.alignment is 0",
    ),
    "alignment 24": (
        container([key_value("general.alignment", 4, struct.pack("<I", 24))]),
        "general.alignment is 24",
    ),
    "alignment 2^31": (
        container([key_value("general.alignment", 4, struct.pack("<I", 2**31))]),
        "general.alignment is 2147483648",
    ),
    "alignment a string": (
        container([key_value("general.alignment", STRING, string("32"))]),
        "general.alignment is '32'",
    ),
    "an offset outside the file": (
        container(infos=[tensor_info(offset=2**40)], data=DATA),
        "tensor 'w' of shape (8,) needs bytes",
    ),
    "an offset that wraps around": (
        container(infos=[tensor_info(offset=2**64 - 32)], data=DATA),
        "tensor 'w' of shape (8,) needs bytes",
    ),
    "a misaligned offset": (
        container(infos=[tensor_info(offset=4)], data=DATA * 2),
        "offset 4, not a multiple",
    ),
    "overlapping tensors": (
        container(infos=[tensor_info(dims=(16,)), tensor_info("v", offset=32)], data=DATA * 3),
        "'w' and 'v' overlap",
    ),
    "two tensors in one place": (
        container(infos=[tensor_info(), tensor_info("v")], data=DATA),
        "overlap",
    ),
    "a duplicate tensor": (
        container(infos=[tensor_info(), tensor_info(offset=32)], data=DATA * 2),
        "tensor 'w' appears twice",
    ),
    "dimensions whose product overflows": (
        container(infos=[tensor_info(dims=(2**32, 2**32, 2**32))], data=DATA),
        "needs bytes",
    ),
    "no dimensions": (container(infos=[tensor_info(dims=())], data=DATA), "has 0 dimensions"),
    "five dimensions": (
        container(infos=[tensor_info(dims=(1,) * 5)], data=DATA),
        "has 5 dimensions",
    ),
    "an empty dimension": (container(infos=[tensor_info(dims=(8, 0))]), "empty dimension"),
    "part of a block": (
        container(infos=[tensor_info(dims=(40,), type_id=3)], data=DATA),
        "not a multiple of the 32 that a Q4_1 block holds",
    ),
    "a format that is not supported": (
        container(infos=[tensor_info(dims=(256,), type_id=10)], data=DATA * 9),
        "type Q2_K, which is not supported. Known: F32, F16, BF16, Q4_0",
    ),
    "a format that does not exist": (
        container(infos=[tensor_info(type_id=1234)], data=DATA),
        "type number 1234",
    ),
    "missing data": (container(infos=ONE, data=DATA[:-1]), "truncated"),
    "an empty file": (b"", "empty"),
    "the magic alone": (b"GGUF", "the file ends at byte 4, within the version"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused(tmp_path, read, case):
    content, message = HOSTILE[case]
    with pytest.raises(ModelLoadError) as caught:
        read(content)
    assert message in str(caught.value)
    assert str(tmp_path / "model.gguf") in str(caught.value)


def test_every_byte_swapped_file_of_the_gguf_package_is_refused(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "big.gguf", "llama", endianess=gguf.GGUFEndian.BIG)
    writer.add_tensor("w", np.ones(8, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelLoadError, match="gguf-convert-endian"):
        GGUFFile(tmp_path / "big.gguf")


def first_two_rows(tensor):
    return (tensor[0][:2], tensor[1]) if isinstance(tensor, tuple) else tensor


TINY_TENSORS = {
    name: first_two_rows(t) for name, t in llama_tensors(GGMLQuantizationType.Q4_1).items()
}
TINY_SETTINGS = [
    ("array", "tokenizer.ggml.tokens", ["a", "b", "ß"]),
    ("array", "tokenizer.ggml.scores", [0.5, 1.5, 2.5]),
    *[item for item in LLAMA_SETTINGS if "head_count" not in item[1]],
    ("uint32", "llama.attention.head_count", 1),
]


@pytest.fixture(scope="module")
def tiny_content(tmp_path_factory):
    """A whole model of few bytes: two rows in every matrix."""
    path = tmp_path_factory.mktemp("tiny") / "model.gguf"
    content = write_gguf(path, "llama", TINY_SETTINGS, TINY_TENSORS).read_bytes()
    assert len(GGUFSource(path).names()) == 11
    return content


def test_truncation_anywhere_is_refused(tiny_content, tmp_path):
    path = tmp_path / "model.gguf"
    lengths = {*range(0, len(tiny_content), 7), len(tiny_content) - 1}
    for length in lengths:
        path.write_bytes(tiny_content[:length])
        with pytest.raises(ModelLoadError):
            GGUFSource(path)


@settings(max_examples=400)
@given(data=st.data())
def test_a_damaged_file_loads_or_is_refused_and_nothing_else(tiny_content, tmp_path_factory, data):
    content = bytearray(tiny_content)
    data_start = content.rfind(b"output_norm.weight") + 200
    position = st.one_of(st.integers(0, data_start), st.integers(0, len(content) - 1))
    values = st.one_of(
        st.binary(min_size=1, max_size=1),
        st.sampled_from([b"\xff" * 8, b"\0" * 8, struct.pack("<Q", 2**60), struct.pack("<I", 9)]),
    )
    for start, value in data.draw(st.lists(st.tuples(position, values), min_size=1, max_size=4)):
        content[start : start + len(value)] = value
    path = tmp_path_factory.mktemp("fuzz") / "model.gguf"
    path.write_bytes(content)
    try:
        checkpoint = open_checkpoint(str(path))
    except ModelLoadError:
        return
    for name in checkpoint.tensors.names():
        weights = checkpoint.tensors.read(name, "float32")
        assert weights.shape == checkpoint.tensors.shape(name)


class TestSplit:
    @pytest.fixture
    def parts(self, tmp_path):
        """A tiny Llama in two files, as llama-gguf-split writes them."""
        tensors = llama_tensors(GGMLQuantizationType.Q8_0)
        names = list(tensors)
        paths = []
        for part in range(2):
            path = tmp_path / f"tiny-0000{part + 1}-of-00002.gguf"
            split = [
                ("uint16", "split.no", part),
                ("uint16", "split.count", 2),
                ("int32", "split.tensors.count", len(names)),
            ]
            chosen = {name: tensors[name] for name in names[part::2]}
            model_settings = LLAMA_SETTINGS if part == 0 else ()
            paths.append(write_gguf(path, "llama", [*model_settings, *split], chosen))
        write_gguf(tmp_path / "whole.gguf", "llama", LLAMA_SETTINGS, tensors)
        return paths

    @pytest.mark.parametrize("given_part", [0, 1])
    def test_any_part_opens_the_whole(self, parts, given_part, tmp_path):
        source = GGUFSource(parts[given_part])
        whole = GGUFSource(tmp_path / "whole.gguf")
        assert set(source.names()) == set(whole.names())
        for name in whole.names():
            np.testing.assert_array_equal(source.read(name, "float32"), whole.read(name, "float32"))

    def test_a_folder_with_one_split_model_opens(self, parts, tmp_path):
        (tmp_path / "whole.gguf").unlink()
        checkpoint = open_checkpoint(str(tmp_path))
        assert checkpoint.path == parts[0]
        assert len(checkpoint.tensors.names()) == 11

    def test_a_missing_part_is_named(self, parts):
        parts[1].unlink()
        with pytest.raises(ModelLoadError, match=r"missing: tiny-00002-of-00002\.gguf"):
            GGUFSource(parts[0])

    def test_a_part_of_another_model_is_refused(self, parts):
        write_gguf(parts[1], "llama", [], {"blk.0.attn_k.weight": np.ones((2, 2))})
        with pytest.raises(ModelLoadError, match=r"split\.tensors\.count is 11.*hold 7|is also in"):
            GGUFSource(parts[0])
