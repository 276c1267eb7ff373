"""Arrays as the portable ops see them: of any namespace, with everything the standard gives."""

from __future__ import annotations

from typing import Any, TypeAlias

__all__ = ["Array", "Namespace"]

Array: TypeAlias = Any
"""An array of the namespace at hand. Models see ``octavo.ops.protocol.Array``, which is less."""

Namespace: TypeAlias = Any
"""An array API module: ``array_api_compat.numpy``, ``array_api_compat.torch``, ``jax.numpy``, …"""
