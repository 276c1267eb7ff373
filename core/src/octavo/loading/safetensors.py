"""The tensors of a safetensors checkpoint: one file, or shards with an index."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octavo.errors import ModelLoadError
from octavo.loading.dtypes import convert, numpy_dtype, view_little_endian
from octavo.loading.json_files import read_json_object
from octavo.loading.safetensors_file import SafetensorsFile, SafetensorsTensor
from octavo.loading.tensors import QuantizedTensor

__all__ = ["SafetensorsSource", "find_safetensors", "indexed_files"]

INDEX_NAME = "model.safetensors.index.json"
_SHARD_NAME = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})\.safetensors")


class SafetensorsSource:
    """A TensorSource over the safetensors files of one folder."""

    def __init__(self, folder: Path) -> None:
        index = folder / INDEX_NAME
        weight_map = _read_weight_map(index) if index.exists() else {}
        self._files: list[SafetensorsFile] = []
        self._tensors: dict[str, tuple[SafetensorsFile, SafetensorsTensor]] = {}
        for path in find_safetensors(folder):
            self._add(SafetensorsFile(path))
        for name, file_name in weight_map.items():
            if name not in self._tensors or self._tensors[name][0].path.name != file_name:
                raise ModelLoadError(
                    f"{index}: says that tensor {name!r} is in {file_name}, but it is not there"
                )

    def names(self) -> Collection[str]:
        """All tensors, shard by shard."""
        return self._tensors.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """See TensorSource."""
        return self._tensors[name][1].shape

    def dtype(self, name: str) -> str:
        """See TensorSource."""
        return self._tensors[name][1].dtype

    def read(self, name: str, dtype: str, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """See TensorSource. Pages of the file are handed back after conversion."""
        file, tensor = self._tensors[name]
        stored = view_little_endian(file.raw(tensor), tensor.dtype).reshape(tensor.shape)
        if out is None and dtype == tensor.dtype:
            return stored
        target = np.empty(tensor.shape, numpy_dtype(dtype)) if out is None else out
        if target.shape != tensor.shape:
            raise ValueError(f"{name}: {target.shape=} differs from the tensor's {tensor.shape}")
        convert(stored, target)
        file.release(tensor)
        return target

    def quantized(self, name: str) -> QuantizedTensor | None:
        """None: what quantised safetensors hold is spread over several tensors of other names."""
        del name
        return None

    def release(self, name: str) -> None:
        """See TensorSource."""
        file, tensor = self._tensors[name]
        file.release(tensor)

    def close(self) -> None:
        """Let go of the files; arrays read as views of them stay valid."""
        for file in self._files:
            file.close()

    def _add(self, file: SafetensorsFile) -> None:
        self._files.append(file)
        for name, tensor in file.tensors.items():
            if name in self._tensors:
                other = self._tensors[name][0].path.name
                raise ModelLoadError(f"{file.path}: tensor {name!r} is also in {other}")
            self._tensors[name] = (file, tensor)


def find_safetensors(folder: Path) -> list[Path]:
    """The files that make up the model in a folder; an empty list if it has no safetensors.

    An index decides where there is one; then model.safetensors; then a complete set of shards, or
    the only file. (Some folders hold the same weights a second time, as consolidated.safetensors.)
    """
    index = folder / INDEX_NAME
    if index.exists():
        return _existing(index, folder, indexed_files(index))
    if (folder / "model.safetensors").exists():
        return [folder / "model.safetensors"]
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    shards = [match for match in map(_SHARD_NAME.fullmatch, names) if match]
    if shards:
        stem, _, count = shards[0].groups()
        parts = [f"{stem}-{i:05}-of-{count}.safetensors" for i in range(1, int(count) + 1)]
        return _existing(folder, folder, parts)
    if len(names) > 1:
        raise ModelLoadError(
            f"{folder}: several safetensors files and no {INDEX_NAME} to say which are the model: "
            f"{', '.join(names[:8])}. Keep only the model's own files there, or add the index"
        )
    return [folder / name for name in names]


def indexed_files(index: Path) -> list[str]:
    """The file names that an index mentions, sorted."""
    return sorted(set(_read_weight_map(index).values()))


def _read_weight_map(index: Path) -> Mapping[str, str]:
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelLoadError(f"{index}: weight_map is missing or not an object of file names")
    for name, file_name in weight_map.items():
        if not isinstance(file_name, str) or not _is_plain_name(file_name):
            raise ModelLoadError(
                f"{index}: tensor {name!r} is said to be in {file_name!r}; expected the name of a "
                ".safetensors file in the same folder"
            )
    return weight_map


def _is_plain_name(file_name: str) -> bool:
    """A safetensors file next to the index: a path could lead anywhere on the machine."""
    is_bare = PurePosixPath(file_name).name == file_name and "\\" not in file_name
    return is_bare and "\0" not in file_name and file_name.endswith(".safetensors")


def _existing(origin: Path, folder: Path, names: Iterable[str]) -> list[Path]:
    paths = [folder / name for name in names]
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise ModelLoadError(
            f"{origin}: {len(missing)} of {len(paths)} shards are missing: "
            f"{', '.join(missing[:5])}. Download them into {folder}"
        )
    return paths
