"""Dtypes by name, in torch and in NumPy."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import torch

__all__ = ["numpy_dtype", "torch_dtype"]


def torch_dtype(name: str) -> torch.dtype:
    """As torch calls it, which is what everybody calls it."""
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def numpy_dtype(name: str) -> np.dtype:
    """A dtype by name, those that only ml_dtypes brings included."""
    return np.dtype(getattr(ml_dtypes, name, name))
