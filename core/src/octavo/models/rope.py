"""Rotary embedding, resolved at load: from a config to a RopeSpec, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from octavo.errors import ModelLoadError
from octavo.models.rope_kinds import ROPE_KINDS
from octavo.models.rope_parameters import RopeParameters
from octavo.ops.protocol import RopeSpec

__all__ = ["context_len", "prefix_salt", "resolve_rope"]


def resolve_rope(parameters: Mapping[str, Any], *, head_dim: int, max_len: int) -> RopeSpec:
    """The RopeSpec of ``parameters``; ``max_len`` is the config's max_position_embeddings.

    Raises ModelLoadError for an unknown type, a missing parameter or one out of range.
    """
    name = parameters.get("rope_type", parameters.get("type", "default"))
    kind = next((known for known in ROPE_KINDS if known == name), None)
    if kind is None:
        known = ", ".join(sorted(ROPE_KINDS))
        raise ModelLoadError(f"config.json: rope type {name!r} is unknown; known: {known}.")
    rope = RopeParameters(kind, parameters, head_dim, max_len)
    try:
        return ROPE_KINDS[kind](rope)
    except (ArithmeticError, ValueError) as error:
        raise ModelLoadError(
            f"config.json: rope parameters {dict(parameters)!r} give no usable frequencies "
            f"({error}); check rope_theta, factor and original_max_position_embeddings."
        ) from error


def prefix_salt(specs: Iterable[RopeSpec], prompt_len: int) -> int:
    """What of the prompt's length the cached keys depend on; 0 where nothing.

    ``dynamic`` computes a base from the length itself; ``longrope`` only asks whether it is long.
    """
    salt = 0
    for spec in specs:
        if prompt_len <= spec.original_max_len:
            continue
        if spec.kind == "dynamic":
            salt = max(salt, prompt_len)
        elif spec.kind == "longrope" and spec.long_inv_freq != spec.inv_freq:
            salt = max(salt, 1)
    return salt


def context_len(spec: RopeSpec, declared: int) -> int:
    """Tokens of context that ``spec`` is for, where max_position_embeddings is ``declared``.

    Linear and dynamic scaling stretch the declared length, yarn the trained one; for the others
    the declared length is the stretched one.
    """
    if spec.kind in ("linear", "dynamic"):
        return int(declared * spec.factor)
    if spec.kind == "yarn":
        return max(declared, int(spec.original_max_len * spec.factor))
    return declared
