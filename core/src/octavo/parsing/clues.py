"""What of a model tells its formats: its chat templates and its tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from octavo.tokenizer.base import Tokenizer

__all__ = ["ModelClues", "clues_of"]


@dataclass(frozen=True)
class ModelClues:
    """The source of the chat templates, joined, and the special tokens."""

    template: str
    special_tokens: frozenset[str] = frozenset()

    def mentions(self, text: str) -> bool:
        """Whether a text is in a template or is a special token."""
        return text in self.template or text in self.special_tokens


def clues_of(tokenizer: Tokenizer) -> ModelClues:
    """The clues that a checkpoint's tokenizer holds."""
    templates = tokenizer.chat_template or ""
    if isinstance(templates, Mapping):
        templates = "\n".join(templates.values())
    tokens = frozenset(tokenizer.id_to_token(token_id) for token_id in tokenizer.special_ids)
    return ModelClues(templates, tokens)
