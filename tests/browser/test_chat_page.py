"""The chat of the page, in Chromium, against a real server."""

from __future__ import annotations

import json
import re

import pytest

pytest.importorskip("playwright", reason="Playwright is not installed (make browser-deps)")

from page_server import page_server
from playwright.sync_api import expect

LONG = {"more": {"ignore_eos": True}, "max_tokens": 500}
MARKUP = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"
KEY = "sk-of-the-page"


def test_an_answer_streams_and_says_what_it_cost(page):
    page.set(more={"ignore_eos": True}, max_tokens=60, temperature=0, seed=7)
    page.say("hello")
    expect(page.said).to_have_text(re.compile("hello"))
    expect(page.answer).to_have_class(re.compile("running"))
    seen = set()
    while page.tab.locator("#stop").is_visible():
        seen.add(page.answer.locator(".markdown").text_content())
        page.tab.wait_for_timeout(20)
    assert len(seen) > 5
    figures = page.answer.locator(".figures")
    expect(figures).to_have_text(
        re.compile(
            r"^60 tokens · [\d.]+ tokens/s · first after [\d.]+ m?s .*cut at the token limit$"
        )
    )
    expect(page.tab.locator("#prompt")).to_be_focused()


@pytest.mark.parametrize("way", ["button", "Escape"])
def test_stopping_ends_the_request_on_the_server(page, way):
    page.set(**LONG)
    page.say("go on and on")
    expect(page.answer.locator(".figures")).to_have_text(re.compile(r"\d tokens"))
    assert len(page.engine_state()["requests"]) == 1
    if way == "button":
        page.tab.get_by_role("button", name="Stop").click()
    else:
        page.tab.keyboard.press("Escape")
    page.until_idle()
    expect(page.answer.locator(".figures")).to_have_text(re.compile("stopped$"))
    expect(page.tab.locator("#prompt")).to_be_focused()
    assert page.answer.locator(".markdown").text_content()


def test_leaving_the_page_ends_the_request(page):
    page.set(**LONG)
    page.say("go on and on")
    expect(page.rows).to_have_count(1)
    page.open()
    page.until_idle()


def test_what_a_model_writes_stays_text(page):
    page.say_forced("markup, please", MARKUP)
    expect(page.answer.locator(".markdown")).to_have_text(MARKUP)
    assert page.tab.locator("#messages img, #messages script").count() == 0
    page.set(max_tokens=3)
    page.say(MARKUP)
    expect(page.said.last.locator(".text")).to_have_text(MARKUP)
    page.until_answered()
    assert page.tab.title() == "Octavo"


def test_markdown_becomes_nodes(page):
    answer = (
        "# Title\n\nSome **bold**, *slanted* and `a*b*c`; [here](https://e.org/x) but "
        "[not](javascript:alert(1)).\n\n- one\n  - inner\n- two\n\n```py\nx = '<b>'\n```\n\n> said"
    )
    page.say_forced("markdown, please", answer)
    shown = page.answer.locator(".markdown")
    for selector, text in (
        *(("h3", "Title"), ("strong", "bold"), ("em", "slanted"), ("p code", "a*b*c")),
        *(("a", "here"), ("ul ul li", "inner"), (".code pre", "x = '<b>'"), ("blockquote", "said")),
    ):
        expect(shown.locator(selector)).to_have_text(text)
    assert shown.locator("a").get_attribute("href") == "https://e.org/x"
    assert shown.locator("a").get_attribute("rel") == "noopener noreferrer nofollow"
    expect(shown).to_contain_text("[not](javascript:alert(1))")


def test_retrying_and_editing_replace_what_followed(page):
    page.say_forced("first", "one")
    page.say_forced("second", "two")
    page.set(more={"structured_outputs": {"choice": ["three"]}})
    page.answers.last.get_by_role("button", name="Retry").click()
    expect(page.answers.last.locator(".markdown")).to_have_text("three")
    page.until_answered()
    assert (page.answers.count(), page.said.count()) == (2, 2)
    page.said.first.get_by_role("button", name="Edit").click()
    page.tab.keyboard.press("End")
    page.tab.keyboard.type(" again")
    with page.tab.expect_request("**/v1/chat/completions") as sent:
        page.tab.keyboard.press("Enter")
    assert sent.value.post_data_json["messages"] == [{"role": "user", "content": "first again"}]
    page.until_answered()
    assert (page.answers.count(), page.said.count()) == (1, 1)
    page.tab.get_by_role("button", name="New").click()
    assert page.answers.count() == 0


def test_parameters_are_sent_and_kept(page):
    page.set(system="Be brief.", temperature=0.5, top_p=0.9, seed=3, stop="a b\nc", max_tokens=2)
    page.open()
    with page.tab.expect_request("**/v1/chat/completions") as sent:
        page.say("hello")
    body = sent.value.post_data_json
    expected = {"temperature": 0.5, "top_p": 0.9, "seed": 3, "stop": ["a b", "c"], "max_tokens": 2}
    assert expected.items() <= body.items()
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["model"], body["stream"]) == ("tiny", True)
    page.until_answered()


