"""The store of responses: what it keeps, and what has to make room."""

from __future__ import annotations

import pytest

from octavo.server.errors import ApiError
from octavo.server.responses import ResponseStore, StoredResponse


def stored(name, *, status="completed", text="", earlier=()):
    response = {
        "id": name,
        "status": status,
        "output": [{"id": f"msg_{name}", "type": "message", "text": text}],
    }
    asked = {"id": f"in_{name}", "type": "message", "text": ""}
    return StoredResponse(response, tuple(earlier), (asked,))


def keep(store, *responses):
    for response in responses:
        store.put(response)
        store.settle(response)


def test_the_oldest_makes_room_for_the_newest():
    store = ResponseStore(max_responses=2)
    keep(store, stored("a"), stored("b"), stored("c"))
    assert [name in store for name in "abc"] == [False, True, True]
    assert store.item("msg_a") is None
    assert store.item("msg_b")["id"] == "msg_b"
    assert store.item("in_c")["id"] == "in_c"
    with pytest.raises(ApiError) as caught:
        store.get("a")
    assert caught.value.status == 404


def test_what_is_being_made_is_kept_whatever_comes():
    store = ResponseStore(max_responses=1)
    running = stored("a", status="in_progress")
    store.put(running)
    keep(store, stored("b"), stored("c"))
    assert [name in store for name in "abc"] == [True, False, False]
    running.response["status"] = "completed"
    store.settle(running)
    keep(store, stored("d"))
    assert [name in store for name in "ad"] == [False, True]


def test_memory_is_bounded_and_counted_to_the_last_byte():
    store = ResponseStore(max_bytes=10_000)
    for i in range(100):
        keep(store, stored(f"r{i}", text="x" * 1000))
        assert store.num_bytes <= 10_000
    assert 5 <= len(store) <= 9
    keep(store, stored("huge", text="x" * 20_000))
    assert len(store) == 0
    assert store.num_bytes == 0
    assert store.item("msg_r99") is None


def test_a_conversation_counts_for_each_of_its_responses():
    store = ResponseStore(max_bytes=10_000)
    first = stored("a", text="x" * 3000)
    second = stored("b", earlier=first.conversation)
    keep(store, first, second)
    assert store.num_bytes > 6000
    store.discard("a")
    assert store.num_bytes > 3000
    assert [item["id"] for item in store.get("b").conversation] == [
        *("in_a", "msg_a", "in_b", "msg_b"),
    ]


def test_responses_grow_old():
    clock = [0.0]
    store = ResponseStore(max_age_s=10, now_s=lambda: clock[0])
    keep(store, stored("a"))
    store.put(stored("b", status="in_progress"))
    clock[0] = 5.0
    keep(store, stored("c"))
    clock[0] = 11.0
    with pytest.raises(ApiError):
        store.get("a")
    assert store.get("b").id == "b"
    assert store.get("c").id == "c"


def test_discarding_twice_is_fine():
    store = ResponseStore()
    keep(store, stored("a"))
    store.discard("a")
    store.discard("a")
    assert (len(store), store.num_bytes) == (0, 0)
