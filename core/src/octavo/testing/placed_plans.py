"""Attention plans on the device, as the runner places them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from octavo.transfers import Transfers

if TYPE_CHECKING:
    from octavo.backend import Backend
    from octavo.batch import StepBatch

__all__ = ["placed_plans"]


def placed_plans(backend: Backend, batch: StepBatch, block_size: int) -> tuple[Any, ...]:
    """``backend.plan``'s, one for each KV group; host arrays in them are put, as ``put_all`` asks.

    A backend without ``put_all`` has placed them itself.
    """
    plans = tuple(backend.plan(batch, block_size))
    transfers = Transfers(backend)
    return transfers.put(*plans) if transfers.takes_plans else plans
