"""A browser, servers for it to visit, and pages that must not complain."""

from __future__ import annotations

import importlib
import os
import shutil

import pytest

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
INSTALL = "`make browser-deps` tells how to get it"
LATENCY_S = 0.03
MEMORY_BYTES = 1 << 25

if os.environ.get("OCTAVO_TEST_BROWSER"):  # where it is required, its absence is no skip
    importlib.import_module("playwright")


def pytest_collection_modifyitems(items):
    """A browser takes its time."""
    for item in items:
        if item.path.parent.name == "browser":
            item.add_marker(pytest.mark.slow)


def _without(what):
    """Skip, or fail in `make test-browser`, which sets OCTAVO_TEST_BROWSER."""
    if os.environ.get("OCTAVO_TEST_BROWSER"):
        pytest.fail(f"{what}; {INSTALL}", pytrace=False)
    pytest.skip(f"{what}; {INSTALL}")


@pytest.fixture(scope="session")
def browser():
    """Chromium, without a window."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        _without("Playwright is not installed")
    path = os.environ.get("OCTAVO_CHROMIUM") or shutil.which("chromium")
    if path is None:
        _without("there is no Chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def tiny_arguments(tmp_path_factory):
    """A tiny chat model on the fake device, as arguments of ``octavo serve``."""
    from page_server import write_plugins_file

    from structured_models import byte_level_folder
    from tiny_tokenizers import CHAT_TEMPLATE

    folder = byte_level_folder(tmp_path_factory.mktemp("page"), chat_template=CHAT_TEMPLATE)
    plugins = write_plugins_file(tmp_path_factory.mktemp("plugins"), LATENCY_S)
    return (
        *(folder, "--served-model-name", "tiny", "--device", "fake", "--plugins-file", plugins),
        *("--load-format", "dummy", "--kv-cache-memory-bytes", MEMORY_BYTES),
    )


@pytest.fixture(scope="session")
def address(browser, tiny_arguments):
    """A server that everybody may use."""
    from page_server import page_server

    with page_server(*tiny_arguments) as url:
        yield url


@pytest.fixture
def open_page(browser, address):
    """Opens the page, in a browser of its own with these options; none may complain."""
    from chat_page import ChatPage

    pages = []

    def open_one(url=address, *, opens=True, **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        page = ChatPage(context.new_page(), url)
        pages.append((page, context))
        return page.open() if opens else page

    yield open_one
    for page, context in pages:
        context.close()
        assert page.problems == []


@pytest.fixture
def page(open_page):
    """The page on a desk's screen; the server is idle when it is left."""
    opened = open_page()
    yield opened
    opened.until_idle()
