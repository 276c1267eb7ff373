"""The GGUF container: header, key-values and the tensor table, checked before they are believed.

Layout (little-endian): magic "GGUF", u32 version, u64 tensor count, u64 key-value count, the
key-values, the tensor table, padding to the alignment, then the data that the table's offsets
point into. See docs/gguf.md in the ggml repository.

No count in the file is trusted: each is first compared with the bytes that are left, so a hostile
file cannot make the parser allocate more than a small multiple of its own size.
"""

from __future__ import annotations

import itertools
import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octavo.loading.gguf_quants import QUANT_TYPES, QuantType
from octavo.loading.gguf_values import Reader
from octavo.loading.mapped_file import MappedFile

__all__ = ["GGUFFile", "GGUFTensor"]

_SUPPORTED_VERSIONS = (2, 3)
_MAX_DIMS = 4
_DEFAULT_ALIGNMENT_BYTES = 32
_MAX_ALIGNMENT_BYTES = 1 << 20
_MIN_KEY_VALUE_BYTES = 8 + 4 + 1  # empty key, type, one byte
_MIN_TENSOR_INFO_BYTES = 8 + 4 + 4 + 8  # empty name, number of dimensions, type, offset

_UNSUPPORTED_TYPES = """
 9=Q8_1 10=Q2_K 11=Q3_K 15=Q8_K 16=IQ2_XXS 17=IQ2_XS 18=IQ3_XXS 19=IQ1_S 20=IQ4_NL 21=IQ3_S
22=IQ2_S 23=IQ4_XS 24=I8 25=I16 26=I32 27=I64 28=F64 29=IQ1_M 34=TQ1_0 35=TQ2_0 39=MXFP4 40=NVFP4
"""
_UNSUPPORTED_TYPE_NAMES = dict(entry.split("=") for entry in _UNSUPPORTED_TYPES.split())


@dataclass(frozen=True)
class GGUFTensor:
    """One row of the tensor table; ``shape`` is outermost first, unlike in the file."""

    name: str
    shape: tuple[int, ...]
    quant_type: QuantType
    start: int  # byte position in the file
    num_bytes: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one packed row along the innermost dimension."""
        blocks_per_row = self.shape[-1] // self.quant_type.block_size
        return blocks_per_row * self.quant_type.block_bytes


class GGUFFile:
    """A parsed GGUF file; raises ModelLoadError naming the file and the field it stumbled over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = MappedFile(path)
        reader = Reader(self._file)
        version = _read_version(reader)
        tensor_count = reader.read_count("the tensor count", _MIN_TENSOR_INFO_BYTES)
        key_value_count = reader.read_count("the key-value count", _MIN_KEY_VALUE_BYTES)
        self.version = version
        self.metadata: Mapping[str, Any] = _read_metadata(reader, key_value_count)
        infos = [_read_tensor_info(reader) for _ in range(tensor_count)]
        self.tensors: Mapping[str, GGUFTensor] = _place_tensors(reader, infos, self.metadata)

    def rows(self, tensor: GGUFTensor) -> NDArray[np.uint8]:
        """The packed rows: uint8[product of the outer dimensions, bytes per row], a view."""
        return self._file.view(tensor.start, tensor.num_bytes).reshape(-1, tensor.row_bytes)

    def release(self, tensor: GGUFTensor) -> None:
        """Hand the tensor's pages back; see MappedFile.release."""
        self._file.release(tensor.start, tensor.num_bytes)

    def close(self) -> None:
        """Let go of the file; arrays read as views of it stay valid."""
        self._file.close()


def _read_version(reader: Reader) -> int:
    magic = reader.read_bytes(4, "the magic")
    if magic != b"GGUF":
        raise reader.error(f"not a GGUF file: it starts with {magic!r} instead of b'GGUF'")
    version = reader.read_u32("the version")
    if version in _SUPPORTED_VERSIONS:
        return version
    if int.from_bytes(version.to_bytes(4, "little"), "big") in _SUPPORTED_VERSIONS:
        raise reader.error(
            "a big-endian GGUF file; Octavo reads little-endian ones on every machine. "
            "Convert it with gguf-convert-endian FILE little (pip install gguf)"
        )
    raise reader.error(
        f"GGUF version {version}; versions 2 and 3 are supported. Convert the model again "
        "with a current llama.cpp"
    )


