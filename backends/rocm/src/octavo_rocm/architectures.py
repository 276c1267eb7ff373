"""The architectures of AMD's GPUs that are served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["ARCHITECTURES", "Architecture"]


@dataclass(frozen=True)
class Architecture:
    """Matrix instructions and eight-bit floats.

    gfx942 has float8 of another kind (fnuz, with a bias of one more and no negative zero), which is
    not what a checkpoint or Octavo's caches hold; so it is not claimed there.
    """

    warp_size: int
    has_float8: bool = False


ARCHITECTURES: Mapping[str, Architecture] = {
    "gfx90a": Architecture(64),
    "gfx942": Architecture(64),
    "gfx950": Architecture(64, has_float8=True),
    "gfx1100": Architecture(32),
    "gfx1101": Architecture(32),
    "gfx1151": Architecture(32),
    "gfx1200": Architecture(32, has_float8=True),
    "gfx1201": Architecture(32, has_float8=True),
}
