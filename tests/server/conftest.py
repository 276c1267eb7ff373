"""What the server's tests share: a tiny model, and servers over it that must end clean.

Async tests carry ``pytestmark = pytest.mark.anyio``; their fixtures share their event loop.
"""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend():
    """The event loop of async tests; uvicorn's and the engine's alike."""
    return "asyncio"


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A Llama of two layers, a byte-level tokenizer, and a ChatML template; weights are dummies."""
    from structured_models import byte_level_folder
    from tiny_tokenizers import CHAT_TEMPLATE

    folder = tmp_path_factory.mktemp("tiny-chat")
    return byte_level_folder(folder, chat_template=CHAT_TEMPLATE)


@pytest.fixture
def loaded(tiny_folder):
    """The tiny model on NumPy, ready to be given to a client, which closes it."""
    from tiny_serving import load_tiny

    return load_tiny(tiny_folder)


@pytest.fixture
async def server_app(loaded, anyio_backend):
    """The application over the tiny model, in the test's event loop; idle at the end."""
    from tiny_serving import app_over, open_client, until_idle

    client = await open_client(loaded)
    try:
        yield app_over(client)
        await until_idle(loaded)
    finally:
        await client.close()


@pytest.fixture
async def http(server_app):
    """An httpx client that calls ``server_app`` directly: whole answers, no sockets."""
    from tiny_serving import http_client

    async with http_client(server_app) as client:
        yield client


@pytest.fixture
def serving(loaded):
    """A server behind a socket: ``serving.base_url``; streams, disconnects. Idle at the end."""
    from tiny_serving import RunningServer

    with RunningServer(loaded) as server:
        yield server


@pytest.fixture
def client(serving):
    """OpenAI's client of that server, or of the module's own ``serving``."""
    import openai

    with openai.OpenAI(base_url=f"{serving.base_url}/v1", api_key="none", max_retries=0) as opened:
        yield opened
