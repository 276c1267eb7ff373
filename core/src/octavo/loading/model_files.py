"""Which files of a folder are the model, and why others cannot be loaded."""

from __future__ import annotations

from pathlib import Path

from octavo.errors import ModelLoadError
from octavo.loading.gguf_split import is_later_part

__all__ = ["find_gguf", "missing_weights_error", "refuse_other_files"]

_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")

_PICKLE_ADVICE = (
    "A pickle can run any code when it is loaded, so Octavo never loads one. Convert it on a "
    "machine you can afford to lose: transformers.AutoModelForCausalLM.from_pretrained(FOLDER)"
    ".save_pretrained(NEW_FOLDER), or take a repository that has safetensors"
)


def refuse_other_files(path: Path, load_format: str) -> None:
    """Accept a .gguf file; say what to do about any other."""
    if path.suffix == ".gguf" and load_format != "safetensors":
        return
    if path.suffix in _PICKLE_SUFFIXES:
        raise ModelLoadError(f"{path}: a PyTorch pickle. {_PICKLE_ADVICE}")
    if path.suffix == ".safetensors":
        raise ModelLoadError(
            f"{path}: weights alone; the architecture stands in config.json beside them. "
            f"Pass the folder: {path.parent}"
        )
    if path.suffix == ".gguf":
        raise ModelLoadError(f"{path}: a GGUF file, but the load format is {load_format}")
    raise ModelLoadError(
        f"{path}: not a known kind of model file. Expected a .gguf file or a folder with "
        "config.json and safetensors"
    )


def find_gguf(folder: Path) -> Path | None:
    """The one GGUF model of a folder (of a split one the first part); None if there is none."""
    models = sorted(
        path
        for path in folder.glob("*.gguf")
        if not is_later_part(path.name) and not path.name.startswith("mmproj")
    )
    if len(models) > 1:
        raise ModelLoadError(
            f"{folder}: several GGUF files: {', '.join(path.name for path in models[:12])}. "
            "Pass the one you want instead of the folder"
        )
    return models[0] if models else None


def missing_weights_error(folder: Path, load_format: str) -> ModelLoadError:
    """Why there is nothing to load in this folder, and the way out."""
    names = sorted(path.name for path in folder.iterdir())
    pickles = [name for name in names if name.endswith(_PICKLE_SUFFIXES)]
    if pickles:
        return ModelLoadError(
            f"{folder}: the weights are PyTorch pickles only ({', '.join(pickles[:4])}). "
            f"{_PICKLE_ADVICE}"
        )
    wanted = {"safetensors": "safetensors", "gguf": "GGUF"}.get(load_format, "safetensors or GGUF")
    found = ", ".join(names[:12]) or "nothing"
    return ModelLoadError(
        f"{folder}: no {wanted} files in it; it holds {found}. Check that the download is complete"
    )
