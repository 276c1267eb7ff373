"""Tokenizers, chat templates, streaming detokenisation and stop strings."""

from octavo.tokenizer.base import ChatTemplates, Tokenizer
from octavo.tokenizer.chat_template import choose_template, encode_chat, render_chat
from octavo.tokenizer.detokenizer import IncrementalDetokenizer
from octavo.tokenizer.load import has_tokenizer, load_tokenizer
from octavo.tokenizer.stop import StopChecker

__all__ = [
    "ChatTemplates",
    "IncrementalDetokenizer",
    "StopChecker",
    "Tokenizer",
    "choose_template",
    "encode_chat",
    "has_tokenizer",
    "load_tokenizer",
    "render_chat",
]
