"""Safetensors against the reference library, and files that are broken on purpose."""

from __future__ import annotations

import json
import pickle
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from octavo.errors import ModelLoadError
from octavo.loading.safetensors import SafetensorsSource
from octavo.loading.safetensors_file import SafetensorsFile

RNG = np.random.default_rng(3)

ARRAYS = {
    "f64": RNG.standard_normal((3, 5)),
    "f32": RNG.standard_normal((3, 5)).astype(np.float32),
    "f16": RNG.standard_normal((3, 5)).astype(np.float16),
    "i64": RNG.integers(-(2**62), 2**62, (7,)),
    "i32": RNG.integers(-(2**31), 2**31, (2, 1, 3), dtype=np.int32),
    "i16": RNG.integers(-(2**15), 2**15, (3,), dtype=np.int16),
    "i8": RNG.integers(-128, 128, (3,), dtype=np.int8),
    "u8": RNG.integers(0, 256, (3,), dtype=np.uint8),
    "bool": np.array([True, False, True]),
    "empty": np.empty((0, 4), np.float32),
    "scalar": np.array(2.5, np.float32),
}
EXTENDED = {
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
}


def write_raw(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_reads_what_the_reference_library_wrote(tmp_path):
    save_file(ARRAYS, tmp_path / "model.safetensors", metadata={"format": "pt"})
    source = SafetensorsSource(tmp_path)
    assert set(source.names()) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert source.dtype(name) == array.dtype.name
        assert source.shape(name) == array.shape
        result = source.read(name, array.dtype.name)
        assert result.dtype == array.dtype
        np.testing.assert_array_equal(result, array)


@pytest.mark.parametrize("code", EXTENDED)
def test_reads_extension_dtypes(tmp_path, code):
    array = RNG.standard_normal((3, 4)).astype(EXTENDED[code])
    header = {"w": entry(code, array.shape, (0, array.nbytes))}
    write_raw(tmp_path / "model.safetensors", header, array.tobytes())
    source = SafetensorsSource(tmp_path)
    np.testing.assert_array_equal(source.read("w", source.dtype("w")), array)
    expected = array.astype(np.float32)
    np.testing.assert_array_equal(source.read("w", "float32"), expected)
    out = np.zeros((3, 4), np.float32)
    assert source.read("w", "float32", out) is out
    np.testing.assert_array_equal(out, expected)


def test_bytes_are_little_endian_whatever_the_machine(tmp_path):
    data = bytes.fromhex("0000803f000000c0")  # 1.0 and -2.0
    write_raw(tmp_path / "model.safetensors", {"w": entry()}, data)
    assert SafetensorsSource(tmp_path).read("w", "float32").tolist() == [1.0, -2.0]


def test_unconverted_read_is_a_read_only_view_and_outlives_the_source(tmp_path):
    save_file({"w": np.arange(6, dtype=np.float32)}, tmp_path / "model.safetensors")
    source = SafetensorsSource(tmp_path)
    array = source.read("w", "float32")
    assert not array.flags.writeable
    assert array.base is not None
    source.close()
    assert array.tolist() == [0, 1, 2, 3, 4, 5]


def test_unaligned_data_is_read(tmp_path):
    header = json.dumps({"w": entry()}).encode()
    header += b" " * ((1 - len(header)) % 8)  # the data starts at an odd byte
    data = np.array([1.5, -3.0], "<f4").tobytes()
    write_raw(tmp_path / "model.safetensors", header, data)
    array = SafetensorsSource(tmp_path).read("w", "float32")
    assert array.flags.aligned
    assert array.tolist() == [1.5, -3.0]


def test_out_of_another_shape_is_refused(tmp_path):
    save_file({"w": np.ones((2, 3), np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(2, 3\)"):
        SafetensorsSource(tmp_path).read("w", "float32", np.empty((3, 2), np.float32))


def test_converts_into_a_slice(tmp_path):
    array = RNG.standard_normal((4, 6)).astype(np.float32)
    save_file({"w": array}, tmp_path / "model.safetensors")
    stacked = np.zeros((10, 6), ml_dtypes.bfloat16)
    SafetensorsSource(tmp_path).read("w", "bfloat16", stacked[3:7])
    np.testing.assert_array_equal(stacked[3:7], array.astype(ml_dtypes.bfloat16))
    assert not stacked[:3].any()
    assert not stacked[7:].any()


class TestShards:
    @staticmethod
    def write(folder, weight_map=None):
        first = {"a": np.ones(2, np.float32), "b": np.zeros(3, np.float32)}
        second = {"c": np.full(4, 2, np.float32)}
        save_file(first, folder / "model-00001-of-00002.safetensors")
        save_file(second, folder / "model-00002-of-00002.safetensors")
        if weight_map is None:
            weight_map = {
                "a": "model-00001-of-00002.safetensors",
                "b": "model-00001-of-00002.safetensors",
                "c": "model-00002-of-00002.safetensors",
            }
        index = {"metadata": {"total_size": 36}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    def test_all_shards_are_read(self, tmp_path):
        self.write(tmp_path)
        source = SafetensorsSource(tmp_path)
        assert sorted(source.names()) == ["a", "b", "c"]
        assert source.read("c", "float32").tolist() == [2, 2, 2, 2]

    def test_shards_without_an_index_are_read(self, tmp_path):
        self.write(tmp_path)
        (tmp_path / "model.safetensors.index.json").unlink()
        assert sorted(SafetensorsSource(tmp_path).names()) == ["a", "b", "c"]

    def test_files_outside_the_index_are_left_alone(self, tmp_path):
        self.write(tmp_path)
        save_file({"a": np.ones(9, np.float32)}, tmp_path / "consolidated.safetensors")
        assert SafetensorsSource(tmp_path).shape("a") == (2,)

    @pytest.mark.parametrize("with_index", [True, False])
    def test_a_missing_shard_is_named(self, tmp_path, with_index):
        self.write(tmp_path)
        (tmp_path / "model-00002-of-00002.safetensors").unlink()
        if not with_index:
            (tmp_path / "model.safetensors.index.json").unlink()
        with pytest.raises(ModelLoadError, match=r"missing: model-00002-of-00002\.safetensors"):
            SafetensorsSource(tmp_path)

    def test_a_tensor_in_two_shards_is_refused(self, tmp_path):
        self.write(tmp_path)
        save_file({"a": np.ones(2, np.float32)}, tmp_path / "model-00002-of-00002.safetensors")
        with pytest.raises(ModelLoadError, match=r"'a' is also in model-00001"):
            SafetensorsSource(tmp_path)

    @pytest.mark.parametrize(
        "weight_map",
        [
            {"a": "model-00002-of-00002.safetensors", "b": "model-00001-of-00002.safetensors"},
            {"a": "model-00001-of-00002.safetensors", "x": "model-00002-of-00002.safetensors"},
        ],
    )
    def test_a_tensor_that_is_not_where_the_index_says(self, tmp_path, weight_map):
        self.write(tmp_path, weight_map)
        with pytest.raises(ModelLoadError, match="but it is not there"):
            SafetensorsSource(tmp_path)

    @pytest.mark.parametrize(
        "target", ["../secret.safetensors", "/etc/x.safetensors", "a\\b.safetensors", "x.bin", 3]
    )
    def test_an_index_cannot_point_out_of_its_folder(self, tmp_path, target):
        self.write(tmp_path, {"a": target})
        with pytest.raises(ModelLoadError, match="in the same folder"):
            SafetensorsSource(tmp_path)

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}'])
    def test_a_broken_index_is_named(self, tmp_path, text):
        self.write(tmp_path)
        (tmp_path / "model.safetensors.index.json").write_text(text)
        with pytest.raises(ModelLoadError, match=r"index\.json"):
            SafetensorsSource(tmp_path)

    def test_unrelated_files_without_an_index_are_ambiguous(self, tmp_path):
        for name in ("one.safetensors", "two.safetensors"):
            save_file({"a": np.ones(2, np.float32)}, tmp_path / name)
        with pytest.raises(ModelLoadError, match=r"one\.safetensors, two\.safetensors"):
            SafetensorsSource(tmp_path)


EIGHT = b"\0" * 8
TWO_TENSORS = {"v": entry(shape=(2,), offsets=(0, 8)), "w": entry(shape=(1,), offsets=(4, 8))}

HOSTILE = {
    "overlap": (TWO_TENSORS, EIGHT, "'w' overlaps 'v'"),
    "gap": ({"w": entry(offsets=(4, 12))}, EIGHT + b"\0\0\0\0", "gap"),
    "trailing bytes": ({"w": entry()}, EIGHT + b"x", "1 bytes after the last tensor"),
    "no tensors, but data": ({}, EIGHT, "8 bytes after"),
    "beyond the file": ({"w": entry(shape=(4,), offsets=(0, 16))}, EIGHT, "truncated"),
    "reversed offsets": ({"w": entry(offsets=(8, 0))}, EIGHT, "span -8"),
    "negative offset": ({"w": entry(offsets=(-8, 0))}, EIGHT, "data_offsets"),
    "shape too small for range": ({"w": entry(shape=(1,))}, EIGHT, "needs 4 bytes"),
    "shape that overflows": ({"w": entry(shape=(2**62, 4))}, EIGHT, "span 8"),
    "sizes beyond 64 bits": ({"w": entry(shape=(2**70,))}, EIGHT, "shape"),
    "negative size": ({"w": entry(shape=(-1, -2))}, EIGHT, "shape"),
    "fractional size": ({"w": entry(shape=(2.0,))}, EIGHT, "shape"),
    "boolean size": ({"w": entry(shape=(True, 2))}, EIGHT, "shape"),
    "too many dimensions": ({"w": entry(shape=(1,) * 64 + (2,))}, EIGHT, "shape"),
    "shape not a list": ({"w": {**entry(), "shape": "ab"}}, EIGHT, "shape"),
    "unknown dtype": ({"w": entry("F128")}, EIGHT, "unknown dtype 'F128'. Known: F64, F32"),
    "dtype not a string": ({"w": entry([])}, EIGHT, "unknown dtype"),
    "missing field": ({"w": {"dtype": "F32", "shape": [2]}}, EIGHT, "exactly dtype"),
    "extra field": ({"w": {**entry(), "x": 1}}, EIGHT, "exactly dtype"),
    "entry not an object": ({"w": 5}, EIGHT, "exactly dtype"),
    "metadata not an object": ({"__metadata__": 5}, b"", "__metadata__"),
    "header a list": ([1], b"", "JSON list"),
    "duplicate names": (b'{"w": {}, "w": {}}', b"", "'w' appears twice"),
    "not JSON": (b"{nope", b"", "header is not valid"),
    "not UTF-8": (b'{"\xff": 1}', b"", "header is not valid"),
    "deeply nested": (b"[" * 100_000, b"", "header is not valid"),
    "number of many digits": (b'{"w": ' + b"9" * 5000 + b"}", b"", "header is not valid"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers_are_refused(tmp_path, case):
    header, data, message = HOSTILE[case]
    path = write_raw(tmp_path / "model.safetensors", header, data)
    with pytest.raises(ModelLoadError) as caught:
        SafetensorsFile(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("claimed", [3, 100_000_001, 2**63, 2**64 - 1])
def test_a_header_longer_than_the_file_or_the_limit_is_refused(tmp_path, claimed):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", claimed) + b"{}")
    with pytest.raises(ModelLoadError, match=f"claims {claimed} bytes"):
        SafetensorsFile(path)


@pytest.mark.parametrize("content", [b"", b"1234567"])
def test_a_file_too_short_for_a_header_is_refused(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelLoadError, match=r"empty|too short"):
        SafetensorsFile(path)


def test_every_truncation_is_refused(tmp_path):
    save_file({"w": np.ones((2, 3), np.float32)}, tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    path = tmp_path / "model.safetensors"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelLoadError):
            SafetensorsFile(path)


class _Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was loaded",))


@pytest.mark.parametrize("content", [pickle.dumps(_Bomb()), b"PK\x03\x04" + b"\0" * 40])
def test_a_pickle_with_the_wrong_name_is_refused(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelLoadError, match="pickle"):
        SafetensorsSource(tmp_path)


@settings(max_examples=150)
@given(data=st.data())
def test_a_damaged_file_loads_or_is_refused_and_nothing_else(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz")
    save_file({"w": np.ones((2, 3), np.float16), "v": np.ones(3)}, folder / "model.safetensors")
    content = bytearray((folder / "model.safetensors").read_bytes())
    changes = st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255))
    for position, value in data.draw(st.lists(changes, min_size=1, max_size=6)):
        content[position] = value
    (folder / "model.safetensors").write_bytes(content)
    try:
        source = SafetensorsSource(folder)
    except ModelLoadError:
        return
    for name in source.names():
        assert source.read(name, source.dtype(name)).shape == source.shape(name)
