"""What a token is called where log-probabilities are listed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from octavo.tokenizer import Tokenizer

__all__ = ["TokenNames", "token_bytes"]


class TokenNames(dict[int, str]):
    r"""Token id → its text.

    A token that is no whole text, such as half a character, is ``bytes:\xe2\x82`` as OpenAI has
    it; an id that stands for nothing, or for nothing known, is ``token_id:7`` as vLLM has it.
    """

    def __init__(self, tokenizer: Tokenizer | None, *, as_ids: bool = False) -> None:
        """``as_ids``: every token by its id, so that none can be taken for another."""
        super().__init__()
        self._tokenizer = None if as_ids else tokenizer

    def __missing__(self, token_id: int) -> str:
        name = self[token_id] = self._name(token_id)
        return name

    def _name(self, token_id: int) -> str:
        piece = b"" if self._tokenizer is None else token_bytes(self._tokenizer, token_id)
        if not piece:
            return f"token_id:{token_id}"
        try:
            return piece.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def token_bytes(tokenizer: Tokenizer, token_id: int) -> bytes:
    """The bytes that a token stands for, its leading space included where that is known."""
    if tokenizer.pieces is not None:
        return tokenizer.pieces[token_id]
    return tokenizer.decode([token_id], skip_special_tokens=False).encode()
