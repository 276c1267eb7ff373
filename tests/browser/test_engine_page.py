"""The engine's view beside the chat, in Chromium, against a real server."""

from __future__ import annotations

import json
import re

import pytest

pytest.importorskip("playwright", reason="Playwright is not installed (make browser-deps)")

from playwright.sync_api import expect

LONG = {"more": {"ignore_eos": True}, "max_tokens": 500}
PREFIX = "All of this stands in front of every question, and is computed only once. " * 3
PHONE = {"viewport": {"width": 375, "height": 720}, "has_touch": True, "is_mobile": True}


ALARM = ("alarm", "alarm-ground")


def figure(page, name):
    return page.tab.locator(f"[data-figure={name}] b")


def test_the_view_follows_a_request(page):
    expect(page.tab.locator(".caption")).to_contain_text("in use")
    before = page.map_picture
    page.set(**LONG)
    page.say("go on and on")
    expect(page.rows).to_have_count(1)
    expect(figure(page, "running")).to_have_text("1")
    expect(figure(page, "generation")).to_have_text(re.compile("[1-9]"))
    [request] = page.engine_state()["requests"]
    row = page.tab.locator(f"tbody tr[data-id='{request['id']}']")
    expect(row).to_contain_text("running")
    assert page.map_picture != before
    colours = [
        place.evaluate("swatch => getComputedStyle(swatch).backgroundColor")
        for place in (row.locator(".swatch"), page.answer.locator(".swatch"))
    ]
    assert colours[0] == colours[1]
    page.tab.keyboard.press("Escape")
    page.until_idle()
    expect(figure(page, "running")).to_have_text("0")
    expect(page.tab.locator(".caption")).to_have_text(re.compile("^0 of .* [1-9][0-9]* cached$"))


def test_two_conversations_share_the_blocks_of_their_prefix(page, open_page):
    other = open_page()
    for visitor in (page, other):
        visitor.set(system=PREFIX, **LONG)
        visitor.say("go on and on")
        expect(visitor.answer.locator(".figures")).to_have_text(re.compile(r"\d tokens"))
    expect(page.rows).to_have_count(2)
    caption = page.tab.locator(".caption")
    expect(caption).to_contain_text("shared")
    state = page.engine_state()
    shared = sum(run[3] for run in state["groups"][0]["runs"] if run[0] == "r" and run[2] == 2)
    assert shared > 0
    expect(caption).to_contain_text(f"{shared} shared")
    first = next(run for run in _numbered(state) if run["holders"] == 2)["first"]
    page.tab.locator(".map canvas").focus()
    for _ in range(first):
        page.tab.keyboard.press("ArrowRight")
    expect(page.tab.locator(".readout")).to_contain_text("shared by 2 · chatcmpl-")
    expect(page.tab.locator(".readout")).to_contain_text(f"Block {first}:")
    for visitor in (page, other):
        visitor.tab.keyboard.press("Escape")
    page.until_idle()


def _numbered(state):
    first = 1  # block 0 is padding's
    for _, _, holders, count in state["groups"][0]["runs"]:
        yield {"first": first, "holders": holders}
        first += count


def test_pointing_at_a_cell_tells_its_block(page):
    canvas = page.tab.locator(".map canvas")
    expect(canvas).to_be_visible()
    expect(page.tab.locator(".readout")).to_contain_text("A cell is a block of 16 tokens")
    canvas.hover(position={"x": 3, "y": 3})
    expect(page.tab.locator(".readout")).to_contain_text("Block 1:")


def test_many_blocks_and_requests_in_several_groups(open_page):
    page = open_page(opens=False)
    requests = [_request(index) for index in range(300)]
    runs = [["r", index % 300, 1 + index % 2, 300] for index in range(400)]
    state = {
        "model": "tiny",
        "time_s": 1.0,
        "block_size": 16,
        "requests": requests,
        "stats": dict.fromkeys(_COUNTERS, 5),
        "groups": [{"num_blocks": 200_000, "runs": [*runs, ["c", -1, 0, 80_000]]}] * 2,
    }
    event = {"content_type": "text/event-stream", "body": f"data: {json.dumps(state)}\n\n"}
    page.tab.route("**/engine/events*", lambda route: route.fulfill(**event))
    page.open()
    expect(page.rows).to_have_count(200)
    expect(page.tab.locator("#engine")).to_contain_text("and 100 more")
    expect(page.tab.locator(".map canvas")).to_have_count(2)
    expect(page.tab.locator(".caption").last).to_have_text(
        "Group 2: 120,000 of 200,000 in use · 60,000 shared · 80,000 cached"
    )
    assert page.overflow_px() <= 0


_COUNTERS = (
    *("num_running", "num_waiting", "num_swapped", "num_prompt_tokens", "num_generated_tokens"),
    *("num_steps", "num_prefix_query_tokens", "num_prefix_hit_tokens", "num_preemptions"),
)


def _request(index):
    numbers = ("prompt_tokens", "output_tokens", "computed_tokens", "cached_tokens", "preemptions")
    figures = {f"num_{name}": 1000 * index for name in numbers}
    return {
        "id": f"chatcmpl-{index:032x}",
        "status": "running",
        "priority": 0,
        "age_s": 9,
        **figures,
    }


def test_a_phone_shows_chat_and_engine_as_tabs(open_page):
    page = open_page(**PHONE)
    engine, chat = page.tab.locator("#engine"), page.tab.locator("#chat")
    expect(chat).to_be_visible()
    expect(engine).to_be_hidden()
    page.say_forced("a long word, please", "Donaudampfschifffahrt" * 8)
    assert page.overflow_px() <= 0
    page.tab.get_by_role("tab", name="Engine").tap()
    expect(engine).to_be_visible()
    expect(chat).to_be_hidden()
    expect(page.tab.locator(".caption")).to_contain_text("in use")
    page.tab.locator(".map canvas").tap(position={"x": 3, "y": 3})
    expect(page.tab.locator(".readout")).to_contain_text("Block 1:")
    assert page.overflow_px() <= 0
    page.tab.keyboard.press("Escape")
    page.tab.get_by_role("tab", name="Engine").focus()
    page.tab.keyboard.press("ArrowLeft")
    expect(chat).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(open_page, scheme):
    page = open_page(color_scheme=scheme)
    inks = page.tab.evaluate(
        "names => Object.fromEntries(names.map(name => [name,"
        " getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim()]))",
        [*("ground", "raised", "sunk", "ink", "soft"), *("accent", "on-accent"), *ALARM],
    )
    is_dark = _luminance(inks["ground"]) < 0.2
    assert is_dark == (scheme == "dark")
    pairs = [(ink, ground) for ink in ("ink", "soft") for ground in ("ground", "raised", "sunk")]
    pairs += [("accent", "ground"), ("on-accent", "accent"), ("alarm", "alarm-ground")]
    for ink, ground in pairs:
        assert _contrast(inks[ink], inks[ground]) >= 4.5, (ink, ground)  # WCAG 2.2, AA


def _luminance(colour):
    """WCAG's relative luminance of #rrggbb."""
    values = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return sum(share * value for share, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _contrast(one, other):
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)
