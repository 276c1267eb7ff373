"""A grammar as a TokenMask: the parser's state after the tokens of one answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from octavo.token_mask import TokenMask

__all__ = ["GrammarMask", "GrammarMasks"]


class GrammarMask(TokenMask):
    """One answer's place in a grammar. The matcher belongs to it alone."""

    def __init__(self, matcher: Any, masks: GrammarMasks, *, bars_end: bool) -> None:
        """With ``bars_end`` no end-of-sequence token is allowed, even where the grammar may end."""
        self.matcher = matcher
        self.bars_end = bars_end
        self._masks = masks

    def allowed(self) -> NDArray[np.bool_]:
        """bool[vocab_size]; nothing once it has failed."""
        return cast("NDArray[np.bool_]", self._masks.compute([self])[0])

    def accept(self, token_id: int) -> None:
        """Go on by one token. Raises RuntimeError for one that was not allowed."""
        if not self.matcher.consume_token(token_id):
            raise RuntimeError(
                f"token {token_id} was sampled, which the grammar does not allow here"
            )

    def fork(self) -> GrammarMask:
        """The same place, to go on from in another way."""
        return GrammarMask(self.matcher.deep_copy(), self._masks, bars_end=self.bars_end)

    @property
    def batch(self) -> GrammarMasks:
        """Computes the masks of many answers at once."""
        return self._masks

    @property
    def is_finished(self) -> bool:
        """Nothing can follow: the text is complete."""
        return bool(self.matcher.is_stopped() and not self.matcher.is_error())

    @property
    def may_end(self) -> bool:
        """The text so far is complete, whether or not more may follow."""
        return not self.matcher.is_error() and bool(self.matcher.is_accepting())

    @property
    def failure(self) -> str | None:
        """Why the grammar engine gave up: a limit, or a text that nothing can follow."""
        if not self.matcher.is_error():
            return None
        return readable_reason(self.matcher.get_error())


class GrammarMasks:
    """Masks of many answers, computed by one call on several threads without the interpreter lock.

    They depend on the answers' tokens only, so they can be computed on any thread as soon as these
    are accepted, and while the device is busy.
    """

    def __init__(
        self, llguidance: Any, tokenizer: Any, vocab_size: int, eos_token_ids: Sequence[int]
    ) -> None:
        self._fill = llguidance.numpy.fill_next_token_bitmask_par
        self._executor = llguidance.LLExecutor()
        self._num_words = (tokenizer.vocab_size + 31) // 32
        self._vocab_size = vocab_size
        self._eos_token_ids = [eos for eos in eos_token_ids if eos < vocab_size]

    def compute(self, masks: Sequence[TokenMask]) -> NDArray[np.bool_]:
        """bool[masks, vocab_size]; no mask may occur twice."""
        grammar_masks = cast("Sequence[GrammarMask]", masks)
        bits = np.empty((len(masks), self._num_words), np.int32)
        self._fill(self._executor, [(m.matcher, i) for i, m in enumerate(grammar_masks)], bits)
        table: NDArray[np.bool_] = np.unpackbits(
            bits.astype("<i4", copy=False).view(np.uint8),
            axis=1,
            count=self._vocab_size,
            bitorder="little",
        ).view(np.bool_)
        for i, mask in enumerate(grammar_masks):
            if mask.matcher.is_error():
                table[i] = False  # llguidance would have it end here, as if it were complete
            elif mask.bars_end:
                table[i, self._eos_token_ids] = False
        return table


def readable_reason(error: str) -> str:
    """The reason without llguidance's dump of the parser's state."""
    reason = error.partition("\n<")[0].strip()
    if reason in ("NoExtensionBias", "NoExtension"):
        return "no token of this vocabulary can come next"
    return reason