def _read_metadata(reader: Reader, count: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for index in range(count):
        key = reader.read_name(f"key {index}")
        if key in metadata:
            raise reader.error(f"key {key!r} appears twice")
        metadata[key] = reader.read_value(key)
    return metadata


@dataclass(frozen=True)
class _TensorInfo:
    name: str
    shape: tuple[int, ...]
    quant_type: QuantType
    offset: int  # from the start of the data section
    num_bytes: int


def _read_tensor_info(reader: Reader) -> _TensorInfo:
    name = reader.read_name("a tensor's name")
    field = f"tensor {name!r}"
    num_dims = reader.read_u32(f"the number of dimensions of {field}")
    if not 1 <= num_dims <= _MAX_DIMS:
        raise reader.error(f"{field} has {num_dims} dimensions; 1 to {_MAX_DIMS} are possible")
    dims = [reader.read_u64(f"the shape of {field}") for _ in range(num_dims)]
    quant_type = _quant_type(reader, reader.read_u32(f"the type of {field}"), field)
    offset = reader.read_u64(f"the offset of {field}")
    if 0 in dims:
        raise reader.error(f"{field} has an empty dimension in {dims}")
    if dims[0] % quant_type.block_size:
        raise reader.error(
            f"{field} has rows of {dims[0]} weights, not a multiple of the "
            f"{quant_type.block_size} that a {quant_type.name} block holds"
        )
    # Python integers do not overflow: an absurd product is compared with the file size as it is.
    num_bytes = math.prod(dims) // quant_type.block_size * quant_type.block_bytes
    return _TensorInfo(name, tuple(reversed(dims)), quant_type, offset, num_bytes)


def _quant_type(reader: Reader, type_id: int, field: str) -> QuantType:
    if type_id in QUANT_TYPES:
        return QUANT_TYPES[type_id]
    name = _UNSUPPORTED_TYPE_NAMES.get(str(type_id), f"number {type_id}")
    known = ", ".join(quant_type.name for quant_type in QUANT_TYPES.values())
    raise reader.error(
        f"{field} is of type {name}, which is not supported. Known: {known}. "
        "Take another quantisation of the model"
    )


def _place_tensors(
    reader: Reader, infos: list[_TensorInfo], metadata: Mapping[str, Any]
) -> dict[str, GGUFTensor]:
    """Turn offsets into file positions: aligned, inside the file, and apart from each other."""
    alignment = _alignment_bytes(reader, metadata)
    data_start = -(-reader.position // alignment) * alignment
    tensors: dict[str, GGUFTensor] = {}
    for info in infos:
        start = data_start + info.offset
        if info.name in tensors:
            raise reader.error(f"tensor {info.name!r} appears twice")
        if info.offset % alignment:
            raise reader.error(
                f"tensor {info.name!r} lies at offset {info.offset}, not a multiple of the "
                f"alignment of {alignment} bytes"
            )
        if start + info.num_bytes > reader.size_bytes:
            raise reader.error(
                f"tensor {info.name!r} of shape {info.shape} needs bytes {start} to "
                f"{start + info.num_bytes}, but the file ends at {reader.size_bytes}. "
                "It is truncated or corrupt; download it again"
            )
        tensors[info.name] = GGUFTensor(
            info.name, info.shape, info.quant_type, start, info.num_bytes
        )
    _check_apart(reader, sorted(tensors.values(), key=lambda tensor: tensor.start))
    return tensors


def _alignment_bytes(reader: Reader, metadata: Mapping[str, Any]) -> int:
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT_BYTES)
    is_power_of_two = type(alignment) is int and alignment > 0 and alignment & (alignment - 1) == 0
    if not is_power_of_two or alignment > _MAX_ALIGNMENT_BYTES:
        raise reader.error(
            f"general.alignment is {reprlib.repr(alignment)}; expected a power of two up to "
            f"{_MAX_ALIGNMENT_BYTES}"
        )
    return int(alignment)


def _check_apart(reader: Reader, tensors: list[GGUFTensor]) -> None:
    for before, after in itertools.pairwise(tensors):
        if before.start + before.num_bytes > after.start:
            raise reader.error(f"tensors {before.name!r} and {after.name!r} overlap")
