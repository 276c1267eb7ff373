"""Whether a kernel computes what its reference computes, for one case: on the CPU or a GPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any
from zlib import crc32

import torch

from octavo.testing.tolerances import Tolerance, tolerance_of
from octavo_torch.kernels.kernel import Case, Kernel

__all__ = ["difference"]

_CPU = torch.device("cpu")


def difference(kernel: Kernel, case: Case, device: torch.device = _CPU) -> str | None:
    """What is wrong with the kernel in this case, in words; its reference computes on the CPU."""
    given, untouched = _moved(_arguments(case), device), _arguments(case)
    results = tuple(result.cpu() for result in _as_tuple(kernel.launch(**given)))
    if written := _written(given, untouched):
        return f"writes to its arguments: {', '.join(written)}"
    expected = _as_tuple(kernel.reference(**untouched))
    if len(results) != len(expected):
        return f"returns {len(results)} tensors, its reference {len(expected)}"
    tolerance = tolerance_of(*case.dtypes)
    for number, (result, answer) in enumerate(zip(results, expected, strict=True)):
        if problem := _unequal(result, answer, tolerance):
            return f"result {number}: {problem}"
    return None


def _arguments(case: Case) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(crc32(case.label.encode()))
    return case.make(_CPU, generator)


def _moved(value: Any, device: torch.device) -> Any:
    """All tensors of a tree on the device; on their own device the tree itself."""
    if device == _CPU:
        return value
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: _moved(item, device) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_moved(item, device) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (field for field in dataclasses.fields(value) if field.init)
        moved = {field.name: _moved(getattr(value, field.name), device) for field in fields}
        return dataclasses.replace(value, **moved)
    return value


def _as_tuple(results: Any) -> tuple[torch.Tensor, ...]:
    return (results,) if isinstance(results, torch.Tensor) else tuple(results)


def _written(given: Any, untouched: Any) -> list[str]:
    pairs = zip(_tensors(given, ""), _tensors(untouched, ""), strict=True)
    return [path for (path, after), (_, before) in pairs if not _same_bits(after, before)]


def _tensors(value: Any, path: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield path.lstrip("."), value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _tensors(item, f"{path}.{name}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _tensors(item, f"{path}[{index}]")
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _tensors(getattr(value, field.name), f"{path}.{field.name}")


def _same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    left, right = (side.cpu().contiguous().flatten().view(torch.uint8) for side in (left, right))
    return torch.equal(left, right)


def _unequal(result: torch.Tensor, answer: torch.Tensor, tolerance: Tolerance) -> str | None:
    if (result.shape, result.dtype) != (answer.shape, answer.dtype):
        return (
            f"{result.dtype} {list(result.shape)}, its reference {answer.dtype} "
            f"{list(answer.shape)}"
        )
    exact = not answer.dtype.is_floating_point
    values, wanted = result.double(), answer.double()
    bound = (
        torch.zeros_like(wanted)
        if exact
        else (tolerance.absolute + tolerance.relative * wanted.abs().nan_to_num(posinf=0.0))
    )
    error = (values - wanted).abs()
    close = (values == wanted) | (values.isnan() & wanted.isnan()) | (error <= bound)
    if close.all():
        return None
    at = tuple(int(index) for index in (~close).nonzero()[0])
    return (
        f"{int((~close).sum())} of {close.numel()} elements differ, the first at {at}: "
        f"{values[at].item():.6g}, expected {wanted[at].item():.6g} within {bound[at].item():.2g}; "
        f"largest error {error.nan_to_num(nan=float('inf')).max().item():.3g}"
    )
