"""The hook by which a request may restrict its next token (structured output builds on it)."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["TokenMask"]


class TokenMask(Protocol):
    """State of one answer: which tokens may come next."""

    def allowed(self) -> NDArray[np.bool_] | None:
        """bool[vocab_size], True = allowed; None allows every token. Asked once a step."""
        ...

    def accept(self, token_id: int) -> None:
        """The token that was sampled."""
        ...

    def fork(self) -> Any:
        """An independent copy, for another answer to the same prompt."""
        ...
