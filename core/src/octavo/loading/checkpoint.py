"""Opens a model, wherever it is and in whatever format: config, tokenizer source and tensors."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from octavo.errors import ModelLoadError, UsageError
from octavo.loading.gguf_generation import generation_config
from octavo.loading.json_files import check_model_config, read_json_object
from octavo.loading.model_files import find_gguf, missing_weights_error, refuse_other_files
from octavo.loading.safetensors import SafetensorsSource, find_safetensors
from octavo.loading.tensors import ShapelessSource, TensorSource
from octavo.loading.tokenizer_source import TokenizerSource

__all__ = ["Checkpoint", "LoadFormat", "open_checkpoint"]

LoadFormat: TypeAlias = Literal["auto", "safetensors", "gguf", "dummy"]

_SPECIAL_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class Checkpoint:
    """A model that is ready to be read; close ``tensors`` afterwards.

    ``config`` and ``generation_config`` have the form of Hugging Face's config.json and
    generation_config.json, also for GGUF.
    """

    name: str
    path: Path | None
    config: Mapping[str, Any]
    generation_config: Mapping[str, Any]
    tensors: TensorSource | ShapelessSource
    tokenizer: TokenizerSource


def open_checkpoint(
    model: str,
    *,
    load_format: LoadFormat = "auto",
    revision: str | None = None,
    tokenizer: str | None = None,
    download_dir: str | None = None,
    config_overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Checkpoint:
    """Open a GGUF file, a folder, or a name on the Hugging Face hub.

    ``model`` is a .gguf file (any part of a split one); a folder with config.json and safetensors,
    or with one .gguf model; or ``org/name`` on the hub, where ``org/name:FILE.gguf`` and
    ``org/name:Q4_K_M`` choose from a GGUF repository. ``tokenizer`` names another place of the same
    kinds for the tokenizer. ``config_overrides`` replaces entries of config.json.
    ``load_format="dummy"`` reads the configuration only; ``seed`` is for its random weights.

    Raises ModelLoadError for what is missing, malformed or hostile.
    """
    if load_format not in get_args(LoadFormat):
        raise _unknown_format(load_format)
    name, path = _locate(model, load_format, revision, download_dir)
    if path.is_dir():
        checkpoint = _open_folder(name, path, load_format, seed)
    else:
        checkpoint = _open_gguf(name, path, load_format, seed)
    if tokenizer is not None:
        source = _tokenizer_source(tokenizer, revision, download_dir)
        checkpoint = replace(checkpoint, tokenizer=source)
    config = {**checkpoint.config, **(config_overrides or {})}
    check_model_config(config, f"{model}, with config overrides" if config_overrides else path)
    return replace(checkpoint, config=config)


def _unknown_format(load_format: str) -> UsageError:
    formats = get_args(LoadFormat)
    close = difflib.get_close_matches(str(load_format), formats, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return UsageError(f"unknown load format {load_format!r}.{hint} Known: {', '.join(formats)}")


def _locate(
    model: str, load_format: LoadFormat, revision: str | None, download_dir: str | None
) -> tuple[str, Path]:
    """The display name, and a local folder or .gguf file."""
    local = Path(model).expanduser()
    if local.is_dir():
        return local.resolve().name, local
    if local.exists():
        refuse_other_files(local, load_format)
        return local.stem, local
    from octavo.loading import hub  # only a name on the hub needs it

    name = hub.parse_hub_name(model)
    is_file_name = model.endswith((".gguf", ".safetensors")) and ":" not in model
    if name is None or is_file_name:
        raise _not_found(local)
    if name.gguf is not None:
        return name.repo_id, hub.fetch_gguf(name, revision, download_dir)
    if load_format == "dummy":
        return name.repo_id, hub.fetch_settings(name, revision, download_dir)
    folder = hub.fetch_safetensors(name, revision, download_dir)
    if not find_safetensors(folder):
        raise hub.no_weights_error(name, revision)
    return name.repo_id, folder


def _not_found(local: Path) -> ModelLoadError:
    siblings = [path.name for path in local.parent.iterdir()] if local.parent.is_dir() else []
    close = difflib.get_close_matches(local.name, siblings, n=3)
    hint = f" Nearby: {', '.join(close)}." if close else ""
    return ModelLoadError(
        f"there is no file or folder {local}.{hint} Expected a .gguf file, a folder with "
        "config.json and safetensors, or a name on the Hugging Face hub such as "
        "HuggingFaceTB/SmolLM2-135M-Instruct"
    )


def _open_folder(name: str, folder: Path, load_format: LoadFormat, seed: int) -> Checkpoint:
    has_safetensors = load_format in ("auto", "safetensors") and bool(find_safetensors(folder))
    if load_format == "gguf" or (load_format == "auto" and not has_safetensors):
        gguf = find_gguf(folder)
        if gguf is not None:
            return _open_gguf(name, gguf, load_format, seed)
    if load_format != "dummy" and not has_safetensors:
        raise missing_weights_error(folder, load_format)
    config = _read_config(folder)
    return Checkpoint(
        name=name,
        path=folder,
        config=config,
        generation_config=_read_generation_config(folder, config),
        tensors=_dummy(config, seed) if load_format == "dummy" else SafetensorsSource(folder),
        tokenizer=TokenizerSource(directory=folder),
    )


def _read_config(folder: Path) -> Mapping[str, Any]:
    path = folder / "config.json"
    if not path.exists():
        if (folder / "adapter_config.json").exists():
            raise ModelLoadError(f"{folder}: an adapter (LoRA), not a model: it has no config.json")
        raise ModelLoadError(
            f"{folder}: config.json is missing; without it the model's architecture is unknown. "
            "Download it from where the weights came from"
        )
    config = read_json_object(path)
    check_model_config(config, path)
    return config


def _read_generation_config(folder: Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """generation_config.json, with the special tokens of config.json where it has none."""
    path = folder / "generation_config.json"
    generation = read_json_object(path) if path.exists() else {}
    text_config = config.get("text_config")
    for source in (config, text_config if isinstance(text_config, dict) else {}):
        for key in _SPECIAL_TOKEN_IDS:
            if generation.get(key) is None and source.get(key) is not None:
                generation[key] = source[key]
    return generation


def _open_gguf(name: str, path: Path, load_format: LoadFormat, seed: int) -> Checkpoint:
    from octavo.loading.gguf import GGUFSource  # safetensors models do without

    source = GGUFSource(path)
    check_model_config(source.config, path)
    return Checkpoint(
        name=name,
        path=path,
        config=source.config,
        generation_config=generation_config(path, source.metadata, source.config["vocab_size"]),
        tensors=_dummy(source.config, seed) if load_format == "dummy" else source,
        tokenizer=TokenizerSource(gguf=source.metadata),
    )


def _dummy(config: Mapping[str, Any], seed: int) -> ShapelessSource:
    from octavo.loading.dummy import DummySource  # real weights do without

    return DummySource(config, seed)


def _tokenizer_source(
    tokenizer: str, revision: str | None, download_dir: str | None
) -> TokenizerSource:
    local = Path(tokenizer).expanduser()
    if local.is_dir():
        return TokenizerSource(directory=local)
    if local.exists() and local.suffix == ".gguf":
        from octavo.loading.gguf_file import GGUFFile  # rarely needed

        return TokenizerSource(gguf=GGUFFile(local).metadata)
    from octavo.loading import hub  # rarely needed

    name = hub.parse_hub_name(tokenizer)
    if local.exists() or name is None or name.gguf is not None:
        raise ModelLoadError(
            f"cannot take a tokenizer from {tokenizer!r}. Expected a folder with tokenizer.json, a "
            ".gguf file, or a name on the Hugging Face hub"
        )
    return TokenizerSource(directory=hub.fetch_settings(name, revision, download_dir))
