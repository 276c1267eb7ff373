"""Dequantise the SmolLM2 GGUF into a float32 Hugging Face folder: one model for all engines.

The conversion is transformers' own. 540 MB; does nothing when the folder is there.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GGUF_PATH = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
HF_FOLDER = ROOT / "models" / "SmolLM2-135M-Instruct-f32"


def make_hf_folder(gguf_path: Path = GGUF_PATH, hf_folder: Path = HF_FOLDER) -> Path:
    """The folder with config, tokenizer and float32 safetensors; built on first use."""
    if (hf_folder / "config.json").is_file():
        return hf_folder
    if not gguf_path.is_file():
        raise SystemExit(f"{gguf_path} is not there: run scripts/fetch_model.py first")
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # Built aside and moved, so that an interrupted conversion leaves no half folder behind.
    partial = hf_folder.with_name(hf_folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    source = str(gguf_path.parent)
    model = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=gguf_path.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    model.save_pretrained(partial)
    AutoTokenizer.from_pretrained(source, gguf_file=gguf_path.name).save_pretrained(partial)
    partial.rename(hf_folder)
    return hf_folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gguf", type=Path, default=GGUF_PATH)
    parser.add_argument("--folder", type=Path, default=HF_FOLDER)
    arguments = parser.parse_args()
    print(make_hf_folder(arguments.gguf, arguments.folder))
