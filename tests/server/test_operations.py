"""Health, readiness, load and management: what an orchestrator and an owner see of a server."""

from __future__ import annotations

import json
import time

import httpx
import pytest
from fake_clients import FakeClient
from metric_samples import Exposition
from tiny_serving import http_client

import octavo
from octavo.errors import BackendError, CapacityError
from octavo.server.app import create_app
from octavo.server.config import ServerConfig
from octavo.server.served_model import ServedModel, ServedModels
from octavo.server.state import Server

pytestmark = pytest.mark.anyio


def server_over(*engines, **config):
    """A server whose models are called a, b, …"""
    models = [
        ServedModel(names=(name,), engine=engine)
        for name, engine in zip("abc", engines, strict=False)
    ]
    return Server(ServerConfig(**config), ServedModels(models))


async def call(server, method, path, **options):
    async with http_client(create_app(server)) as http:
        return await http.request(method, path, **options)


async def test_a_server_that_works_is_healthy_and_ready():
    server = server_over(FakeClient(), FakeClient())
    assert (await call(server, "GET", "/health")).json() == {"status": "ok"}
    assert (await call(server, "GET", "/ready")).json() == {"status": "ready"}


async def test_one_failed_engine_makes_the_server_unhealthy_and_says_why():
    broken = FakeClient()
    broken.shown.failure = "The device fell off. The engine has stopped."
    server = server_over(FakeClient(), broken)
    for path in ("/health", "/ready"):
        response = await call(server, "GET", path)
        assert response.status_code == 503
        error = response.json()["error"]
        assert error["code"] == "engine_stopped"
        assert "'b'" in error["message"]
        assert "The device fell off." in error["message"]


@pytest.mark.parametrize(
    ("state", "code"),
    [("sleeps", "engine_sleeps"), ("drains", "shutting_down"), ("loads", "loading")],
)
async def test_a_server_that_takes_no_requests_lives_and_is_not_ready(state, code):
    engine = FakeClient()
    server = server_over(*([] if state == "loads" else [engine]))
    engine.shown.is_sleeping = state == "sleeps"
    server.is_draining = state == "drains"
    assert (await call(server, "GET", "/health")).status_code == 200
    response = await call(server, "GET", "/ready")
    assert response.status_code == 503
    assert response.json()["error"]["code"] == code


async def test_health_may_be_asked_without_a_key():
    server = server_over(FakeClient(), api_keys=("secret",))
    for path in ("/health", "/ready", "/version"):
        assert (await call(server, "GET", path)).status_code == 200
    for path in ("/metrics", "/load", "/engine/state", "/v1/models"):
        assert (await call(server, "GET", path)).status_code == 401


async def test_version():
    response = await call(server_over(), "GET", "/version")
    assert response.json() == {"version": octavo.__version__}


@pytest.mark.parametrize(
    ("config", "status"),
    [
        ({}, 200),
        ({"host": "localhost"}, 200),
        ({"host": "::1"}, 200),
        ({"host": "0.0.0.0"}, 403),  # noqa: S104 - a config, nothing listens
        ({"host": "0.0.0.0", "management": True}, 200),  # noqa: S104
        ({"host": "0.0.0.0", "api_keys": ("secret",)}, 200),  # noqa: S104
        ({"management": False}, 403),
        ({"management": False, "api_keys": ("secret",)}, 403),
    ],
)
async def test_management_is_for_owners(config, status):
    engine = FakeClient()
    server = server_over(engine, **config)
    headers = {"authorization": "Bearer secret"}
    for path in ("/reset_prefix_cache", "/sleep", "/wake_up"):
        response = await call(server, "POST", path, headers=headers)
        assert response.status_code == status, path
        if status == 403:
            error = response.json()["error"]
            assert error["type"] == "permission_error"
            assert ("--no-management" if "management" in config else "--management") in error[
                "message"
            ]
    expected = ["reset_prefix_cache", ("sleep", 1), "wake_up"]
    assert engine.calls == (expected if status == 200 else [])
    assert (await call(server, "GET", "/is_sleeping", headers=headers)).status_code == 200


async def test_all_models_sleep_or_one_of_them():
    first, second = FakeClient(), FakeClient()
    server = server_over(first, second)

    async def asleep():
        return (await call(server, "GET", "/is_sleeping")).json()

    assert await asleep() == {"is_sleeping": False, "models": {"a": False, "b": False}}
    response = await call(server, "POST", "/sleep?level=2&model=b")
    assert response.json() == {"is_sleeping": True, "models": {"b": True}}
    assert await asleep() == {"is_sleeping": False, "models": {"a": False, "b": True}}
    assert (await call(server, "GET", "/is_sleeping?model=b")).json()["is_sleeping"] is True
    await call(server, "POST", "/sleep")
    assert (await asleep())["is_sleeping"] is True
    await call(server, "POST", "/wake_up?model=a")
    assert (await asleep())["models"] == {"a": False, "b": True}
    assert first.calls == [("sleep", 1), "wake_up"]
    assert second.calls == [("sleep", 2), ("sleep", 1)]
    response = await call(server, "POST", "/reset_prefix_cache")
    assert response.json() == {"num_blocks": {"a": 5, "b": 5}}


