"""Architectures by name: the known, the unknown, and those that plugins bring."""

from __future__ import annotations

import subprocess
import sys

import pytest

from octavo.errors import ModelLoadError
from octavo.models.llama import Llama
from octavo.models.mistral import Mistral
from octavo.models.registry import KNOWN, build_model, known_architectures
from octavo.spec import ModelSpec

SIZES = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
LLAMA = {**SIZES, "architectures": ["LlamaForCausalLM"]}


def test_an_unknown_architecture_is_refused_with_the_list_and_the_nearest():
    with pytest.raises(ModelLoadError) as error:
        build_model({**SIZES, "architectures": ["LLamaForCausalLM"]})
    message = str(error.value)
    assert "LLamaForCausalLM is not supported. Did you mean LlamaForCausalLM?" in message
    assert ", ".join(sorted(KNOWN)) in message


def test_an_architecture_like_no_other_gets_the_list_only():
    with pytest.raises(ModelLoadError) as error:
        build_model({"architectures": ["Zebra"]})
    assert "Did you mean" not in str(error.value)
    assert "Known: GPT2LMHeadModel," in str(error.value)


@pytest.mark.parametrize("architectures", [None, [], "LlamaForCausalLM"])
def test_without_architectures_the_model_type_counts(architectures):
    config = {**SIZES, "model_type": "llama", "architectures": architectures}
    assert type(build_model(config)) is Llama


def test_an_unknown_model_type_is_named():
    with pytest.raises(ModelLoadError, match="rwkv is not supported"):
        build_model({"model_type": "rwkv"})


def test_a_config_that_names_nothing():
    with pytest.raises(ModelLoadError, match="neither 'architectures' nor 'model_type'"):
        build_model(SIZES)


def test_the_first_architecture_that_is_known_is_taken():
    config = {**SIZES, "architectures": ["LlamaForRanking", "LlamaForCausalLM"]}
    assert type(build_model(config)) is Llama


def test_quantised_checkpoints_are_refused():
    config = {**LLAMA, "quantization_config": {"quant_method": "gptq", "bits": 4}}
    with pytest.raises(ModelLoadError, match="quant_method='gptq'"):
        build_model(config)


def test_a_plugin_adds_an_architecture():
    plugin = ModelSpec("ZebraForCausalLM", Mistral)
    config = {**SIZES, "architectures": ["ZebraForCausalLM"], "num_key_value_heads": 4}
    assert type(build_model(config, [plugin])) is Mistral
    assert "ZebraForCausalLM" in known_architectures([plugin])
    assert "ZebraForCausalLM" not in known_architectures()


def test_a_plugin_replaces_an_architecture_on_its_own_backend_only():
    class Faster(Llama):
        pass

    class Fastest(Llama):
        pass

    general = ModelSpec("LlamaForCausalLM", Faster)
    special = ModelSpec("LlamaForCausalLM", Fastest, backend="cuda")
    assert type(build_model(LLAMA, [special], "numpy")) is Llama
    assert type(build_model(LLAMA, [special], None)) is Llama
    assert type(build_model(LLAMA, [special, general], "numpy")) is Faster
    assert type(build_model(LLAMA, [special, general], "cuda")) is Fastest


def test_one_family_is_imported_and_not_the_others():
    code = (
        "import sys; from octavo.models.registry import build_model; "
        f"build_model({LLAMA!r}); "
        "print(*(name for name in sys.modules if name.startswith('octavo.models.')))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    imported = result.stdout.split()
    assert "octavo.models.llama" in imported
    assert not {"octavo.models.gemma2", "octavo.models.gpt2"} & set(imported)


def test_every_known_class_builds():
    """Names in the table are right; what the classes do is tested elsewhere."""
    gpt2 = {"vocab_size": 256, "n_embd": 64, "n_layer": 2, "n_head": 4}
    kv_heads = {"num_key_value_heads": 2}
    for architecture, (_, class_name) in KNOWN.items():
        config = {**SIZES, **kv_heads, **gpt2, "architectures": [architecture]}
        assert type(build_model(config)).__name__ == class_name
