"""A Llama folder with its features shuffled: the same function, other neighbours in each block.

The only real weights at hand came out of Q4_1, whose grid `int4` finds again exactly: blocks of 32
along a row, too. Here the 32 weights of a block come from many blocks of the file, each with a
scale and a minimum of its own, so that nothing of the grid is left.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from make_hf_model import HF_FOLDER, make_hf_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUFFIX = "-permuted"
INPUTS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")  # read the residual stream


class Permutation:
    """Orders of the residual stream, of each MLP's inside and of each layer's head features."""

    def __init__(self, config: dict[str, int], seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self._num_kv_heads = config["num_key_value_heads"]
        self._num_heads = config["num_attention_heads"]
        self._residual = random.permutation(config["hidden_size"])
        layers = range(config["num_hidden_layers"])
        self._inner = [random.permutation(config["intermediate_size"]) for _ in layers]
        # One order for all heads of a layer: query heads share their KV head's values.
        self._head = [random.permutation(config["head_dim"]) for _ in layers]

    def apply(self, name: str, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        """``weight`` [features] or [out_features, in_features] in the new order."""
        parts = name.split(".")
        module = parts[-2]
        if "layers" not in parts or weight.ndim == 1:  # embedding table, head and norms
            return weight[..., self._residual]
        layer = int(parts[parts.index("layers") + 1])
        if module in INPUTS:
            weight = weight[:, self._residual]
        if module in ("o_proj", "down_proj"):
            weight = weight[self._residual]
        if module in ("gate_proj", "up_proj"):
            weight = weight[self._inner[layer]]
        if module == "down_proj":
            weight = weight[:, self._inner[layer]]
        if module == "v_proj":
            weight = weight[self._by_head(layer, self._num_kv_heads)]
        if module == "o_proj":
            weight = weight[:, self._by_head(layer, self._num_heads)]
        return weight

    def _by_head(self, layer: int, num_heads: int) -> NDArray[np.int64]:
        order = self._head[layer]
        return (np.arange(num_heads)[:, None] * len(order) + order).ravel()


def make_permuted_folder(source: Path = HF_FOLDER) -> Path:
    """The shuffled copy beside ``source``, whose layers have no biases; built on first use."""
    from safetensors.numpy import load_file, save_file

    target = source.with_name(source.name + SUFFIX)
    if target.is_dir():
        return target
    permutation = Permutation(json.loads((source / "config.json").read_text()))
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, ignore=shutil.ignore_patterns("*.safetensors"))
    weights = load_file(source / "model.safetensors")
    shuffled = {
        name: np.ascontiguousarray(permutation.apply(name, weight))
        for name, weight in weights.items()
    }
    save_file(shuffled, partial / "model.safetensors", {"format": "pt"})
    partial.rename(target)
    return target


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="default: made of the Q4_1 file")
    print(make_permuted_folder(parser.parse_args().folder or make_hf_folder()))
