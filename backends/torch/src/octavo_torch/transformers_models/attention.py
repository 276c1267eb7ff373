"""Octavo's paged attention in the place of transformers' own.

Each attention module of a loaded model carries its ``Place``: which cache is its own, its settings,
and the run that it is part of. So several models live in one process, and nothing is global.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from octavo.api import AttentionParams, BackendError

if TYPE_CHECKING:
    from octavo.api import Cache, Ops

__all__ = ["NAME", "Place", "Run", "register"]

Tensor: TypeAlias = torch.Tensor
NAME = "octavo_paged"
"""In transformers' table of attention functions. Under this name it has no mask function, so that
no mask is built."""


@dataclass
class Run:
    """What one forward pass works on; a model has one, and fills it for each step."""

    ops: Ops | None = None
    plans: tuple[Any, ...] = ()  # one for each layer
    caches: list[Cache] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """Where an attention module stands."""

    run: Run
    layer: int  # in the order of the calls
    params: AttentionParams
    head_dim: int  # of the cache: the larger of keys' and values'


def attend(
    module: torch.nn.Module,
    query: Tensor,  # [1, heads, tokens, head_dim]
    key: Tensor,  # [1, kv_heads, tokens, head_dim]
    value: Tensor,  # [1, kv_heads, tokens, value_dim]
    attention_mask: Tensor | None,  # noqa: ARG001 - transformers' signature; always None
    s_aux: Tensor | None = None,  # [heads]: sinks
    **_settings: Any,  # known since the model was surveyed
) -> tuple[Tensor, None]:
    """Attention of this step's tokens over their cached sequences, [1, tokens, heads, value_dim].

    Results of padded features, where keys and values differ in size, are cut off.
    """
    place: Place | None = getattr(module, "octavo_place", None)
    ops = None if place is None else place.run.ops
    if place is None or ops is None:
        raise BackendError(
            f"{type(module).__name__} asked for Octavo's attention outside of one of its steps."
        )
    run, layer = place.run, place.layer
    q, k, v = (_rows(heads, place.head_dim) for heads in (query, key, value))
    cache, plan = run.caches[layer], run.plans[layer]
    attended, run.caches[layer] = ops.attend(q, k, v, cache, plan, place.params, s_aux)
    return attended[None, ..., : value.shape[-1]], None


def _rows(heads: Tensor, head_dim: int) -> Tensor:
    """[1, heads, tokens, dim] → [tokens, heads, head_dim], contiguous, zeros after dim."""
    missing = head_dim - heads.shape[-1]
    rows = heads[0].transpose(0, 1)
    if missing:
        rows = torch.nn.functional.pad(rows, (0, missing))
    return rows.contiguous()


def register() -> None:
    """Make ``NAME`` known to transformers."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
