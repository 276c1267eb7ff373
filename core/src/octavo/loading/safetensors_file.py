"""One safetensors file: its header, checked strictly, and views of its tensors.

Layout (little-endian): u64 header length, the header (a JSON object of name → dtype, shape and byte
range), the data. The ranges cover the data exactly, without gaps or overlaps.

NOTE: the header is parsed here and not by the ``safetensors`` library, because the library's NumPy
side copies every tensor it returns, knows no bfloat16 in older versions, and keeps the file's pages
in memory; all this needs is a dozen checks and ``numpy.ndarray.view``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octavo.errors import ModelLoadError
from octavo.loading.dtypes import numpy_dtype
from octavo.loading.mapped_file import MappedFile

__all__ = ["SafetensorsFile", "SafetensorsTensor"]

_MAX_HEADER_BYTES = 100_000_000  # as in the reference implementation
_MAX_DIMS = 16

_DTYPE_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}


@dataclass(frozen=True)
class SafetensorsTensor:
    """One entry of the header; ``start`` is a byte position in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    num_bytes: int


class SafetensorsFile:
    """A parsed safetensors file; raises ModelLoadError naming the file and the tensor."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = MappedFile(path)
        header, data_start = self._read_header()
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict):
            raise self._error(f"__metadata__ is {metadata!r}; expected an object of strings")
        self.tensors: Mapping[str, SafetensorsTensor] = {
            name: self._parse_entry(name, entry, data_start) for name, entry in header.items()
        }
        self._check_layout(data_start)

    def raw(self, tensor: SafetensorsTensor) -> NDArray[np.uint8]:
        """The tensor's bytes, a view."""
        return self._file.view(tensor.start, tensor.num_bytes)

    def release(self, tensor: SafetensorsTensor) -> None:
        """Hand the tensor's pages back; see MappedFile.release."""
        self._file.release(tensor.start, tensor.num_bytes)

    def close(self) -> None:
        """Let go of the file; arrays read as views of it stay valid."""
        self._file.close()

    def _error(self, message: str) -> ModelLoadError:
        return ModelLoadError(f"{self.path}: {message}")

    def _read_header(self) -> tuple[dict[str, Any], int]:
        size_bytes, buffer = self._file.size_bytes, self._file.buffer
        if buffer[:2] == b"PK" or buffer[:1] == b"\x80":
            raise self._error(
                "this is a pickle file with the wrong name, not safetensors. Loading a pickle can "
                "run any code in it, so Octavo does not; convert the model to safetensors"
            )
        if size_bytes < 8:
            raise self._error(f"{size_bytes} bytes are too short for a safetensors file")
        header_bytes = int.from_bytes(buffer[:8], "little")
        if header_bytes > min(_MAX_HEADER_BYTES, size_bytes - 8):
            raise self._error(
                f"the header claims {header_bytes} bytes; the file holds {size_bytes}, and at most "
                f"{_MAX_HEADER_BYTES} are allowed. It is truncated, corrupt or not safetensors"
            )
        try:
            header = json.loads(
                str(buffer[8 : 8 + header_bytes], "utf-8"), object_pairs_hook=_unique_keys
            )
        except (ValueError, RecursionError) as error:  # bad UTF-8, bad JSON, duplicate keys
            raise self._error(f"the header is not valid: {error}") from error
        if not isinstance(header, dict):
            raise self._error(f"the header is a JSON {type(header).__name__}; expected an object")
        return header, 8 + header_bytes

    def _parse_entry(self, name: str, entry: Any, data_start: int) -> SafetensorsTensor:
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise self._error(f"tensor {name!r}: expected exactly dtype, shape and data_offsets")
        dtype = self._parse_dtype(name, entry["dtype"])
        shape, offsets = entry["shape"], entry["data_offsets"]
        if not _are_counts(shape) or len(shape) > _MAX_DIMS:
            raise self._error(f"tensor {name!r}: the shape {shape!r} is not a list of sizes")
        if not _are_counts(offsets) or len(offsets) != 2:
            raise self._error(f"tensor {name!r}: data_offsets are {offsets!r}; expected two counts")
        begin, end = offsets
        if end > self._file.size_bytes - data_start:
            raise self._error(
                f"tensor {name!r} ends at byte {end} of the data, which has "
                f"{self._file.size_bytes - data_start}. The file is truncated; download it again"
            )
        # Python integers do not overflow: an absurd shape cannot match the range.
        expected_bytes = math.prod(shape) * numpy_dtype(dtype).itemsize
        if end - begin != expected_bytes:
            raise self._error(
                f"tensor {name!r} of shape {shape} and dtype {dtype} needs {expected_bytes} bytes, "
                f"but data_offsets {offsets} span {end - begin}"
            )
        return SafetensorsTensor(name, dtype, tuple(shape), data_start + begin, end - begin)

    def _parse_dtype(self, name: str, dtype: Any) -> str:
        if not isinstance(dtype, str) or dtype not in _DTYPE_NAMES:
            raise self._error(
                f"tensor {name!r} has the unknown dtype {dtype!r}. Known: {', '.join(_DTYPE_NAMES)}"
            )
        return _DTYPE_NAMES[dtype]

    def _check_layout(self, data_start: int) -> None:
        position, before = data_start, "the header"
        for tensor in sorted(self.tensors.values(), key=lambda t: (t.start, t.num_bytes)):
            if tensor.start != position:
                what = "overlaps" if tensor.start < position else "leaves a gap after"
                raise self._error(f"tensor {tensor.name!r} {what} {before}")
            position, before = tensor.start + tensor.num_bytes, repr(tensor.name)
        if position != self._file.size_bytes:
            raise self._error(
                f"{self._file.size_bytes - position} bytes after the last tensor belong to none"
            )


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique: dict[str, Any] = {}
    for key, value in pairs:
        if key in unique:
            raise ValueError(f"the key {key!r} appears twice")
        unique[key] = value
    return unique


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 1 << 63 for v in values)
