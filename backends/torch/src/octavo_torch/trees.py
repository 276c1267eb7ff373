"""The tensors of a step's arguments: dataclasses and tuples of them, and what is static beside."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch

__all__ = ["map_tensors", "shape_of", "tensors_of"]


def tensors_of(tree: Any) -> Iterator[torch.Tensor]:
    """Every tensor, in an order that depends on the tree's form alone."""
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, tuple):
        for branch in tree:
            yield from tensors_of(branch)
    elif dataclasses.is_dataclass(tree):
        for value in vars(tree).values():
            yield from tensors_of(value)


def map_tensors(tree: Any, apply: Callable[[torch.Tensor], Any]) -> Any:
    """The same tree with another value in the place of each tensor, in the order of tensors_of."""
    if isinstance(tree, torch.Tensor):
        return apply(tree)
    if isinstance(tree, tuple):
        return tuple(map_tensors(branch, apply) for branch in tree)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        changes = {name: map_tensors(value, apply) for name, value in vars(tree).items()}
        return dataclasses.replace(tree, **changes)
    return tree


def shape_of(tree: Any) -> Any:
    """What two trees must have in common to be served by one program; it can be hashed."""
    if isinstance(tree, torch.Tensor):
        return (tuple(tree.shape), tree.dtype)
    if isinstance(tree, tuple):
        return tuple(shape_of(branch) for branch in tree)
    if dataclasses.is_dataclass(tree):
        return (type(tree), *(shape_of(value) for value in vars(tree).values()))
    return tree
