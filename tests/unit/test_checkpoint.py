"""Opening models from files and folders: what is chosen, what is refused, and the way out."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from octavo.errors import ModelLoadError, UsageError
from octavo.loading import ShapelessSource, open_checkpoint
from octavo.loading.safetensors import SafetensorsSource

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "vocab_size": 16,
    "bos_token_id": 1,
    "eos_token_id": [2, 3],
}


@pytest.fixture
def folder(tmp_path):
    """A model folder; of its weights only what opening looks at."""
    folder = tmp_path / "tiny-llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file({"model.norm.weight": np.ones(8, np.float32)}, folder / "model.safetensors")
    return folder


def write_gguf_file(path):
    """A GGUF container with nothing in it: enough to be chosen, and then to fail by its name."""
    path.write_bytes(b"GGUF" + bytes([3, 0, 0, 0]) + bytes(16))
    return path


def test_a_folder_with_safetensors(folder):
    checkpoint = open_checkpoint(str(folder))
    assert checkpoint.name == "tiny-llama"
    assert checkpoint.path == folder
    assert checkpoint.config == CONFIG
    assert isinstance(checkpoint.tensors, SafetensorsSource)
    assert checkpoint.tensors.read("model.norm.weight", "float32").tolist() == [1.0] * 8
    assert checkpoint.tokenizer.directory == folder
    assert checkpoint.tokenizer.gguf is None


def test_a_relative_path_has_the_folders_own_name(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert open_checkpoint(".").name == "tiny-llama"


def test_special_tokens_come_from_the_config_unless_generation_config_has_them(folder):
    assert open_checkpoint(str(folder)).generation_config == {
        "bos_token_id": 1,
        "eos_token_id": [2, 3],
    }
    (folder / "generation_config.json").write_text('{"eos_token_id": 7, "top_p": 0.9}')
    assert open_checkpoint(str(folder)).generation_config == {
        "bos_token_id": 1,
        "eos_token_id": 7,
        "top_p": 0.9,
    }


def test_config_overrides_replace_entries_and_are_checked(folder):
    scaling = {"rope_type": "linear", "factor": 2.0}
    checkpoint = open_checkpoint(str(folder), config_overrides={"rope_scaling": scaling})
    assert checkpoint.config == CONFIG | {"rope_scaling": scaling}
    with pytest.raises(ModelLoadError, match="with config overrides: hidden_size is -1"):
        open_checkpoint(str(folder), config_overrides={"hidden_size": -1})


def test_dummy_needs_the_config_only(folder):
    (folder / "model.safetensors").unlink()
    checkpoint = open_checkpoint(str(folder), load_format="dummy", seed=3)
    assert isinstance(checkpoint.tensors, ShapelessSource)
    first = checkpoint.tensors.read_shaped("a.weight", (2, 3), "float32")
    again = open_checkpoint(str(folder), load_format="dummy", seed=3).tensors
    other = open_checkpoint(str(folder), load_format="dummy", seed=4).tensors
    assert (again.read_shaped("a.weight", (2, 3), "float32") == first).all()
    assert (other.read_shaped("a.weight", (2, 3), "float32") != first).any()


def test_an_unknown_load_format_lists_the_known_ones(folder):
    with pytest.raises(UsageError, match=r"Did you mean dummy\? Known: auto, safetensors, gguf"):
        open_checkpoint(str(folder), load_format="dumy")


class TestChoice:
    def test_safetensors_go_before_gguf(self, folder):
        write_gguf_file(folder / "x.gguf")
        assert isinstance(open_checkpoint(str(folder)).tensors, SafetensorsSource)

    def test_gguf_is_taken_when_asked_for(self, folder):
        write_gguf_file(folder / "x.gguf")
        with pytest.raises(ModelLoadError, match=r"x\.gguf: the GGUF architecture None"):
            open_checkpoint(str(folder), load_format="gguf")

    def test_the_only_gguf_of_a_folder_is_taken(self, folder):
        (folder / "model.safetensors").unlink()
        write_gguf_file(folder / "x.gguf")
        write_gguf_file(folder / "mmproj-x.gguf")  # llama.cpp's image encoders lie beside models
        with pytest.raises(ModelLoadError, match=r"/x\.gguf: the GGUF architecture None"):
            open_checkpoint(str(folder))

    def test_several_ggufs_are_listed(self, tmp_path):
        for name in ("q4.gguf", "q8.gguf"):
            write_gguf_file(tmp_path / name)
        with pytest.raises(ModelLoadError, match=r"q4\.gguf, q8\.gguf.*the one you want"):
            open_checkpoint(str(tmp_path))

    def test_safetensors_only_refuses_gguf(self, tmp_path):
        path = write_gguf_file(tmp_path / "q4.gguf")
        with pytest.raises(ModelLoadError, match="load format is safetensors"):
            open_checkpoint(str(path), load_format="safetensors")
        with pytest.raises(ModelLoadError, match=r"no safetensors files.*holds q4\.gguf"):
            open_checkpoint(str(tmp_path), load_format="safetensors")


class _Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was loaded",))


class TestRefusals:
    @pytest.mark.parametrize(
        "name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pth"]
    )
    def test_a_folder_of_pickles(self, folder, name):
        (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(pickle.dumps(_Bomb()))
        with pytest.raises(ModelLoadError, match=f"pickles only .{name}.*save_pretrained"):
            open_checkpoint(str(folder))

    def test_a_pickle(self, folder):
        path = folder / "model.pt"
        path.write_bytes(pickle.dumps(_Bomb()))
        with pytest.raises(ModelLoadError, match="PyTorch pickle"):
            open_checkpoint(str(path))

    def test_a_pickle_named_gguf(self, folder):
        path = folder / "model.gguf"
        path.write_bytes(pickle.dumps(_Bomb()))
        with pytest.raises(ModelLoadError, match="not a GGUF file"):
            open_checkpoint(str(path))

    def test_a_safetensors_file_alone(self, folder):
        with pytest.raises(ModelLoadError, match=r"Pass the folder: .*tiny-llama"):
            open_checkpoint(str(folder / "model.safetensors"))

    def test_another_file(self, folder):
        with pytest.raises(ModelLoadError, match="not a known kind"):
            open_checkpoint(str(folder / "config.json"))

    def test_an_empty_folder(self, tmp_path):
        with pytest.raises(ModelLoadError, match=r"no safetensors or GGUF files.*holds nothing"):
            open_checkpoint(str(tmp_path))

    def test_a_missing_file_hints_at_its_neighbours(self, folder):
        write_gguf_file(folder / "SmolLM2.Q4_1.gguf")
        with pytest.raises(ModelLoadError, match=r"Nearby: SmolLM2\.Q4_1\.gguf"):
            open_checkpoint(str(folder / "SmolLM.Q4_1.gguf"))

    def test_a_missing_config(self, folder):
        (folder / "config.json").unlink()
        with pytest.raises(ModelLoadError, match=r"config\.json is missing"):
            open_checkpoint(str(folder))
        (folder / "adapter_config.json").write_text("{}")
        with pytest.raises(ModelLoadError, match="adapter"):
            open_checkpoint(str(folder))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "not valid JSON"),
            ("{", "not valid JSON"),
            ("\N{BYTE ORDER MARK}\x00", "not valid JSON"),
            ("[" * 200_000, "not valid JSON"),
            ('{"hidden_size": ' + "9" * 5000 + "}", "not valid JSON"),
            ("[]", "JSON list"),
            ("null", "JSON NoneType"),
            ('"config"', "JSON str"),
            ('{"hidden_size": 0}', "hidden_size is 0"),
            ('{"hidden_size": -8}', "hidden_size is -8"),
            ('{"hidden_size": "8"}', "hidden_size is '8'"),
            ('{"hidden_size": 1e400}', "hidden_size is inf"),
            ('{"hidden_size": true}', "hidden_size is True"),
            ('{"num_hidden_layers": 1000000000}', "from 1 to 10000"),
            ('{"vocab_size": 99999999999999999999}', "vocab_size is 99999999999999999999"),
            ('{"text_config": {"head_dim": 1.5}}', "text_config.*head_dim is 1.5"),
        ],
        ids=range(16),
    )
    def test_a_broken_or_absurd_config(self, folder, text, message):
        (folder / "config.json").write_text(text, encoding="utf-8")
        with pytest.raises(ModelLoadError, match=message) as caught:
            open_checkpoint(str(folder))
        assert "config.json" in str(caught.value)
        assert len(str(caught.value)) < 500 + len(str(folder))

    def test_a_config_that_is_not_utf8(self, folder):
        (folder / "config.json").write_bytes(b'{"a": "\xff"}')
        with pytest.raises(ModelLoadError, match="not valid JSON"):
            open_checkpoint(str(folder))

    def test_a_generation_config_that_is_no_object(self, folder):
        (folder / "generation_config.json").write_text("[]")
        with pytest.raises(ModelLoadError, match=r"generation_config\.json"):
            open_checkpoint(str(folder))


class TestTokenizer:
    def test_another_folder(self, folder, tmp_path):
        checkpoint = open_checkpoint(str(folder), tokenizer=str(tmp_path))
        assert checkpoint.tokenizer.directory == tmp_path

    def test_a_gguf_file(self, folder):
        path = write_gguf_file(folder / "x.gguf")
        checkpoint = open_checkpoint(str(folder), tokenizer=str(path))
        assert checkpoint.tokenizer.directory is None
        assert checkpoint.tokenizer.gguf == {}

    def test_something_else_is_refused(self, folder):
        with pytest.raises(ModelLoadError, match="cannot take a tokenizer from"):
            open_checkpoint(str(folder), tokenizer=str(folder / "config.json"))


def test_importing_stays_cheap():
    script = (
        "import sys, octavo.loading; "
        "heavy = {'torch', 'transformers', 'huggingface_hub', 'rich', 'safetensors', 'gguf'}; "
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=False, text=True
    )
    assert (result.returncode, result.stderr) == (0, "")