@pytest.mark.parametrize(
    ("path", "status", "param"),
    [
        ("/sleep?level=0", 400, "level"),
        ("/sleep?level=3", 400, "level"),
        ("/sleep?level=x", 400, "level"),
        ("/sleep?mode=abort", 400, "mode"),
        ("/wake_up?tags=weights", 400, "tags"),
        ("/wake_up?level=1", 400, "level"),
        ("/reset_prefix_cache?models=a", 400, "models"),
        ("/sleep?model=nobody", 404, "model"),
        ("/reset_prefix_cache?model=nobody", 404, "model"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_name(path, status, param):
    engine = FakeClient()
    response = await call(server_over(engine), "POST", path)
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)
    assert engine.calls == []


@pytest.mark.parametrize("kind", [BackendError, CapacityError])
async def test_an_engine_that_cannot_do_it_is_a_503_with_its_reason(kind):
    class Stubborn(FakeClient):
        async def wake_up(self):
            raise kind("No memory to wake up with.")

    response = await call(server_over(Stubborn()), "POST", "/wake_up")
    assert response.status_code == 503
    assert response.json()["error"]["message"] == "No memory to wake up with."


async def test_an_engine_sleeps_and_wakes_with_the_same_answers(http):
    """The real one: its requests are refused meanwhile."""
    body = {
        "messages": [{"role": "user", "content": "Say: x"}],
        "max_tokens": 8,
        "temperature": 0,
        "ignore_eos": True,
    }

    async def answer():
        return await http.post("/v1/chat/completions", json=body)

    before = await answer()
    assert (await http.post("/sleep?level=2")).json()["is_sleeping"] is True
    refused = await answer()
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "engine_sleeps"
    assert (await http.get("/ready")).status_code == 503
    assert (await http.get("/metrics")).status_code == 200
    assert (await http.get("/load")).status_code == 200
    assert (await http.post("/wake_up")).json()["is_sleeping"] is False
    after = await answer()
    assert after.json()["choices"] == before.json()["choices"]


def streamed(serving, max_tokens):
    body = {
        "messages": [{"role": "user", "content": "Say: x"}],
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "stream": True,
    }
    return httpx.stream("POST", f"{serving.base_url}/v1/chat/completions", json=body, timeout=30)


@pytest.fixture
def get(serving):
    with httpx.Client(base_url=serving.base_url, timeout=30) as client:
        yield client.get


@pytest.fixture
def slow_steps(loaded, monkeypatch):
    """Steps of at least 20 ms, so that what runs still does when it is looked at."""
    step = loaded.engine.step

    def slow_step():
        time.sleep(0.02)
        return step()

    monkeypatch.setattr(loaded.engine, "step", slow_step)


@pytest.mark.usefixtures("slow_steps")
def test_load_and_view_while_a_request_runs(serving, get):
    """The view is taken between two steps: blocks of 16 tokens, and the request that holds them."""
    assert get("/load").json()["server_load"] == 0
    with streamed(serving, 900) as response:
        lines = response.iter_lines()  # kept: the stream is closed with it
        next(lines)
        load, view = get("/load").json(), get("/engine/state?model=tiny").json()
    assert load["server_load"] == 1
    assert load["models"]["tiny"]["num_running"] == 1
    assert 0 < load["models"]["tiny"]["kv_cache_usage"] < 1
    (request,) = view["requests"]
    assert request["status"] == "running"
    assert request["num_computed_tokens"] >= request["num_prompt_tokens"]
    assert view["stats"]["num_running"] == 1
    (group,) = view["groups"]
    assert sum(run[3] for run in group["runs"]) == group["num_blocks"]
    used = [run for run in group["runs"] if run[0] == "r"]
    assert {(owner, num_holders) for _, owner, num_holders, _ in used} == {(0, 1)}
    num_needed = -(-request["num_computed_tokens"] // view["block_size"])
    assert sum(run[3] for run in used) in (num_needed, num_needed + 1)  # one for the next token
    assert "Say" not in json.dumps(view)

    end_s = time.monotonic() + 30  # the client has left: the request goes with it
    while get("/engine/state").json()["requests"] and time.monotonic() < end_s:
        time.sleep(0.01)
    assert get("/load").json()["server_load"] == 0
    shown = Exposition(get("/metrics").text)
    assert shown.by_label("octavo:request_success_total", "finished_reason") == {"abort": 1}
    assert shown.sum("octavo:num_requests_running") == 0


def test_the_view_is_sent_as_long_as_somebody_watches(serving):
    url = f"{serving.base_url}/engine/events"
    with httpx.stream("GET", url, timeout=30) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = [
            json.loads(line.removeprefix("data: "))
            for line, _ in zip(filter(None, response.iter_lines()), range(3), strict=False)
        ]
    assert [event["model"] for event in events] == ["tiny"] * 3
    times = [event["time_s"] for event in events]
    assert times == sorted(times)
    response = httpx.get(f"{url}?model=nobody")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
