"""The tensors of a GGUF model, in one file or split over several, under Hugging Face names."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octavo.errors import ModelLoadError
from octavo.loading.dtypes import convert, numpy_dtype, view_little_endian
from octavo.loading.gguf_config import check_architecture, model_config
from octavo.loading.gguf_file import GGUFFile, GGUFTensor
from octavo.loading.gguf_names import NAME_MAPS, ROPE_FACTOR_TENSORS, HFTensor
from octavo.loading.gguf_quants import QuantType
from octavo.loading.gguf_split import split_files
from octavo.loading.tensors import QuantizedTensor
from octavo.loading.tokenizer_source import GGUFMetadata

__all__ = ["GGUFSource"]

_WEIGHTS_PER_CHUNK = 1 << 16  # 256 KiB of float32, unpacked while still in the cache


@dataclass(frozen=True)
class _Placed:
    """A tensor, the file it lies in, and how to restore its Hugging Face form."""

    file: GGUFFile
    tensor: GGUFTensor
    hf: HFTensor

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape[::-1] if self.hf.transposed else self.tensor.shape


class GGUFSource:
    """A TensorSource over GGUF files that also carries the model's config and key-values."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = [GGUFFile(part) for part in split_files(path)]
        self.metadata: GGUFMetadata = self._files[0].metadata
        architecture = check_architecture(path, self.metadata)
        tensors = self._tensors_by_gguf_name()
        self.config: Mapping[str, Any] = model_config(
            path,
            self.metadata,
            {name: tensor.shape for name, (_, tensor) in tensors.items()},
            {
                name: self._rope_factors(*tensors[name])
                for name in sorted(ROPE_FACTOR_TENSORS)
                if name in tensors
            },
        )
        self._placed = dict(self._place(tensors, architecture))

    def names(self) -> Collection[str]:
        """All tensors, in the file's order."""
        return self._placed.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """See TensorSource."""
        return self._placed[name].shape

    def dtype(self, name: str) -> str:
        """See TensorSource."""
        return self._placed[name].tensor.quant_type.dtype

    def read(self, name: str, dtype: str, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """See TensorSource. The tensor's pages of the file are handed back afterwards."""
        placed = self._placed[name]
        rows = placed.file.rows(placed.tensor)
        quant_type = placed.tensor.quant_type
        order = self._row_order(placed)
        as_stored = order is None and not placed.hf.transposed and not placed.hf.offset
        if out is None and as_stored and dtype == quant_type.dtype:
            return view_little_endian(rows.reshape(-1), dtype).reshape(placed.shape)
        target = np.empty(placed.shape, numpy_dtype(dtype)) if out is None else out
        if target.shape != placed.shape:
            raise ValueError(f"{name}: {target.shape=} differs from the tensor's {placed.shape}")
        if placed.hf.offset or len(placed.shape) == 1:
            _unpack_vector(rows, quant_type, order, placed.hf.offset, target)
        else:
            _unpack_rows(rows, quant_type, order, target.T if placed.hf.transposed else target)
        self.release(name)
        return target

    def quantized(self, name: str) -> QuantizedTensor | None:
        """The packed rows; None for GPT-2's transposed weights, whose columns are packed."""
        placed = self._placed[name]
        quant_type = placed.tensor.quant_type
        if not quant_type.is_quantized or len(placed.shape) != 2 or placed.hf.transposed:
            return None
        rows = placed.file.rows(placed.tensor)
        order = self._row_order(placed)
        data = rows if order is None else rows[order]
        return QuantizedTensor(quant_type.dtype, (placed.shape[0], placed.shape[1]), data)

    def release(self, name: str) -> None:
        """See TensorSource."""
        placed = self._placed[name]
        placed.file.release(placed.tensor)

    def close(self) -> None:
        """Let go of the files; arrays read as views of them stay valid."""
        for file in self._files:
            file.close()

    def _tensors_by_gguf_name(self) -> dict[str, tuple[GGUFFile, GGUFTensor]]:
        tensors: dict[str, tuple[GGUFFile, GGUFTensor]] = {}
        for file in self._files:
            for name, tensor in file.tensors.items():
                if name in tensors:
                    raise ModelLoadError(
                        f"{file.path}: tensor {name!r} is also in {tensors[name][0].path.name}"
                    )
                tensors[name] = (file, tensor)
        expected = self.metadata.get("split.tensors.count", len(tensors))
        if type(expected) is not int or expected != len(tensors):
            raise ModelLoadError(
                f"{self._path}: split.tensors.count is {reprlib.repr(expected)}, but the "
                f"{len(self._files)} files hold {len(tensors)} tensors; a part is missing or "
                "belongs to another model"
            )
        return tensors

    def _place(
        self, tensors: Mapping[str, tuple[GGUFFile, GGUFTensor]], architecture: str
    ) -> Iterator[tuple[str, _Placed]]:
        name_map = NAME_MAPS[architecture]
        num_layers = self.config["n_layer" if architecture == "gpt2" else "num_hidden_layers"]
        for gguf_name, (file, tensor) in tensors.items():
            if gguf_name in ROPE_FACTOR_TENSORS:
                continue
            hf = name_map.find(gguf_name)
            if hf is None or (hf.layer is not None and hf.layer >= num_layers):
                raise ModelLoadError(
                    f"{file.path}: the tensor {gguf_name!r} has no place in a model of the "
                    f"architecture {architecture} with {num_layers} layers; leaving it out would "
                    "change the model"
                )
            if len(tensor.shape) > 2:
                raise ModelLoadError(
                    f"{file.path}: {gguf_name!r} has the shape {tensor.shape}; expected a matrix "
                    "or a vector"
                )
            placed = _Placed(file, tensor, hf)
            self._row_order(placed)  # raises where the rows do not divide into heads
            yield hf.name, placed

    def _rope_factors(self, file: GGUFFile, tensor: GGUFTensor) -> list[float]:
        if len(tensor.shape) != 1:
            raise ModelLoadError(
                f"{file.path}: {tensor.name!r} has the shape {tensor.shape}; expected a vector"
            )
        values = np.empty((1, *tensor.shape), np.float32)
        _unpack_rows(file.rows(tensor), tensor.quant_type, None, values)
        return [float(value) for value in values[0]]

    def _row_order(self, placed: _Placed) -> NDArray[np.intp] | None:
        """The stored row of each row, for query and key weights that the converter permuted.

        It turned rows (head, half, i) into (head, i, half), so that rotary pairs are neighbours.
        """
        if placed.hf.permuted_heads is None:
            return None
        kind = placed.hf.permuted_heads
        key = "num_attention_heads" if kind == "query" else "num_key_value_heads"
        num_heads, num_rows = self.config[key], placed.tensor.shape[0]
        if num_rows % (2 * num_heads):
            raise ModelLoadError(
                f"{placed.file.path}: {placed.tensor.name!r} has {num_rows} rows, which do not "
                f"divide into {num_heads} heads of even size"
            )
        stored = np.arange(num_rows).reshape(num_heads, -1, 2)
        return stored.transpose(0, 2, 1).reshape(-1)


def _unpack_rows(
    rows: NDArray[np.uint8],
    quant_type: QuantType,
    order: NDArray[np.intp] | None,
    target: NDArray[Any],
) -> None:
    """Unpack rows, in the given order, into ``target`` [rows, row length] of any dtype."""
    num_rows, row_length = target.shape
    rows_per_chunk = max(1, _WEIGHTS_PER_CHUNK // row_length)
    in_place = target.dtype == np.float32 and target.flags.c_contiguous
    scratch = np.empty(0 if in_place else (min(num_rows, rows_per_chunk), row_length), np.float32)
    for start in range(0, num_rows, rows_per_chunk):
        chunk = slice(start, min(start + rows_per_chunk, num_rows))
        packed = rows[chunk] if order is None else rows[order[chunk]]
        weights = target[chunk] if in_place else scratch[: len(packed)]
        blocks = packed.reshape(-1, quant_type.block_bytes)
        with np.errstate(over="ignore", invalid="ignore"):  # infinite scales in a broken file
            quant_type.unpack(blocks, weights.reshape(-1, quant_type.block_size))
        if not in_place:
            convert(weights, target[chunk])


def _unpack_vector(
    rows: NDArray[np.uint8],
    quant_type: QuantType,
    order: NDArray[np.intp] | None,
    offset: float,
    target: NDArray[Any],
) -> None:
    """Unpack a norm weight or a bias: small, so by way of a float32 copy."""
    weights = np.empty((len(rows), target.size // len(rows)), np.float32)
    _unpack_rows(rows, quant_type, None, weights)
    vector = weights.reshape(-1) if order is None else weights.reshape(-1)[order]
    if offset:
        vector = vector + np.float32(offset)
    convert(vector.reshape(target.shape), target)
