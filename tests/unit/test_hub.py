"""Names on the hub, against a cache folder laid out by hand; nothing here touches the network."""

from __future__ import annotations

import json

import huggingface_hub
import huggingface_hub.constants
import numpy as np
import pytest
from safetensors.numpy import save_file

from octavo.errors import ModelLoadError
from octavo.loading import ShapelessSource, hub, open_checkpoint
from octavo.loading.hub import HubName

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = {"architectures": ["LlamaForCausalLM"], "hidden_size": 4, "eos_token_id": 2}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An offline hub cache folder with one cached model, org/tiny at revision main."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def add_model(cache, repo_id="org/tiny", revision="main"):
    """The snapshot folder of a cached model, empty: DIR/models--org--tiny/snapshots/COMMIT."""
    model = cache / f"models--{repo_id.replace('/', '--')}"
    snapshot = model / "snapshots" / COMMIT
    (model / "refs").mkdir(parents=True, exist_ok=True)
    snapshot.mkdir(parents=True, exist_ok=True)
    (model / "refs" / revision).write_text(COMMIT)
    return snapshot


def add_weights(snapshot):
    (snapshot / "config.json").write_text(json.dumps(CONFIG))
    save_file({"w": np.ones(4, np.float32)}, snapshot / "model.safetensors")
    return snapshot


def test_a_cached_model_opens_offline(cache):
    snapshot = add_weights(add_model(cache))
    checkpoint = open_checkpoint("org/tiny")
    assert checkpoint.name == "org/tiny"
    assert checkpoint.path == snapshot
    assert checkpoint.config == CONFIG
    assert checkpoint.tensors.read("w", "float32").tolist() == [1.0] * 4
    assert checkpoint.tokenizer.directory == snapshot


