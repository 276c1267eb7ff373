"""docs/serving.md says what there is: every flag, every endpoint, and a file that is read."""

from __future__ import annotations

import re

import pytest

from octavo.cli.options import ENGINE_OPTIONS
from octavo.cli.serve_file import read_serve_file
from octavo.cli.serve_options import MODEL_OPTIONS, SERVER_OPTIONS
from octavo.cli.serve_plan import deployment_of
from octavo.server.app import create_app
from octavo.server.config import ServerConfig
from octavo.server.served_model import ServedModels
from octavo.server.state import Server


@pytest.fixture(scope="module")
def page(repo_root):
    return (repo_root / "docs" / "serving.md").read_text("utf-8")


def section(page, title):
    return page.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_every_flag_is_on_the_page_and_none_that_is_not_there(page):
    table = section(page, "Flags")
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `--")]
    shown = set(re.findall(r"--[a-z][a-z-]+", " ".join(cells)))
    options = (*MODEL_OPTIONS, *SERVER_OPTIONS)
    there = {f"--{option.parameter.replace('_', '-')}" for option in options}
    assert shown == there | {"--model", "--config", "--dry-run"}
    engine = {f"--{option.parameter.replace('_', '-')}" for option in ENGINE_OPTIONS}
    of_others = {"--help", "--no-buffer", "--cpunodebind", "--membind"}  # curl's, numactl's
    assert set(re.findall(r"--[a-z][a-z-]+", page)) <= shown | engine | of_others


def test_the_defaults_on_the_page_are_the_servers(page):
    table = dict(re.findall(r"^\| `--([a-z-]+)` \| (\d+) \|", section(page, "Flags"), re.MULTILINE))
    config = ServerConfig()
    assert len(table) == 5
    for flag, default in table.items():
        assert getattr(config, flag.replace("-", "_")) == float(default), flag


def test_every_endpoint_is_on_the_page(page):
    table = section(page, "Endpoints").replace("…/", "/v1/responses/{response_id}/")
    shown = set(re.findall(r"(/[^` ,|]*)`", table))
    paths = set(create_app(Server(ServerConfig(), ServedModels([]))).openapi()["paths"])
    assert paths - shown == set()
    assert shown - paths == {"/", "/docs", "/openapi.json"}


def test_the_file_on_the_page_is_read(page, tmp_path):
    keys = tmp_path / "keys.txt"
    keys.write_text("sk-one\n")
    text = re.search(r"```toml\n(.*?)```", page, re.DOTALL)[1]
    path = tmp_path / "serve.toml"
    path.write_text(text.replace("/run/secrets/keys.txt", keys.as_posix()))
    flags = {"model": {}, "server": {}, "engine": {}}
    deployment = deployment_of(None, [], flags, read_serve_file(path), {})
    assert [plan.names[0] for plan in deployment.models] == ["large", "small"]
    assert deployment.server.api_keys == ("sk-one",)


def test_the_python_on_the_page_compiles(page):
    for source in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        compile(source, "docs/serving.md", "exec")
