"""A vocabulary small enough for brute force: one byte a token, some longer ones, some twice."""

from __future__ import annotations

from types import SimpleNamespace

from octavo.completion import Vocabulary

ALPHABET = "abcé0"
_LONGER = ["ab", "bc", "abc", "aa", "0é", "é", "ba", "b", "(a", "),", "", "a0b"]


def make_vocabulary(padding=0, eos=True, tokenizer=True, pieces=True):
    spelled = [bytes([byte]) for byte in range(256)] + [text.encode() for text in _LONGER]
    special = {len(spelled): b"<s>", len(spelled) + 1: b"</s>", len(spelled) + 2: b"<end>"}
    spelled += special.values()
    ends = frozenset(list(special)[1:]) if eos else frozenset()
    stub = SimpleNamespace(
        vocab_size=len(spelled),
        pieces=dict(enumerate(spelled)) if pieces else None,
        special_ids=frozenset(special),
        token_to_id={piece.decode(): i for i, piece in special.items()}.get,
    )
    return Vocabulary(len(spelled) + padding, stub if tokenizer else None, ends)