def test_a_revision_and_a_download_folder_of_the_users_choice(cache, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    snapshot = add_weights(add_model(other, revision="v2"))
    assert open_checkpoint("org/tiny", revision="v2", download_dir=str(other)).path == snapshot
    with pytest.raises(ModelLoadError, match="org/tiny at revision v3"):
        open_checkpoint("org/tiny", revision="v3", download_dir=str(other))


def test_a_local_folder_of_the_same_name_goes_first(cache, tmp_path_factory, monkeypatch):
    add_weights(add_model(cache))
    home = tmp_path_factory.mktemp("home")
    (home / "org" / "tiny").mkdir(parents=True)
    add_weights(home / "org" / "tiny")
    monkeypatch.chdir(home)
    assert open_checkpoint("org/tiny").name == "tiny"


def test_what_is_not_cached_says_what_was_tried_and_what_to_do(cache):
    with pytest.raises(ModelLoadError) as caught:
        open_checkpoint("org/absent")
    message = str(caught.value)
    for part in ("org/absent", "HF_HUB_OFFLINE is set", str(cache), "hf download org/absent"):
        assert part in message


def test_without_network_and_not_cached_the_hub_is_named(cache, monkeypatch):
    def fail(*_args, **_kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelLoadError, match=r"Tried https://.*ConnectionError: no route to host"):
        open_checkpoint("org/absent")


def test_a_half_downloaded_model_names_what_is_missing(cache):
    snapshot = add_model(cache)
    (snapshot / "config.json").write_text(json.dumps(CONFIG))
    index = {"weight_map": {"w": "model-00001-of-00001.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelLoadError, match="missing: model-00001-of-00001"):
        open_checkpoint("org/tiny")


def test_a_repository_without_safetensors_is_refused(cache):
    snapshot = add_model(cache)
    (snapshot / "config.json").write_text(json.dumps(CONFIG))
    (snapshot / "pytorch_model.bin").write_bytes(b"PK")
    with pytest.raises(ModelLoadError, match=r"no safetensors.*org/tiny:Q4_K_M.*pickles"):
        open_checkpoint("org/tiny")


def test_the_choices_of_a_gguf_repository_are_listed(cache, monkeypatch):
    (add_model(cache) / "config.json").write_text(json.dumps(CONFIG))
    files = ["README.md", "tiny-Q4_0.gguf", "tiny-Q8_0.gguf"]
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_, **__: files)
    with pytest.raises(ModelLoadError, match=r"It has tiny-Q4_0\.gguf, tiny-Q8_0\.gguf\."):
        open_checkpoint("org/tiny")


def test_dummy_needs_the_settings_only(cache):
    snapshot = add_model(cache)
    (snapshot / "config.json").write_text(json.dumps(CONFIG))
    checkpoint = open_checkpoint("org/tiny", load_format="dummy")
    assert isinstance(checkpoint.tensors, ShapelessSource)
    assert checkpoint.config == CONFIG


def test_a_tokenizer_from_the_hub(cache, tmp_path_factory):
    snapshot = add_model(cache, "org/words")
    (snapshot / "tokenizer.json").write_text("{}")
    local = add_weights(tmp_path_factory.mktemp("local"))
    checkpoint = open_checkpoint(str(local), tokenizer="org/words")
    assert checkpoint.tokenizer.directory == snapshot


class TestDownloads:
    """What is asked of huggingface_hub, which is replaced by a recorder."""

    @pytest.fixture
    def asked(self, cache, monkeypatch):
        calls = []
        snapshot = add_weights(add_model(cache))

        def record(repo_id, **arguments):
            calls.append((repo_id, arguments))
            return str(snapshot)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", record)
        self.snapshot = snapshot
        return calls

    def test_weights_without_an_index(self, asked):
        hub.fetch_safetensors(HubName("org/tiny"), None, None)
        (_, settings), (repo_id, weights) = asked
        assert repo_id == "org/tiny"
        assert "config.json" not in settings["allow_patterns"]
        assert "*.json" in settings["allow_patterns"]
        assert weights["allow_patterns"] == ["*.safetensors"]
        assert weights["revision"] == COMMIT  # both calls see the same state
        for _, arguments in asked:
            assert arguments["ignore_patterns"] == ["*/*"]
            assert not any(p.endswith(("bin", "pt", "*")) for p in arguments["allow_patterns"])

    def test_weights_with_an_index_are_those_files_and_no_others(self, asked):
        index = {"weight_map": {"w": "b.safetensors", "v": "a.safetensors", "u": "a.safetensors"}}
        (self.snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
        hub.fetch_safetensors(HubName("org/tiny"), None, None)
        assert asked[1][1]["allow_patterns"] == ["a.safetensors", "b.safetensors"]

    def test_a_hostile_index_downloads_nothing(self, asked):
        index = {"weight_map": {"w": "../../.ssh/x.safetensors"}}
        (self.snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(ModelLoadError, match="in the same folder"):
            hub.fetch_safetensors(HubName("org/tiny"), None, None)
        assert len(asked) == 1


class TestGGUF:
    @pytest.fixture
    def snapshot(self, cache):
        snapshot = add_model(cache)
        (snapshot / "big").mkdir()
        for name in (
            "tiny-Q4_K_M.gguf",
            "tiny-Q4_K_S.gguf",
            "tiny-q8_0.gguf",
            "tiny-f16-00001-of-00002.gguf",
            "tiny-f16-00002-of-00002.gguf",
            "big/tiny-Q6_K-00001-of-00002.gguf",
            "big/tiny-Q6_K-00002-of-00002.gguf",
        ):
            (snapshot / name).write_bytes(b"GGUF")
        return snapshot

    @pytest.mark.parametrize(
        ("chosen", "file"),
        [
            ("Q4_K_M", "tiny-Q4_K_M.gguf"),
            ("q4_k_m", "tiny-Q4_K_M.gguf"),
            ("Q8_0", "tiny-q8_0.gguf"),
            ("tiny-Q4_K_S.gguf", "tiny-Q4_K_S.gguf"),
            ("f16", "tiny-f16-00001-of-00002.gguf"),
            ("tiny-f16-00001-of-00002.gguf", "tiny-f16-00001-of-00002.gguf"),
            ("Q6_K", "big/tiny-Q6_K-00001-of-00002.gguf"),
            (
                "big/tiny-Q6_K-00002-of-00002.gguf",
                "big/tiny-Q6_K-00001-of-00002.gguf",
            ),
        ],
    )
    def test_a_file_or_a_quantisation_is_chosen(self, snapshot, chosen, file):
        name = hub.parse_hub_name(f"org/tiny:{chosen}")
        assert hub.fetch_gguf(name, None, None) == snapshot / file

    def test_it_is_this_file_that_is_opened(self, snapshot):
        with pytest.raises(ModelLoadError, match=r"tiny-Q4_K_M\.gguf: the file ends at byte 4"):
            open_checkpoint("org/tiny:Q4_K_M")

    @pytest.mark.parametrize("chosen", ["Q4_K", "Q5_K_M", "other.gguf"])
    def test_a_choice_that_matches_nothing(self, snapshot, chosen):
        with pytest.raises(ModelLoadError, match=f"'{chosen}' should choose one.*matches none"):
            open_checkpoint(f"org/tiny:{chosen}")

    def test_a_choice_that_matches_several(self, snapshot):
        (snapshot / "other-Q4_K_M.gguf").write_bytes(b"GGUF")
        with pytest.raises(ModelLoadError, match=r"other-Q4_K_M\.gguf, tiny-Q4_K_M\.gguf"):
            open_checkpoint("org/tiny:Q4_K_M")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gpt2", HubName("gpt2")),
        ("org/name", HubName("org/name")),
        ("org/name:Q4_0", HubName("org/name", "Q4_0")),
        ("org/name:sub/x.gguf", HubName("org/name", "sub/x.gguf")),
        ("/org/name", None),
        ("./name", None),
        ("a/b/c", None),
        ("org/na me", None),
        ("C:\\models\\x", None),
        ("org/name:", None),
        ("", None),
    ],
)
def test_what_is_a_name_on_the_hub(model, expected):
    assert hub.parse_hub_name(model) == expected


@pytest.mark.parametrize("model", ["./absent", "/absent/model", "absent.gguf", "org/absent.gguf"])
def test_what_looks_like_a_path_never_reaches_the_hub(model, monkeypatch):
    def fail(*_args, **_kwargs):
        pytest.fail("asked the hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelLoadError, match="there is no file or folder"):
        open_checkpoint(model)
