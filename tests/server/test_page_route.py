"""The page's files: their headers, that they ask nothing of others, that a wheel has them all."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest
from fake_clients import FakeClient
from tiny_serving import http_client

import octavo.server
from octavo.server.app import create_app
from octavo.server.config import ServerConfig
from octavo.server.served_model import ServedModel, ServedModels
from octavo.server.state import Server

pytestmark = pytest.mark.anyio

FOLDER = Path(octavo.server.__file__).parent / "page"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
FILES = sorted(path for path in FOLDER.iterdir() if path.suffix in TYPES)
SCRIPTS = [path for path in FILES if path.suffix == ".js"]


def app_with(**options):
    models = ServedModels([ServedModel(names=("fake",), engine=FakeClient())])
    return create_app(Server(ServerConfig(**options), models))


@pytest.fixture
async def http(anyio_backend):
    async with http_client(app_with(api_keys=("sk-page",))) as client:
        yield client


def address_of(path):
    return "/" if path.name == "index.html" else f"/page/{path.name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
async def test_files_are_sent_without_a_key_and_once(http, path):
    response = await http.get(address_of(path))
    assert response.status_code == 200
    assert response.content == path.read_bytes()
    headers = response.headers
    assert headers["content-type"] == TYPES[path.suffix]
    assert headers["content-security-policy"].startswith("default-src 'self';")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    for known in (headers["etag"], f'"other", W/{headers["etag"]}', "*"):
        again = await http.get(address_of(path), headers={"if-none-match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == headers["etag"]
    other = await http.get(address_of(path), headers={"if-none-match": '"other"'})
    assert other.status_code == 200
    head = await http.head(address_of(path))
    assert (head.content, head.headers["content-length"]) == (b"", headers["content-length"])


@pytest.mark.parametrize(
    "name", ["index.html", "none.js", "../page.py", "..%2fapp.py", "%2e%2e/app.py", "", "a\x00.js"]
)
async def test_there_are_no_other_files(http, name):
    response = await http.get(f"/page/{name}".replace("\x00", "%00"))
    assert response.status_code in {401, 404}
    assert "error" in response.json()


async def test_the_page_can_be_left_out():
    async with http_client(app_with(enable_page=False)) as http:
        assert (await http.get("/")).status_code == 404
        assert (await http.get("/page/main.js")).status_code == 404


async def test_the_page_is_not_part_of_the_interface(http):
    document = (await http.get("/openapi.json", headers={"x-api-key": "sk-page"})).json()
    assert not {"/", "/page/{name}"} & set(document["paths"])


def test_nothing_is_fetched_from_elsewhere_or_written_inline():
    index = (FOLDER / "index.html").read_text()
    for name in re.findall(r'(?:src|href)="([^"]+)"', index):
        assert (FOLDER / name.removeprefix("page/")).is_file(), name
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]* src=)", index)
    for path in FILES:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"[\"'(]\s*(?:https?:)?//\w", text), path.name


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_import_each_other_and_never_make_markup(path):
    text = path.read_text()
    for name in re.findall(r'from "([^"]+)"', text):
        assert (FOLDER / name).is_file(), name
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text)
    assert text.startswith("// ")


def test_a_wheel_has_all_files_and_no_others(tmp_path, repo_root):
    builders = pytest.importorskip("hatchling.builders.wheel", reason="needs requirements/build")
    builder = builders.WheelBuilder(str(repo_root / "core"))
    [wheel] = builder.build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        packed = {Path(name) for name in archive.namelist()}
    names = {path.name for path in packed if path.parent == Path("octavo/server/page")}
    assert names == {path.name for path in FOLDER.iterdir()} == {path.name for path in FILES}
