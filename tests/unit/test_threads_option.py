"""``--threads`` and ``LLM(threads=...)``: handed to the backend, over plugins.toml."""

from __future__ import annotations

import pytest

from octavo.cli.options import ENGINE_OPTIONS
from octavo.config import EngineConfig
from octavo.devices import load_backend, resolve
from octavo.errors import UsageError
from octavo.plugins import load_plugins
from octavo.policy import load_policy


def load(name: str, threads: int, plugins_file: str | None = None):
    config = EngineConfig(model="m", threads=threads, plugins_file=plugins_file)
    policy = load_policy(config.plugins_file)
    resolution = resolve("auto", name, policy, load_plugins(policy))
    return load_backend(resolution, policy, config.backend_options)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "x"])
def test_what_is_no_count_is_refused(threads):
    message = f"threads={threads!r} must be a whole number of at least 1"
    with pytest.raises(UsageError, match=message):
        EngineConfig(model="m", threads=threads)


def test_it_is_an_option_among_the_backends_and_wins():
    assert EngineConfig(model="m").backend_options == {}
    config = EngineConfig(model="m", threads=2, options={"threads": 3, "variant": "portable"})
    assert config.backend_options == {"threads": 2, "variant": "portable"}


def test_the_backend_gets_it_over_the_file(tmp_path):
    path = tmp_path / "plugins.toml"
    path.write_text("schema = 1\n[options.numpy]\nthreads = 3\n", encoding="utf-8")
    backend = load("numpy", 1, str(path))
    try:
        assert backend.threads == 1
    finally:
        backend.close()


def test_a_backend_without_the_option_says_so():
    with pytest.raises(UsageError, match=r"'fake' has no option 'threads'.*--threads"):
        load("fake", 2)


def test_every_command_that_loads_a_model_has_the_flag():
    assert "threads" in {option.parameter for option in ENGINE_OPTIONS}
