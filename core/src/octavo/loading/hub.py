"""Fetches a model from the Hugging Face hub: only the files it needs, and never a pickle.

All caching is huggingface_hub's own, so HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE, HF_ENDPOINT and
HF_TOKEN do what they do everywhere. It is imported on first use: a local model must not pay for it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from octavo.errors import ModelLoadError
from octavo.loading.gguf_split import is_later_part
from octavo.loading.safetensors import INDEX_NAME, indexed_files

__all__ = [
    "HubName",
    "fetch_gguf",
    "fetch_safetensors",
    "fetch_settings",
    "no_weights_error",
    "parse_hub_name",
]

_SETTINGS_PATTERNS = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")
_SUBFOLDERS = "*/*"  # other formats of the same model, such as onnx/ and original/
_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_NAME_PATTERN = re.compile(rf"({_WORD}(?:/{_WORD})?)(?::([A-Za-z0-9][A-Za-z0-9._/-]*))?")
_SPLIT_NUMBER = re.compile(r"-[0-9]{5}-of-([0-9]{5})\.gguf$")


@dataclass(frozen=True)
class HubName:
    """A name on the hub; ``gguf`` chooses a file of a GGUF repository, by name or quantisation."""

    repo_id: str  # "HuggingFaceTB/SmolLM2-135M-Instruct"
    gguf: str | None = None  # "model-Q4_K_M.gguf" or "Q4_K_M"


def parse_hub_name(model: str) -> HubName | None:
    """``org/name``, ``org/name:file.gguf`` or ``org/name:Q4_K_M``; None for anything else."""
    match = _NAME_PATTERN.fullmatch(model)
    return None if match is None else HubName(match.group(1), match.group(2))


def fetch_settings(name: HubName, revision: str | None, download_dir: str | None) -> Path:
    """The snapshot folder with the configuration and tokenizer files, without weights."""
    return _snapshot(name, revision, download_dir, _SETTINGS_PATTERNS, ignore=(_SUBFOLDERS,))


def fetch_safetensors(name: HubName, revision: str | None, download_dir: str | None) -> Path:
    """The snapshot folder with configuration, tokenizer and safetensors files."""
    folder = fetch_settings(name, revision, download_dir)
    index = folder / INDEX_NAME
    # With an index only its files: some repositories hold the weights again under another name.
    patterns = indexed_files(index) if index.exists() else ["*.safetensors"]
    # The folder's name is the commit, so both calls see one state of the repository.
    return _snapshot(name, folder.name, download_dir, patterns, ignore=(_SUBFOLDERS,))


def fetch_gguf(name: HubName, revision: str | None, download_dir: str | None) -> Path:
    """The GGUF file that ``name.gguf`` chooses; of a split model the first part."""
    chosen = name.gguf or ""
    folder = _snapshot(name, revision, download_dir, _gguf_patterns(chosen), ignore=())
    files = sorted(path for pattern in _gguf_patterns(chosen) for path in folder.glob(pattern))
    firsts = [path for path in dict.fromkeys(files) if not is_later_part(path.name)]
    if len(firsts) == 1:
        return firsts[0]
    found = ", ".join(str(path.relative_to(folder)) for path in firsts) or "none"
    raise ModelLoadError(
        f"{name.repo_id}: {chosen!r} should choose one GGUF file; it matches {found}."
        f"{_listing(name, revision, '.gguf')} Choose with {name.repo_id}:FILE.gguf or "
        f"{name.repo_id}:Q4_K_M"
    )


def no_weights_error(name: HubName, revision: str | None) -> ModelLoadError:
    """The error for a repository that has settings, but no safetensors."""
    return ModelLoadError(
        f"{name.repo_id}: no safetensors files, here or on the hub."
        f"{_listing(name, revision, '.gguf')}{_listing(name, revision, '.bin')} A GGUF file is "
        f"chosen with {name.repo_id}:FILE.gguf or {name.repo_id}:Q4_K_M; pickles (.bin, .pt) are "
        "never loaded, because they can run any code: convert them to safetensors"
    )


def _gguf_patterns(chosen: str) -> list[str]:
    """Glob patterns of a file, or of a quantisation in the usual spellings; and its other parts."""
    if chosen.endswith(".gguf"):
        return [_SPLIT_NUMBER.sub(r"-[0-9]*-of-\1.gguf", chosen)]
    spellings = dict.fromkeys((chosen, chosen.upper(), chosen.lower()))
    endings = (".gguf", "-[0-9]*-of-[0-9]*.gguf")
    return [
        f"{folder}*[-._]{spelling}{ending}"
        for spelling in spellings
        for folder in ("", "*/")
        for ending in endings
    ]


def _snapshot(
    name: HubName,
    revision: str | None,
    download_dir: str | None,
    patterns: Sequence[str],
    ignore: Sequence[str],
) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            name.repo_id,
            revision=revision,
            cache_dir=download_dir,
            allow_patterns=list(patterns),
            ignore_patterns=list(ignore) or None,
        )
    except Exception as error:  # the library lets errors of several HTTP clients through
        raise _fetch_error(name, revision, download_dir, error) from error
    return Path(folder)


def _fetch_error(
    name: HubName, revision: str | None, download_dir: str | None, error: Exception
) -> ModelLoadError:
    from huggingface_hub import constants

    where = f"{name.repo_id}" + (f" at revision {revision}" if revision else "")
    if constants.HF_HUB_OFFLINE:
        tried = "Only the cache was looked at, because HF_HUB_OFFLINE is set. Unset it to download"
    else:
        tried = f"Tried {constants.ENDPOINT} and the cache"
    return ModelLoadError(
        f"cannot get {where} from the Hugging Face hub. {tried} "
        f"(cache: {download_dir or constants.HF_HUB_CACHE}). "
        f"{type(error).__name__}: {' '.join(str(error).split())} "
        f"Check the name for typing errors; for a private or gated model set HF_TOKEN; without "
        f"network, download it elsewhere (hf download {name.repo_id}) and pass the folder. "
        f"There is no local file or folder of this name in {os.fspath(Path.cwd())}"
    )


def _listing(name: HubName, revision: str | None, suffix: str) -> str:
    """A sentence on the repository's files of a kind; empty if there are none, or no network."""
    from huggingface_hub import HfApi

    try:
        files = HfApi().list_repo_files(name.repo_id, revision=revision)
    except Exception:  # noqa: BLE001 - this only adds to an error that is about to be raised
        return ""
    matching = [file for file in files if file.endswith(suffix)]
    return f" It has {', '.join(matching[:12])}." if matching else ""