def test_refusals_are_shown_in_the_servers_words(page):
    page.set(temperature=-1)
    page.say("hello")
    failure = page.answer.locator(".failure")
    expect(failure).to_have_text("temperature must be in [0, 2], got -1.0.")
    page.set(temperature="", more="{oops")
    page.answer.get_by_role("button", name="Retry").click()
    expect(failure).to_contain_text("“More fields” is not JSON")
    page.set(more={"no_such_field": 1})
    page.answer.get_by_role("button", name="Retry").click()
    expect(failure).to_contain_text("no_such_field")


def test_a_busy_server_says_when_to_come_back(page):
    body = {"error": {"message": "The queue is full.", "type": "rate_limit_error"}}
    answer = {"status": 429, "headers": {"Retry-After": "3"}, "json": body}
    page.tab.route("**/v1/chat/completions", lambda route: route.fulfill(**answer))
    page.say("hello")
    busy = "The server is busy: The queue is full. Try again in 3 s."
    expect(page.answer.locator(".failure")).to_have_text(busy)


def test_reasoning_is_folded_and_calls_take_results(page):
    call = {"index": 0, "id": "call_1", "function": {"name": "clock", "arguments": '{"zone": "U'}}
    deltas = [
        {"reasoning_content": "Which zone?"},
        {"tool_calls": [call]},
        {"tool_calls": [{"index": 0, "function": {"arguments": 'TC"}'}}]},
    ]
    stream = _stream_of(deltas, "tool_calls")
    page.tab.route("**/v1/chat/completions", lambda route: route.fulfill(**stream))
    page.say("what time is it?")
    expect(page.answer.locator("details.reasoning .text")).to_be_hidden()
    page.answer.locator("summary").click()
    expect(page.answer.locator("details.reasoning .text")).to_have_text("Which zone?")
    expect(page.answer.locator(".call")).to_contain_text("clock")
    expect(page.answer.locator(".call code")).to_have_text('{\n  "zone": "UTC"\n}')
    page.set(max_tokens=3)
    page.tab.unroute("**/v1/chat/completions")
    with page.tab.expect_request("**/v1/chat/completions") as sent:
        page.say("12:30")
    _, asked, result = sent.value.post_data_json["messages"]
    function = {"name": "clock", "arguments": '{"zone": "UTC"}'}
    assert asked["tool_calls"] == [{"id": "call_1", "type": "function", "function": function}]
    assert result == {"role": "tool", "tool_call_id": "call_1", "content": "12:30"}
    page.until_answered()


def _stream_of(deltas, finish_reason):
    choices = [{"index": 0, "delta": delta} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish_reason})
    events = [
        f"data: {json.dumps({'id': 'chat-1', 'choices': [choice]})}\n\n" for choice in choices
    ]
    return {"content_type": "text/event-stream", "body": "".join([*events, "data: [DONE]\n\n"])}


def test_everything_works_with_the_keyboard_alone(page):
    keyboard = page.tab.keyboard
    page.set(max_tokens=3)
    page.tab.get_by_role("button", name="New").click()
    expect(page.tab.locator("#prompt")).to_be_focused()
    keyboard.type("one")
    keyboard.press("Shift+Enter")
    keyboard.type("two")
    keyboard.press("Enter")
    expect(page.said.locator(".text")).to_have_text("one\ntwo", use_inner_text=True)
    page.until_answered()
    names = []
    for _ in range(6):
        keyboard.press("Shift+Tab")
        names.append(page.tab.evaluate("document.activeElement.textContent"))
        outline = page.tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
    assert {"Retry", "Edit"} <= set(names)


def test_a_key_is_asked_for_and_kept_in_this_tab(open_page, tiny_arguments):
    with page_server(*tiny_arguments, "--api-key", KEY) as url:
        page = open_page(url, opens=False)
        page.tab.goto(url)
        dialog = page.tab.locator("#key-dialog")
        for reason, key in (("didn't provide an API key", "wrong"), ("Incorrect API key", KEY)):
            expect(dialog).to_contain_text(reason)
            expect(page.tab.locator("#key")).to_be_focused()
            page.tab.keyboard.type(key)
            page.tab.keyboard.press("Enter")
        expect(dialog).to_be_hidden()
        expect(page.tab.locator("#model")).to_have_value("tiny")
        page.set(max_tokens=3)
        page.say("hello")
        expect(page.answer.locator(".figures")).to_contain_text("token")
        expect(page.tab.locator(".caption")).to_contain_text("in use")
        assert KEY not in page.tab.evaluate("JSON.stringify(localStorage) + document.cookie")
        page.open()
        expect(dialog).to_be_hidden()
        page.tab.close()
