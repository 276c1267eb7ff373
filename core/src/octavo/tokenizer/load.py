"""Choosing the tokenizer implementation for a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from octavo.errors import ModelLoadError, UsageError
from octavo.loading.tokenizer_source import TokenizerSource
from octavo.suggest import choices, did_you_mean
from octavo.tokenizer.base import Tokenizer
from octavo.tokenizer.folder import load_fast_tokenizer
from octavo.tokenizer.gguf_tokenizer import load_gguf_tokenizer
from octavo.tokenizer.slow import load_slow_tokenizer

__all__ = ["MODES", "has_tokenizer", "load_tokenizer"]

MODES = ("auto", "fast", "slow")


def load_tokenizer(source: TokenizerSource, *, mode: str = "auto") -> Tokenizer:
    """The tokenizer of a checkpoint.

    ``auto`` reads tokenizer.json or GGUF metadata and asks `transformers` only where there is
    neither; ``fast`` never asks it; ``slow`` insists on it.
    """
    if mode not in MODES:
        raise UsageError(
            f"Unknown tokenizer mode {mode!r}.{did_you_mean(mode, MODES)} "
            f"Choose one of: {choices(MODES)}."
        )
    if source.gguf is not None:
        if mode == "slow":
            raise UsageError("Tokenizer mode 'slow' needs a folder; a GGUF vocabulary has none.")
        return load_gguf_tokenizer(source.gguf)
    if source.directory is None:
        raise ModelLoadError(
            "The checkpoint brings no tokenizer. Name a folder with one with --tokenizer, or pass "
            "token ids."
        )
    return _folder_loader(source.directory, mode)(source.directory)


def has_tokenizer(source: TokenizerSource) -> bool:
    """Whether there is anything to load: a model without a tokenizer still takes token ids."""
    if source.directory is None:
        return source.gguf is not None
    return (source.directory / "tokenizer.json").is_file() or _has_tokenizer_files(source.directory)


def _folder_loader(folder: Path, mode: str) -> Callable[[Path], Tokenizer]:
    if mode == "slow":
        return load_slow_tokenizer
    if (folder / "tokenizer.json").is_file():
        return load_fast_tokenizer
    if mode == "fast":
        raise ModelLoadError(
            f"{folder} has no tokenizer.json, which tokenizer mode 'fast' needs. "
            "Use mode 'auto' to let transformers convert the tokenizer."
        )
    if not _has_tokenizer_files(folder):
        raise ModelLoadError(
            f"{folder} holds no tokenizer: expected tokenizer.json, or files that transformers "
            "reads (tokenizer.model, vocab.json, vocab.txt, …). Name another folder with "
            "--tokenizer, or pass token ids."
        )
    return load_slow_tokenizer


def _has_tokenizer_files(folder: Path) -> bool:
    patterns = ("tokenizer_config.json", "*.model", "vocab.*", "*.tiktoken", "tekken.json")
    return any(any(folder.glob(pattern)) for pattern in patterns)
