"""Reads GGUF's strings, numbers and arrays from a mapped file, never past its end."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from octavo.errors import ModelLoadError
from octavo.loading.mapped_file import MappedFile

__all__ = ["Reader"]

_STRING, _ARRAY, _BOOL = 8, 9, 7
_NUMBER_FORMATS = "0=<u1 1=<i1 2=<u2 3=<i2 4=<u4 5=<i4 6=<f4 7=<u1 10=<u8 11=<i8 12=<f8"
_NUMBER_DTYPES = {
    int(type_id): np.dtype(form)
    for type_id, form in (entry.split("=") for entry in _NUMBER_FORMATS.split())
}
_MIN_ARRAY_BYTES = 4 + 8  # element type and count
_MAX_ARRAY_DEPTH = 4
_MAX_NAME_BYTES = (1 << 16) - 1

_UNPACK_U32 = struct.Struct("<I").unpack_from
_UNPACK_U64 = struct.Struct("<Q").unpack_from


class Reader:
    """A position in a file; every read names the field it is for, so that errors can."""

    def __init__(self, file: MappedFile) -> None:
        self._path = file.path
        self._buffer = file.buffer
        self._bytes = file.view
        self.size_bytes = file.size_bytes
        self.position = 0

    def error(self, message: str) -> ModelLoadError:
        """An error about this file, to be raised by the caller."""
        return ModelLoadError(f"{self._path}: {message}")

    def read_bytes(self, num_bytes: int, field: str) -> bytes:
        """The next bytes as they are."""
        start = self._advance(num_bytes, field)
        return self._buffer[start : start + num_bytes]

    def read_u32(self, field: str) -> int:
        """An unsigned 32-bit number."""
        value: int = _UNPACK_U32(self._buffer, self._advance(4, field))[0]
        return value

    def read_u64(self, field: str) -> int:
        """An unsigned 64-bit number."""
        value: int = _UNPACK_U64(self._buffer, self._advance(8, field))[0]
        return value

    def read_count(self, field: str, min_item_bytes: int) -> int:
        """A count of items to follow, refused if they could not fit in what is left of the file."""
        count = self.read_u64(field)
        left_bytes = self.size_bytes - self.position
        if count * min_item_bytes > left_bytes:
            raise self.error(
                f"{field} is {count}, which needs at least {count * min_item_bytes} bytes, but "
                f"{left_bytes} are left. The file is truncated or corrupt; download it again"
            )
        return count

    def read_name(self, field: str) -> str:
        """A key or a tensor's name: a string short enough to appear in an error."""
        name = self.read_string(field)
        if len(name) > _MAX_NAME_BYTES:
            raise self.error(f"{field} is {len(name)} characters long; at most {_MAX_NAME_BYTES}")
        return name

    def read_string(self, field: str) -> str:
        """A single string of any length."""
        length = self.read_count(f"the length of {field}", 1)
        raw = self.read_bytes(length, field)
        try:
            return str(raw, "utf-8")
        except UnicodeDecodeError as error:
            raise self.error(f"{field} is not UTF-8 ({error})") from error

    def read_value(self, key: str) -> Any:
        """A key's type and value, as GGUFMetadata describes them."""
        field = f"the value of {key!r}"
        return self._read_typed(self.read_u32(f"the type of {key!r}"), field, depth=0)

    def _advance(self, num_bytes: int, field: str) -> int:
        start = self.position
        if num_bytes > self.size_bytes - start:
            raise self.error(
                f"the file ends at byte {self.size_bytes}, within {field}. "
                "It is truncated or corrupt; download it again"
            )
        self.position = start + num_bytes
        return start

    def _read_typed(self, type_id: int, field: str, depth: int) -> Any:
        if type_id == _STRING:
            return self.read_string(field)
        if type_id == _ARRAY:
            return self._read_array(field, depth)
        number = self._read_numbers(type_id, 1, field)[0].item()
        return bool(number) if type_id == _BOOL else number

    def _read_array(self, field: str, depth: int) -> Any:
        if depth == _MAX_ARRAY_DEPTH:
            raise self.error(f"{field} nests arrays more than {_MAX_ARRAY_DEPTH} deep")
        type_id = self.read_u32(f"the element type of {field}")
        if type_id == _STRING:
            return self._read_strings(field)
        if type_id == _ARRAY:
            count = self.read_count(f"the length of {field}", _MIN_ARRAY_BYTES)
            return [self._read_array(field, depth + 1) for _ in range(count)]
        itemsize = self._number_dtype(type_id, field).itemsize
        count = self.read_count(f"the length of {field}", itemsize)
        numbers = self._read_numbers(type_id, count, field)
        return numbers.astype(np.bool_) if type_id == _BOOL else numbers

    def _read_numbers(self, type_id: int, count: int, field: str) -> Any:
        """A native-endian copy, so that metadata does not depend on the mapping."""
        dtype = self._number_dtype(type_id, field)
        start = self._advance(count * dtype.itemsize, field)
        raw = self._bytes(start, count * dtype.itemsize)
        return raw.view(dtype).astype(dtype.newbyteorder("="), copy=True)

    def _number_dtype(self, type_id: int, field: str) -> np.dtype[Any]:
        if type_id not in _NUMBER_DTYPES:
            raise self.error(f"{field} is of the unknown type number {type_id}")
        return _NUMBER_DTYPES[type_id]

    def _read_strings(self, field: str) -> list[str]:
        """An array of strings: a vocabulary has 10⁵ of them, so this loop keeps to local names."""
        count = self.read_count(f"the length of {field}", 8)
        buffer, position, size_bytes = self._buffer, self.position, self.size_bytes
        strings: list[str] = []
        append = strings.append
        try:
            for _ in range(count):
                start = position + 8
                position = start + _UNPACK_U64(buffer, position)[0]
                if position > size_bytes:
                    raise self.error(f"string {len(strings)} of {field} reaches beyond the file")
                append(str(buffer[start:position], "utf-8"))
        except struct.error as error:
            raise self.error(f"the file ends within {field}") from error
        except UnicodeDecodeError as error:
            raise self.error(f"string {len(strings)} of {field} is not UTF-8 ({error})") from error
        self.position = position
        return strings
