"""Fixtures for what is installed from wheels: built once, into one environment, for all tests."""

from __future__ import annotations

import json

import pytest
from clean_environment import CleanEnvironment, build_wheel

TINY_LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}


@pytest.fixture(scope="session")
def wheels(tmp_path_factory, repo_root):
    """The wheel of each distribution, by its folder in the checkout."""
    target = tmp_path_factory.mktemp("wheels")
    folders = ["core", "backends/cpu"]
    folders += [file.parent for file in repo_root.glob("examples/*/pyproject.toml")]
    paths = [repo_root / folder for folder in folders]
    return {path.relative_to(repo_root).as_posix(): build_wheel(path, target) for path in paths}


@pytest.fixture(scope="session")
def clean_environment(tmp_path_factory, repo_root, wheels):
    """Octavo and its NumPy backend, installed outside the checkout; ``install`` adds to it."""
    environment = CleanEnvironment.create(
        tmp_path_factory.mktemp("clean"), repo_root / "constraints.txt", wheels
    )
    environment.install("core", "backends/cpu")
    return environment


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory):
    """A folder with nothing but a config.json: for ``load_format="dummy"``."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    (folder / "config.json").write_text(json.dumps(TINY_LLAMA))
    return folder
