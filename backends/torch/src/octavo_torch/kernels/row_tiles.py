"""How rows of logits are shared between programs: tiles of tokens, some of them to a program."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton

from octavo_torch.kernels.target import target_of
from octavo_torch.kernels.tuning import launch_options

__all__ = ["RowTiles", "row_tiles"]


class RowTiles(NamedTuple):
    """A grid of (rows, splits) programs, each with ``split_tiles`` tiles of ``tile`` tokens."""

    tile: int
    tiles: int
    split_tiles: int
    splits: int
    digit_tile: int
    num_warps: int

    @property
    def split_size(self) -> int:
        """Tokens of a split."""
        return self.tile * self.split_tiles

    @property
    def splits_pad(self) -> int:
        """Splits of a row, rounded up to what a program can hold as a vector."""
        return max(2, 1 << (self.splits - 1).bit_length())


def row_tiles(logits: torch.Tensor) -> RowTiles:
    """So many splits that ``waves`` programs run on each unit, if the rows have as many tiles."""
    num_rows, vocab_size = logits.shape
    options = launch_options("row_tiles", logits.device, vocab=vocab_size)
    tile = options["tile"]
    tiles = triton.cdiv(vocab_size, tile)
    programs = options["waves"] * target_of(logits.device).num_units
    splits = min(tiles, max(1, programs // max(1, num_rows)))
    split_tiles = triton.cdiv(tiles, splits)
    return RowTiles(
        tile=tile,
        tiles=tiles,
        split_tiles=split_tiles,
        splits=triton.cdiv(tiles, split_tiles),
        digit_tile=options["digit_tile"],
        num_warps=options["num_warps"],
    )
